"""D-STM: depth-aware space-time memory networks for video object segmentation, as a DVC pipeline."""
