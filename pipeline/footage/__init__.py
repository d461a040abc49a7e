"""A user's own video and masks in, masks drawn over the video out."""
