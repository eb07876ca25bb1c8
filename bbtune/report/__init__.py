"""A page about one finished run, for readers who have never seen the project."""
