"""Readers of the published layouts, training clips, and joint augmentation."""
