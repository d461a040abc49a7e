"""Training of the depth network: losses, optimizers, loop, validation."""
