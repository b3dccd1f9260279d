"""Off-policy algorithms, one page each."""
