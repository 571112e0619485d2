"""The aggregate algebra: every aggregate is a monoid over states, the same on every road."""
