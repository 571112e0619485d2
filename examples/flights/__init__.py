"""Every flight that left New York in 2013: real delays, time zones, cancellations and gaps."""
