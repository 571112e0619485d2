"""Whether data and features are what they should be: frames in, verdicts out."""
