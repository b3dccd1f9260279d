"""What a valid checkpoint is: a folder whose manifest matches it, byte for byte.

``manifest.json`` lists every other file with its size and SHA-256, and carries a digest of itself,
so that one flipped bit in any of them is found. Nothing here trusts the folder: names are plain
names, links and special files are refused before they are opened, and every file is opened
relative to the folder's own descriptor without following links. What the manifest does not list
(a desktop's or an editor's file) is never opened, so it can neither do harm nor be missed.

This module imports no torch: see `fetchlab.checkpoint.torch_io` for what the files hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

FORMAT = 1
MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, found or trusted; one line: where, and why.

    Attributes:
        path: the checkpoint or the folder of checkpoints.
        reason: what is wrong with it.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path}: {reason}")


@dataclass(frozen=True)
class FileEntry:
    """One file of a checkpoint: its size in bytes and the hexadecimal SHA-256 of its content."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """A checkpoint's table of contents.

    Attributes:
        env_steps: environment steps done when it was written.
        serial: grows by one with every commit in a folder; the order of checkpoints.
        files: every file beside the manifest itself, by name.
    """

    env_steps: int
    serial: int
    files: Mapping[str, FileEntry]

    def encode(self) -> bytes:
        """The one byte string that stands for this manifest, its own digest included."""
        files = {n: {"bytes": f.size_bytes, "sha256": f.sha256} for n, f in self.files.items()}
        body: dict[str, Any] = {"env_steps": self.env_steps, "serial": self.serial}
        body |= {"files": files, "format": FORMAT}
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        text = json.dumps({**body, "digest": digest}, sort_keys=True, indent=1)
        return f"{text}\n".encode()


def check_file_name(path: Path, name: object) -> None:
    """Refuse a file name that could lead out of the checkpoint's folder.

    Raises:
        CheckpointError: anything but a plain name, such as ``../x``, ``/x`` or ``.x``.
    """
    if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name) or name == MANIFEST:
        raise CheckpointError(path, f"the file name {name!r} is not a plain name inside the folder")


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest of the checkpoint ``path``, not the files it lists.

    Raises:
        CheckpointError: not a folder, or no sound manifest in it.
    """
    with _folder(path) as folder:
        return _read_manifest(path, folder)


def validate(path: Path) -> Manifest:
    """`read_checkpoint`, for its manifest alone."""
    return read_checkpoint(path)[0]


def read_checkpoint(path: Path) -> tuple[Manifest, dict[str, bytes]]:
    """Read a checkpoint whole; the bytes returned are the very bytes that were verified.

    Raises:
        CheckpointError: with the first thing that is wrong: manifest, a file's size or SHA-256.
    """
    contents = {}
    with _folder(path) as folder:
        manifest = _read_manifest(path, folder)
        for name, entry in manifest.files.items():
            with _file(path, folder, name) as stream:
                size = os.fstat(stream.fileno()).st_size
                if size != entry.size_bytes:
                    reason = f"{name} has {size} bytes, the manifest {entry.size_bytes}"
                    raise CheckpointError(path, reason)
                contents[name] = stream.read()
            if hashlib.sha256(contents[name]).hexdigest() != entry.sha256:
                raise CheckpointError(path, f"{name} does not match its SHA-256 (damaged)")
    return manifest, contents


def unlisted(path: Path) -> list[str]:
    """Names in the checkpoint ``path`` that are not the checkpoint's: present, never opened.

    Raises:
        CheckpointError: as `read_manifest`.
    """
    with _folder(path) as folder, os.scandir(folder) as entries:
        listed = {MANIFEST, *_read_manifest(path, folder).files}
        return sorted({entry.name for entry in entries} - listed)


def _read_manifest(path: Path, folder: int) -> Manifest:
    with _file(path, folder, MANIFEST) as stream:
        raw = stream.read(_MAX_MANIFEST_BYTES + 1)
    if len(raw) > _MAX_MANIFEST_BYTES:
        raise CheckpointError(path, f"{MANIFEST} is larger than {_MAX_MANIFEST_BYTES} bytes")
    try:
        data = json.loads(raw)
        files = {n: FileEntry(int(f["bytes"]), str(f["sha256"])) for n, f in data["files"].items()}
        version = data["format"]
        manifest = Manifest(int(data["env_steps"]), int(data["serial"]), files)
        # Comparing bytes, not values: no other text stands for the same manifest.
        intact = manifest.encode() == raw or version != FORMAT
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        raise CheckpointError(path, f"{MANIFEST} is truncated or damaged") from None
    if not intact:
        raise CheckpointError(path, f"{MANIFEST} does not match its own digest")
    if version != FORMAT:
        raise CheckpointError(path, f"format {version!r} is not format {FORMAT} of this version")
    for name in files:
        check_file_name(path, name)
    return manifest


@contextmanager
def _folder(path: Path) -> Iterator[int]:
    """A descriptor of the checkpoint's folder, refusing links to folders."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        reason = "is a symbolic link" if path.is_symlink() else _why(error)
        raise CheckpointError(path, f"not a checkpoint folder: {reason}") from None
    try:
        yield fd
    except OSError as error:
        raise CheckpointError(path, f"cannot be read: {_why(error)}") from error
    finally:
        os.close(fd)


@contextmanager
def _file(path: Path, folder: int, name: str) -> Iterator[BinaryIO]:
    """One regular file, open to read; O_NONBLOCK so that a named pipe cannot hang the open."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        raise CheckpointError(path, f"{name} is missing") from None
    except OSError as error:
        reason = "is a symbolic link" if (path / name).is_symlink() else _why(error)
        raise CheckpointError(path, f"{name}: {reason}") from None
    with os.fdopen(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CheckpointError(path, f"{name} is not a regular file")
        yield stream


def _why(error: OSError) -> str:
    return error.strerror or str(error)
