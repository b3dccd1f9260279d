"""Commit protocol, manifest, validation, run lock."""
