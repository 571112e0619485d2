"""The aggregate algebra: every aggregate is a monoid over states, lowered, combined and finalized the same on every road."""
