"""Short videos simulated from segmented still images."""
