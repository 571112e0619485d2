"""Claims of speed: each prints a ratio against a peer that ran beside it."""
