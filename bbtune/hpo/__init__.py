"""Hyperparameter search: Ray Tune over the fields of a job, selected on dev."""
