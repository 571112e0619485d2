"""The point-in-time engine: what features were worth at instants of the past, many rows at once. Pure."""
