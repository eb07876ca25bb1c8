"""Methods that a search is compared with: untuned, on frozen features, and by gradients."""
