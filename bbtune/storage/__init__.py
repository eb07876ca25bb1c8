"""Where a run's folder lies, and how it is kept at an address."""
