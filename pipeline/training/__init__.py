"""Losses, curriculum and the training loop."""
