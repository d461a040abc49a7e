"""Clips composed from segmented stills during training."""
