"""Videos of a run, inside of the page where they are small enough, beside it where not."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

AT_MOST = 4  # of one policy
KINDS = {".mp4": "video/mp4", ".gif": "image/gif"}


@dataclass(frozen=True)
class Video:
    """What the page shows.

    Args:
        caption: whose it is.
        source: a data URI, or a path relative to the page.
        moves: whether it is a video rather than a picture.
    """

    caption: str
    source: str
    moves: bool


def newest_videos(folder: Path) -> list[Path]:
    """Of those in a run's ``videos/``, those of the newest policy: their names begin alike.

    Files only: a folder from somebody else may hold links to what is not its own.
    """
    if not folder.is_dir() or folder.is_symlink():
        return []
    found = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in KINDS and path.is_file() and not path.is_symlink() and path.name[0] != "."
    ]
    newest = max((_policy(path) for path in found), default="")
    return [path for path in found if _policy(path) == newest][:AT_MOST]


def videos(paths: Sequence[tuple[str, Path]], out: Path, limit_bytes: int) -> list[Video]:
    """Embed files, in their order, until the page holds ``limit_bytes`` of them; link the others.

    Args:
        paths: captions and files.
        out: the page's folder.
        limit_bytes: of all embedded files together, before base64 adds a third.
    """
    left, found = limit_bytes, []
    for caption, path in paths:
        source = quote(os.path.relpath(path.resolve(), out.resolve()))
        size, kind = path.stat().st_size, KINDS[path.suffix]
        if size <= left:
            left -= size
            source = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
        found.append(Video(caption, source, kind.startswith("video")))
    return found


def _policy(path: Path) -> str:
    """The part of a video's name that its policy's env steps make: ``000160000`` of _0 and _1."""
    return path.stem.partition("_")[0]
