"""The fault table against real short runs: see `scripts/torture.py`."""
