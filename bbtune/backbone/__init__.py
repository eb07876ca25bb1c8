"""Frozen models: text in, label logits out, with prompts put into their hidden states."""
