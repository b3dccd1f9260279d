"""Differences that forbid an exact resume are found and shown; nothing else is."""

import json
import sys
from importlib import metadata

import torch

from fetchlab.checkpoint.fingerprint import config_difference, fingerprint


def test_records_this_process_as_plain_data():
    record = fingerprint(workers=2, renderer="llvmpipe", device="cpu")
    assert record == json.loads(json.dumps(record))
    assert record["versions"]["torch"] == metadata.version("torch")
    assert record["versions"]["gymnasium-robotics"] == metadata.version("gymnasium-robotics")
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert (record["workers"], record["renderer"], record["device"]) == (2, "llvmpipe", "cpu")
    again = fingerprint(workers=2, renderer="llvmpipe", device="cpu")
    assert config_difference(record, again) == []


def test_thread_count_and_renderer_show():
    threads = torch.get_num_threads()
    old = fingerprint(workers=2, renderer="osmesa", device="cpu")
    try:
        torch.set_num_threads(threads + 1)
        new = fingerprint(workers=3, renderer="egl", device="cpu")
    finally:
        torch.set_num_threads(threads)
    new["versions"]["mujoco"] = "9.9"
    assert config_difference(old, new) == [
        "renderer: osmesa -> egl",
        f"threads: {threads} -> {threads + 1}",
        f"versions.mujoco: {metadata.version('mujoco')} -> 9.9",
        "workers: 2 -> 3",
    ]


def test_config_difference():
    old = {
        "replay": {"capacity": 1000, "device": "disk"},
        "algo": {"lr": 1e-3, "betas": [0.9, 0.99], "flag": 1, "nan": float("nan"), "empty": {}},
        "total_env_steps": 10,
        "trainer": {"accelerator": "cpu", "precision": 32},
    }
    new = {
        "replay": {"capacity": 2000, "device": "disk"},
        "algo": {"lr": 0.001, "betas": (0.9, 0.999, 1), "flag": True, "nan": float("nan")},
        "total_env_steps": 20,
        "trainer": {"accelerator": "gpu"},
    }
    assert config_difference(old, new, ignore=("total_env_steps", "trainer")) == [
        "algo.betas.1: 0.99 -> 0.999",
        "algo.betas.2: (absent) -> 1",
        "algo.empty: {} -> (absent)",
        "algo.flag: 1 -> True",
        "replay.capacity: 1000 -> 2000",
    ]
    assert config_difference(old, old) == []
    assert config_difference({"trainers": 1}, {"trainers": 2}, ignore=["trainer"]) == [
        "trainers: 1 -> 2"
    ]
    assert config_difference({}, {"a": None}) == ["a: (absent) -> None"]
