"""What is wrong with a data set, found before training finds it."""
