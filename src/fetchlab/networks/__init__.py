"""Encoders, pooling, actor and critic."""
