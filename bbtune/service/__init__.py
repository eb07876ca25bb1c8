"""The local service: a Ray head with a job server, and MLflow, in a folder of their own."""
