"""Clips laid together from segmented stills while training runs."""
