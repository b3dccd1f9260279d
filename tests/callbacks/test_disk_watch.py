"""The disk is looked at now and then; a stop is asked for while a checkpoint still fits."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from fetchlab.callbacks.disk_watch import DiskWatch
from fetchlab.callbacks.stopping import Stopping


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
    stopping, disk.now_s = Stopping(), 5.0
    trainer = SimpleNamespace(callbacks=[stopping], default_root_dir=str(tmp_path))
    watch = DiskWatch(10.0, 500 * 4096)
    disk.blocks = 500
    for disk.now_s in (100.0, 101.0, 109.9):
        watch.on_train_batch_end(trainer, None)
    assert (disk.looks, stopping.flag.reason) == (1, None)
    disk.blocks, disk.now_s = 499, 110.0
    watch.on_train_batch_end(trainer, None)
    assert disk.looks == 2
    assert stopping.flag.reason == (
        "short disk space (2,043,904 bytes free, callbacks.disk_watch.min_free_bytes=2,048,000)"
    )


def test_the_stop_is_the_same_as_a_signals(tmp_path, disk):
    stopping, trainer = Stopping(), SimpleNamespace(should_stop=False)
    trainer.datamodule, trainer.callbacks = SimpleNamespace(done=False), [stopping]
    trainer.default_root_dir, disk.now_s = str(tmp_path), 1.0
    watch = DiskWatch(10.0, 5000 * 4096)
    stopping.on_train_batch_end(trainer, None)
    assert not trainer.should_stop
    assert stopping.flag.reason is None
    watch.on_train_batch_end(trainer, None)
    stopping.on_train_batch_end(trainer, None)
    assert trainer.should_stop
    assert stopping.flag.reason.startswith("short disk space")
