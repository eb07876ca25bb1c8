"""What is wrong with this machine, its service or a job, and what to do about it."""
