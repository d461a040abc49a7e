"""Depth maps of a whole data set: estimated by the depth network, or read from a folder."""
