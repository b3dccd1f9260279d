"""The Lightning module and data module."""
