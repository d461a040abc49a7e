"""Read a user's own video and masks, and write overlays and cut-outs."""
