"""Policy plus environments into replay, and evaluation rollouts."""
