"""The layout in Redis: the key grammar and the bytes."""
