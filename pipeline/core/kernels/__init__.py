"""Fast arithmetic on a CPU: convolutions, matrix products and ReLU."""
