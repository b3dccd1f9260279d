"""Evaluation, logging points, progress, checkpoints."""
