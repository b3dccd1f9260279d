"""Lengths of time as a person reads them."""

from __future__ import annotations


def format_duration(seconds: float) -> str:
    """Return a readable length of time: ``42 s``, ``7 min``, ``3 h 05 min``, ``2 d 4 h``."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"
