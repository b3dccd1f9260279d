"""Files that a reader sees whole or not at all, and that survive a power cut."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

Plain = TypeVar("Plain", dict, list)


def fsync_directory(path: Path) -> None:
    """Make the creation, renaming or removal of files in ``path`` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Create or replace the small file ``path`` in one step, durably."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)  # a folder from elsewhere may hold a link of that name
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    fsync_directory(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: object) -> None:
    """`write_text` of plain data."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, kind: type[Plain]) -> Plain:
    """What a file holds; an empty ``kind`` where it is missing, torn, or something else."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_text())
        if isinstance(found, kind):
            return found
    return kind()
