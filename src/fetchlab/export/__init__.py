"""A policy as files that travel: weights, description, program, model card; and the hub."""
