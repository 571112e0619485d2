"""Where a flow reads from."""
