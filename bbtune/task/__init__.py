"""Few-shot data, and how they are put to a model."""
