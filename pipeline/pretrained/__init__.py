"""Networks that others have published: the names of their weights, and the networks of ours that these fill."""
