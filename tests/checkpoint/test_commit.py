"""A crash, a full disk or a bad folder at any moment of a commit: the old checkpoint or the new."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from fetchlab.checkpoint import commit
from fetchlab.checkpoint.commit import clean, prune, remove, write_checkpoint
from fetchlab.checkpoint.find import newest_valid, survey
from fetchlab.checkpoint.manifest import CheckpointError, read_checkpoint, validate
from fetchlab.errors import ConfigError

HERE = Path(__file__).parent


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def put(folder, steps, data=b"data" * 100, kind="step"):
    return write_checkpoint(folder, f"{kind}_{steps:09d}", {"checkpoint.pt": data}, steps)


def test_round_trip(tmp_path):
    folder = tmp_path / "run" / "checkpoints"  # neither exists yet
    path = write_checkpoint(folder, "step_000000007", {"a": b"1", "b": memoryview(b"22")}, 7)
    assert path == folder / "step_000000007"
    manifest, content = read_checkpoint(path)
    assert content == {"a": b"1", "b": b"22"}
    assert (manifest.env_steps, manifest.serial) == (7, 1)
    assert manifest.files["b"].size_bytes == 2
    # printf 1 | sha256sum
    one = "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
    assert manifest.files["a"].sha256 == one


def test_a_taken_name_gets_a_suffix_and_the_newest_commit_wins(tmp_path):
    put(tmp_path, 300, b"first")
    second = put(tmp_path, 300, b"second")
    third = put(tmp_path, 300, b"third")
    assert [second.name, third.name] == ["step_000000300_1", "step_000000300_2"]
    assert newest_valid(tmp_path) == third
    # Resumed from an earlier one: fewer steps, yet a newer commit.
    fourth = put(tmp_path, 200)
    assert newest_valid(tmp_path) == fourth
    assert validate(fourth).serial == 4


@pytest.mark.parametrize(
    "name", ["step_12", "../step_000000001", "epoch=1.ckpt", "step_000000001x"]
)
def test_names_that_nothing_would_find_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="step_ or best_"):
        write_checkpoint(tmp_path, name, {"a": b""}, 1)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../a", "/a", ".a", "a/b", "manifest.json", "", "a\n"])
def test_file_names_that_lead_out_are_refused(tmp_path, name):
    with pytest.raises(CheckpointError, match="plain name"):
        write_checkpoint(tmp_path, "step_000000001", {name: b""}, 1)


@pytest.mark.parametrize("mode", ["before", "torn", "after"])
def test_sigkill_at_every_step(tmp_path, mode):
    done = subprocess.run(
        [sys.executable, str(HERE / "kill_points.py"), str(tmp_path / "c"), mode],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    last = records.pop()
    assert not last["killed"]
    assert last["code"] == 0
    assert last["valid"] == ["step_000000300", "step_000000200"]
    # 2 stale folders (2 each), mkdir, 3 files (open, write, fsync), 2 folder syncs, rename, and
    # the removal of the oldest: rename, 3 files, 1 folder. Fewer: a step went uncounted.
    assert len(records) == 4 + 1 + 9 + 2 + 1 + 5
    assert all(r["killed"] and r["code"] == 9 for r in records)
    assert all(r["whole"] and not r["heavy"] for r in records)
    for record in records:
        assert len(record["valid"]) >= 2  # never fewer than two, let alone neither
        assert record["newest"] in ("step_000000200", "step_000000300")
        assert not any(name.startswith(".") for name in record["left"])
        assert len(record["left"]) == 2
    switched = [r["newest"] for r in records]
    assert switched == sorted(switched)  # old until the rename, new from there on
    assert {"step_000000200", "step_000000300"} == set(switched)


def test_order_of_writes_syncs_and_renames(tmp_path, monkeypatch):
    """What a power cut needs, which SIGKILL cannot show: synced before named, manifest last."""
    put(tmp_path, 1)
    trace = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd):
        trace.append(("fsync", Path(f"/proc/self/fd/{fd}").readlink().name))
        real_fsync(fd)

    def rename(source, target):
        trace.append(("rename", Path(target).name))
        real_rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    write_checkpoint(tmp_path, "step_000000002", {"a": b"1", "b": b"2"}, 2)
    assert trace == [
        ("fsync", "a"),
        ("fsync", "b"),
        ("fsync", "manifest.json"),
        ("fsync", ".commit-step_000000002"),
        ("rename", "step_000000002"),
        ("fsync", tmp_path.name),
    ]


def test_short_writes_are_completed(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    data = bytes(range(256))
    assert read_checkpoint(put(tmp_path, 1, data))[1]["checkpoint.pt"] == data


def test_prune_keeps_the_newest_of_the_same_env_steps_and_counts_it_once(tmp_path):
    for steps in (100, 200):
        put(tmp_path, steps)
    put(tmp_path, 300, b"unevaluated").rename(tmp_path / "step_000000300_0")
    prune(tmp_path, "step", keep=2)
    assert names(tmp_path) == ["step_000000200", "step_000000300_0"]
    put(tmp_path, 300, b"evaluated")
    assert [path.name for path in prune(tmp_path, "step", keep=2)] == ["step_000000300_0"]
    assert names(tmp_path) == ["step_000000200", "step_000000300"]
    # A damaged one replaces nothing.
    os.truncate(put(tmp_path, 300, b"again") / "checkpoint.pt", 2)
    assert prune(tmp_path, "step", keep=2) == []


def test_prune_counts_only_valid_ones_and_keeps_two(tmp_path):
    for steps in (100, 200, 300, 400, 500):
        put(tmp_path, steps)
    for steps in (300, 500):
        (tmp_path / f"step_{steps:09d}" / "checkpoint.pt").write_bytes(b"damaged")
    put(tmp_path, 50, kind="best")
    removed = prune(tmp_path, "step", keep=2)
    assert [path.name for path in removed] == ["step_000000100"]
    assert names(tmp_path) == [
        "best_000000050",
        *(f"step_{steps:09d}" for steps in (200, 300, 400, 500)),
    ]
    with pytest.raises(ConfigError, match="at least 2"):
        prune(tmp_path, "step", keep=1)
    with pytest.raises(ConfigError, match="at least 1"):
        prune(tmp_path, "best", keep=0)


def test_remove_takes_only_checkpoints(tmp_path):
    outside = put(tmp_path / "outside", 1)
    folder = tmp_path / "c"
    put(folder, 1)
    (folder / "step_000000002").symlink_to(outside)
    (folder / "notes").mkdir()
    for name in ("step_000000002", "notes", "step_000000009"):
        with pytest.raises(CheckpointError, match="not removed"):
            remove(folder / name)
    remove(folder / "step_000000001")
    assert names(folder) == ["notes", "step_000000002"]
    assert validate(outside).env_steps == 1


def test_clean_unlinks_links_and_follows_none(tmp_path):
    outside = put(tmp_path / "outside", 1)
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / ".commit-step_000000001").symlink_to(outside)
    (folder / ".removed-x").write_text("a file")
    (folder / ".lock").write_text("kept")
    clean(folder)
    assert names(folder) == [".lock"]
    assert validate(outside).env_steps == 1


def test_a_linked_folder_is_refused(tmp_path):
    put(tmp_path / "real", 1)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for action in (lambda f: put(f, 2), newest_valid, lambda f: prune(f, "step", 2)):
        with pytest.raises(CheckpointError, match="link"):
            action(tmp_path / "link")
    assert names(tmp_path / "real") == ["step_000000001"]


def assert_refused_and_old_kept(folder, reason, needed, act):
    before = survey(folder, "step", limit=None)
    with pytest.raises(CheckpointError) as caught:
        act()
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(folder), reason, f"{needed} bytes needed", "bytes free", "untouched"):
        assert part in message
    assert survey(folder, "step", limit=None) == before
    assert not [name for name in names(folder) if name.startswith(".")]


@pytest.mark.parametrize("call", ["write", "fsync"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_disk_full_in_the_middle(tmp_path, monkeypatch, call, nth):
    put(tmp_path, 1)
    real, calls = getattr(os, call), []

    def fail(fd, *args):
        calls.append(fd)
        if len(calls) == nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, *args)

    monkeypatch.setattr(os, call, fail)

    def act():
        write_checkpoint(tmp_path, "step_000000002", {"a": b"1" * 50, "b": b"2" * 50}, 2)

    assert_refused_and_old_kept(tmp_path, "No space left on device", 100, act)
    assert len(calls) == nth
    monkeypatch.undo()
    act()  # after freeing space
    assert newest_valid(tmp_path).name == "step_000000002"


def test_too_little_space_is_refused_before_writing(tmp_path, monkeypatch):
    put(tmp_path, 1)
    monkeypatch.setattr(commit, "_free_bytes", lambda folder: 999)
    monkeypatch.setattr(os, "write", lambda fd, data: pytest.fail("wrote"))
    assert_refused_and_old_kept(
        tmp_path, "No space left on device", 1000, lambda: put(tmp_path, 2, b"x" * 1000)
    )


def test_a_real_write_failure(tmp_path):
    """The kernel refuses beyond RLIMIT_FSIZE, in the middle of a file."""
    put(tmp_path, 1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limits[1]))
        assert_refused_and_old_kept(
            tmp_path, "File too large", 1 << 20, lambda: put(tmp_path, 2, bytes(1 << 20))
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "make the folder writable"),
    ],
)
def test_a_limit_is_explained_by_its_own_reason(tmp_path, monkeypatch, number, remedy):
    put(tmp_path, 1)

    def refuse(fd, data):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(CheckpointError, match=remedy) as caught:
        put(tmp_path, 2)
    assert os.strerror(number) in str(caught.value)


FULL_DISK = """
import sys
from pathlib import Path
from fetchlab.checkpoint import commit
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.manifest import CheckpointError

folder = Path(sys.argv[1]) / "c"
data = {"a": bytes(150_000)}
put = lambda steps: commit.write_checkpoint(folder, f"step_{steps:09d}", data, steps)
put(1)
filler = folder.parent / "filler"
filler.write_bytes(bytes(200_000))
check = commit._check_space
for check_space in (check, lambda *args: None):  # told in advance, and found out while writing
    commit._check_space = check_space
    try:
        put(2)
        sys.exit("accepted")
    except CheckpointError as error:
        assert "No space left" in str(error) and "150000 bytes needed" in str(error), error
    assert newest_valid(folder).name == "step_000000001"
    assert [p.name for p in folder.iterdir()] == ["step_000000001"]
commit._check_space = check
filler.unlink()
assert newest_valid(folder) != put(2) == newest_valid(folder)
print("survived")
"""


def test_a_really_full_disk(tmp_path):
    """A small tmpfs in a private mount namespace, where the kernel lets us have one."""
    script = 'mount -t tmpfs -o size=400k none "$1" && "$3" -c "$2" "$1"'
    arguments = [tmp_path, FULL_DISK, sys.executable]
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no private mounts here; test_a_real_write_failure covers a real failure")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "survived\n"


def test_tmpdir_plays_no_part(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "does-not-exist"))
    real, opened = os.open, []
    monkeypatch.setattr(
        os, "open", lambda path, *a, **k: opened.append(path) or real(path, *a, **k)
    )
    folder = tmp_path / "c"
    put(folder, 1)
    written = [Path(path) for path in opened if Path(path).is_absolute()]
    assert written
    assert all(path.is_relative_to(folder) or path == tmp_path for path in written)


def test_an_unwritable_place_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="file"):
        put(tmp_path / "file", 1)
    with pytest.raises(CheckpointError, match="Not a directory"):
        put(tmp_path / "file" / "checkpoints", 1)
    monkeypatch.setattr(
        Path, "mkdir", lambda self: (_ for _ in ()).throw(PermissionError(13, "denied", str(self)))
    )
    with pytest.raises(CheckpointError, match=r"denied \(.*step_000000001.*writable"):
        put(tmp_path, 1)
