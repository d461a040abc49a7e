"""Masks for a whole video: frame by frame propagation and multi-scale averaging."""
