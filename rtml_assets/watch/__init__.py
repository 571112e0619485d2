"""What looks at the running platform all day: one look, what is wrong in it, and what is done about it."""
