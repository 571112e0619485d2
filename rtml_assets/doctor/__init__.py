"""`rtml doctor`: finds what is wrong, and explains what to do."""
