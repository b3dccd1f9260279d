"""The disk is looked at now and then; a stop is asked for while a checkpoint still fits."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from fetchlab.callbacks.disk_watch import DiskWatch
from fetchlab.callbacks.stopping import Stopping
from fetchlab.errors import ConfigError


@pytest.fixture
def disk(monkeypatch):
    """A disk of 4096-byte blocks and a clock, both set by the test."""
    disk = SimpleNamespace(blocks=1000, now_s=0.0, looks=0)

    def statvfs(path):
        disk.looks += 1
        return SimpleNamespace(f_bavail=disk.blocks, f_frsize=4096)

    monkeypatch.setattr(os, "statvfs", statvfs)
    monkeypatch.setattr("time.monotonic", lambda: disk.now_s)
    return disk


def test_a_stop_is_asked_for_below_the_limit_and_looks_are_rare(tmp_path, disk):
    reasons = []
    disk.now_s = 5.0
    watch = DiskWatch(tmp_path, 10.0, 500 * 4096, reasons.append)
    disk.blocks = 500
    for disk.now_s in (100.0, 101.0, 109.9):
        watch.on_train_batch_end(None, None)
    assert (disk.looks, reasons) == (1, [])
    disk.blocks, disk.now_s = 499, 110.0
    watch.on_train_batch_end(None, None)
    assert disk.looks == 2
    assert reasons == [
        "short disk space (2,043,904 bytes free, callbacks.disk_watch.min_free_bytes=2,048,000)"
    ]


def test_the_stop_is_the_same_as_a_signals(tmp_path, disk):
    stopping, trainer = Stopping(), SimpleNamespace(should_stop=False)
    trainer.datamodule = SimpleNamespace(done=False)
    disk.now_s = 1.0
    watch = DiskWatch(tmp_path, 10.0, 5000 * 4096, stopping.request)
    stopping.on_train_batch_end(trainer, None)
    assert not trainer.should_stop
    assert stopping.reason is None
    watch.on_train_batch_end(trainer, None)
    stopping.on_train_batch_end(trainer, None)
    assert trainer.should_stop
    assert stopping.reason.startswith("short disk space")


@pytest.mark.parametrize(("every_s", "least"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_values_that_cannot_work(tmp_path, every_s, least):
    with pytest.raises(ConfigError, match=r"callbacks\.disk_watch\."):
        DiskWatch(tmp_path, every_s, least, print)
