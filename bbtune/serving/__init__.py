"""Many tuned prompts on one copy of their frozen model, over HTTP."""
