"""Redis → request."""
