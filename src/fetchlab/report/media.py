"""Videos of a run, inside of the page where they are small enough, beside it where not."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from fetchlab.report.runs import evaluations, is_own

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


def newest_videos(run_dir: Path) -> list[Path]:
    """Of a run's ``videos/`` those of its newest own evaluation that has any, see `is_own`.

    Files only: a folder from somebody else may hold links to what is not its own.
    """
    folder = run_dir / "videos"
    if not folder.is_dir() or folder.is_symlink():
        return []
    there = [
        path
        for path in sorted(folder.iterdir())
        if path.suffix in KINDS and path.is_file() and not path.is_symlink() and path.name[0] != "."
    ]
    told = evaluations(run_dir)
    # A name may be of two evaluations: once it was that of the env steps alone.
    others = {str(name) for one in told if not is_own(one) for name in one.get("videos", [])}
    for one in reversed([one for one in told if is_own(one)]):
        names = {*map(str, one.get("videos", []))} - others
        if found := [path for path in there if path.name in names]:
            return found[:AT_MOST]
    return []


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
