"""Append-only files: all of a write or nothing, and errors that name the file."""

import errno
import os
import resource
import signal
from contextlib import contextmanager

import pytest

from fetchlab.errors import ConfigError
from fetchlab.loggers.durable import AppendFile, checked_size, cut_back


@contextmanager
def size_limit():
    """Let files of this process grow to 10 bytes only: a disk that fills up in mid-write.

    The test report is one of them where it goes to a file: the limit ends before pytest writes.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_a_write_that_does_not_fit_leaves_nothing_and_names_the_file(tmp_path):
    file = AppendFile(tmp_path / "new" / "log")
    with size_limit():
        file.write(b"123456\n")
        with pytest.raises(OSError, match=r"new/log") as caught:
            file.write(b"does not fit\n")
        assert caught.value.errno == errno.EFBIG
        assert (tmp_path / "new" / "log").read_bytes() == b"123456\n"
        file.write(b"78\n")  # what fits is still taken
        assert file.sync() == 10


def test_a_full_disk_names_the_file(tmp_path):
    file = AppendFile(tmp_path / "log")
    os.dup2(os.open("/dev/full", os.O_WRONLY), file._stream.fileno())
    with pytest.raises(OSError, match=r"No space left on device: .*log"):
        file.write(b"x")


def test_appending_keeps_what_is_there(tmp_path):
    (tmp_path / "log").write_bytes(b"old ")
    file = AppendFile(tmp_path / "log")
    file.write(b"new")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"old new"


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"/file'"):
        AppendFile(tmp_path / "file" / "log")


def test_a_link_is_never_followed(tmp_path):
    (tmp_path / "victim").write_bytes(b"keep me")
    link = tmp_path / "log"
    link.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="log"):
        AppendFile(link)
    with pytest.raises(OSError, match="log"):
        cut_back(link, 0)
    with pytest.raises(ConfigError, match="no link"):
        checked_size(link, 0)
    assert (tmp_path / "victim").read_bytes() == b"keep me"


def test_a_link_to_nothing_is_refused(tmp_path):
    (tmp_path / "log").symlink_to(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="no link"):
        checked_size(tmp_path / "log", 0)
