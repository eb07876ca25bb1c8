"""Few-shot classification data, and how they are put to a model."""
