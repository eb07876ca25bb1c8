"""Models behind an API: asked once, paid once, never beyond a cap."""
