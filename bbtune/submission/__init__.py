"""Jobs for a Ray cluster: where it is, what travels there, and what becomes of it."""
