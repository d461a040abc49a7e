"""Parameters, paths, archives, images, checkpoints and the run time shared by every room."""
