"""Every kind of damage is found, named, and passed over for the previous valid checkpoint."""

import hashlib
import json
import logging
import os
import shutil

import pytest

from fetchlab.checkpoint.commit import prune, write_checkpoint
from fetchlab.checkpoint.find import newest_valid, survey
from fetchlab.checkpoint.manifest import (
    CheckpointError,
    FileEntry,
    Manifest,
    read_checkpoint,
    validate,
)

PAYLOAD = os.urandom(20 * 1024 + 13)


@pytest.fixture
def folder(tmp_path):
    write_checkpoint(tmp_path / "c", "step_000000100", {"checkpoint.pt": PAYLOAD, "b": b"b"}, 100)
    write_checkpoint(tmp_path / "c", "step_000000200", {"checkpoint.pt": PAYLOAD, "b": b"b"}, 200)
    return tmp_path / "c"


def assert_refused(folder, reason):
    newest = folder / "step_000000200"
    for check in (validate, read_checkpoint):
        with pytest.raises(CheckpointError, match=reason) as caught:
            check(newest)
        assert str(newest) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert newest_valid(folder).name == "step_000000100"


def forge(path, **changes):
    """A manifest with a correct digest of its own: what an attacker would write."""
    files = {p.name: p for p in path.iterdir() if p.name != "manifest.json"}
    entries = {
        n: FileEntry(p.stat().st_size, hashlib.sha256(p.read_bytes()).hexdigest())
        for n, p in files.items()
    }
    manifest = Manifest(changes.get("env_steps", 200), 9, {**entries, **changes.get("files", {})})
    (path / "manifest.json").write_bytes(manifest.encode())


def test_forge_makes_what_would_be_accepted(folder):
    forge(folder / "step_000000200")
    assert validate(folder / "step_000000200").serial == 9


def test_truncation_at_every_kib(folder):
    path = folder / "step_000000200" / "checkpoint.pt"
    for size in range(0, len(PAYLOAD), 1024):
        path.write_bytes(PAYLOAD[:size])
        assert_refused(folder, f"checkpoint.pt has {size} bytes, the manifest {len(PAYLOAD)}")


def test_truncated_manifest(folder):
    path = folder / "step_000000200" / "manifest.json"
    whole = path.read_bytes()
    for size in range(0, len(whole), 8):
        path.write_bytes(whole[:size])
        assert_refused(folder, "manifest.json")
    path.write_bytes(whole)
    assert validate(path.parent).env_steps == 200


def test_flipped_bit_in_each_file(folder):
    for name in ("checkpoint.pt", "b"):
        path = folder / "step_000000200" / name
        whole = path.read_bytes()
        for position in {0, len(whole) // 2, len(whole) - 1}:
            damaged = bytearray(whole)
            damaged[position] ^= 1
            path.write_bytes(damaged)
            assert_refused(folder, f"{name} does not match its SHA-256")
        path.write_bytes(whole)


def test_flipped_bit_in_every_byte_of_the_manifest(folder):
    path = folder / "step_000000200" / "manifest.json"
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in (1, 32):  # 32 turns letters to the other case and spaces to NUL
            damaged = bytearray(whole)
            damaged[position] ^= bit
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError):
                validate(path.parent)


def test_missing_files(folder):
    newest = folder / "step_000000200"
    forge(newest, files={"c": FileEntry(1, "0" * 64)})  # listed, and not there
    assert_refused(folder, "c is missing")
    (newest / "b").unlink()
    forge(newest, files={"b": FileEntry(1, "0" * 64)})
    assert_refused(folder, "b is missing")
    (newest / "manifest.json").unlink()
    assert_refused(folder, "manifest.json is missing")
    shutil.rmtree(newest)
    newest.mkdir()
    assert_refused(folder, "manifest.json is missing")


@pytest.mark.parametrize(
    "name", [".DS_Store", ".lock", "Thumbs.db", "._b", "b~", ".nfs0001", "\x1b[2J", "ö"]
)
@pytest.mark.parametrize("kind", ["file", "folder", "link", "pipe"])
def test_what_is_not_listed_is_named_and_never_opened(folder, tmp_path, caplog, name, kind):
    newest = folder / "step_000000200"
    before = read_checkpoint(newest)
    for place in (newest, folder):
        if kind == "file":
            (place / name).write_bytes(b"not ours")
        elif kind == "folder":
            (place / name).mkdir()
        elif kind == "link":
            (place / name).symlink_to(tmp_path / "absent")
        else:
            os.mkfifo(place / name)
    with caplog.at_level(logging.WARNING):
        assert newest_valid(folder) == newest
    shown = [record.getMessage() for record in caplog.records]
    assert [text.partition(": ignored")[0] for text in shown] == [str(folder), str(newest)]
    assert all(ascii(name) in text and text.isprintable() for text in shown)
    assert read_checkpoint(newest) == before
    assert prune(folder, "step", keep=2) == []


@pytest.mark.parametrize("name", ["../victim", "..", ".", "", ".hidden", "a/b", "a\x00b"])
def test_names_that_lead_out(folder, name):
    victim = folder / "victim"
    victim.write_bytes(b"outside")
    digest = hashlib.sha256(b"outside").hexdigest()
    forge(folder / "step_000000200", files={name: FileEntry(7, digest)})
    assert_refused(folder, "plain name")
    assert victim.read_bytes() == b"outside"


def test_absolute_name(folder, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"outside")
    digest = hashlib.sha256(b"outside").hexdigest()
    forge(folder / "step_000000200", files={str(victim): FileEntry(7, digest)})
    assert_refused(folder, "plain name")


@pytest.mark.parametrize("name", ["checkpoint.pt", "manifest.json"])
def test_linked_file_with_the_right_content(folder, tmp_path, name):
    path = folder / "step_000000200" / name
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    before = outside.read_bytes()
    assert_refused(folder, f"{name}: is a symbolic link")
    assert outside.read_bytes() == before


def test_linked_checkpoint_folder(folder, tmp_path):
    newest = folder / "step_000000200"
    newest.rename(tmp_path / "outside")
    newest.symlink_to(tmp_path / "outside")
    assert_refused(folder, "symbolic link")


def test_named_pipe_does_not_hang(folder):
    path = folder / "step_000000200" / "b"
    path.unlink()
    os.mkfifo(path)
    assert_refused(folder, "b is not a regular file")


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 200_000,
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"files": {"a": 1}, "format": 1, "env_steps": 1, "serial": 1}',
        b'{"files": {}, "format": 1, "env_steps": 1e999, "serial": 1}',
        b"1" * 10_000,
        b" " * (2 << 20),
    ],
)
def test_hostile_manifests(folder, text):
    (folder / "step_000000200" / "manifest.json").write_bytes(text)
    assert_refused(folder, "manifest.json")


def test_other_format_says_so(folder):
    path = folder / "step_000000200" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    assert_refused(folder, "format 2 is not format 1")


def test_true_is_not_one(folder):
    """A value that compares equal but is spelt otherwise is not this manifest."""
    path = folder / "step_000000200" / "manifest.json"
    path.write_text(path.read_text().replace('"env_steps": 200', '"env_steps": 200.0'))
    assert_refused(folder, "own digest")


def test_what_was_refused_is_reported(folder, caplog):
    (folder / "step_000000200" / "b").write_bytes(b"c")
    with caplog.at_level(logging.WARNING):
        assert newest_valid(folder).name == "step_000000100"
    assert "step_000000200: b does not match its SHA-256" in caplog.text
    (folder / "step_000000100" / "manifest.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        newest_valid(folder)
    message = str(caught.value)
    assert "step_000000200 refused, b does not match" in message
    assert "step_000000100 refused, manifest.json is missing" in message
    assert "nothing to resume" in message
    assert len(survey(folder, "step", limit=None).refused) == 2


def test_nothing_to_resume(tmp_path):
    with pytest.raises(CheckpointError, match="the folder holds none"):
        newest_valid(tmp_path)
    with pytest.raises(CheckpointError, match="not a folder of checkpoints"):
        newest_valid(tmp_path / "absent")
    write_checkpoint(tmp_path, "best_000000001", {"a": b""}, 1)
    with pytest.raises(CheckpointError, match="no valid step checkpoint"):
        newest_valid(tmp_path)  # weights alone cannot continue a run
    assert newest_valid(tmp_path, "best").name == "best_000000001"
    (tmp_path / ".commit-step_000000001").mkdir()
    with pytest.raises(CheckpointError, match="holds none"):
        newest_valid(tmp_path)


def test_reading_changes_nothing(folder, monkeypatch):
    """So a kill while resuming leaves what there was."""
    for name in ("write", "fsync", "rename", "mkdir", "unlink", "rmdir", "truncate", "ftruncate"):
        monkeypatch.setattr(os, name, lambda *a, **k: pytest.fail("changed the disk"))
    real = os.open

    def open_to_read(path, flags, *args, **kwargs):
        assert not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        return real(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_to_read)
    assert read_checkpoint(newest_valid(folder))[0].env_steps == 200
