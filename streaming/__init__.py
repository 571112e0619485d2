"""Event → Redis and Delta."""
