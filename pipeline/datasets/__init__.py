"""Readers of the published layouts, one clip type, clip sampling and joint augmentation."""
