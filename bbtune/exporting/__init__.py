"""A finished run in the forms that others use: tensors, a PEFT adapter, a text, an MLflow model."""
