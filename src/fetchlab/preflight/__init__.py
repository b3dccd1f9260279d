"""What a run will use, checked before it starts."""
