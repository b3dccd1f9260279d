"""A policy as files that travel: the program that acts, and the model card."""
