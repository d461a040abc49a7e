"""The rendered sample: layered scenes with known masks and depth, written in the published layouts."""
