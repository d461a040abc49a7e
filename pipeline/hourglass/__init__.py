"""The depth network: hourglass, its losses, its inference form and the normalisation of its output."""
