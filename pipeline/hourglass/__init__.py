"""The depth network: hourglass, its inference form and the normalisation of its output."""
