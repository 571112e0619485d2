"""The demo: three months of real flights through the whole platform."""
