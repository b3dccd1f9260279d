"""Tensor checkpoints, by themselves and through a real Lightning trainer; hostile ones rejected."""

import io
import os
import pickle
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fetchlab.checkpoint.commit import write_checkpoint
from fetchlab.checkpoint.find import checkpoint_name, newest_valid
from fetchlab.checkpoint.manifest import CheckpointError
from fetchlab.checkpoint.torch_io import (
    PAYLOAD,
    CommitCheckpointIO,
    read_payload,
    write_best,
    write_payload,
)
from fetchlab.errors import ConfigError


class Evil:
    """Creates the sentinel file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


def evil_files(sentinel):
    zipped = io.BytesIO()
    torch.save({"state_dict": Evil(sentinel)}, zipped)
    legacy = io.BytesIO()
    torch.save([Evil(sentinel)], legacy, _use_new_zipfile_serialization=False)
    return {
        "zip": zipped.getvalue(),
        "legacy": legacy.getvalue(),
        "raw": pickle.dumps(Evil(sentinel), 2),
    }


@pytest.mark.parametrize("form", ["zip", "legacy", "raw"])
def test_malicious_pickle_is_rejected_and_not_run(tmp_path, form, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    sentinel = tmp_path / "sentinel"
    data = evil_files(sentinel)[form]
    # Committed properly: sizes and digests all match, as an attacker would make them.
    path = write_checkpoint(tmp_path / "c", checkpoint_name("step", 1), {PAYLOAD: data}, 1)
    for load in (read_payload, CommitCheckpointIO(keep=2).load_checkpoint):
        with pytest.raises(CheckpointError, match="rejected") as caught:
            load(path)
        assert "\n" not in str(caught.value)
    assert not sentinel.exists()
    if form != "raw":  # the attack is real: an unrestricted load runs it
        torch.load(io.BytesIO(data), weights_only=False)
        assert sentinel.exists()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", os.urandom(5000)])
def test_garbage_with_a_good_manifest(tmp_path, data):
    path = write_checkpoint(tmp_path, checkpoint_name("step", 1), {PAYLOAD: data}, 1)
    with pytest.raises(CheckpointError, match="not plain data"):
        read_payload(path)


def test_payload_must_be_there_and_be_a_dict(tmp_path):
    path = write_checkpoint(tmp_path, checkpoint_name("step", 1), {"other.pt": b"x"}, 1)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is missing"):
        read_payload(path)
    buffer = io.BytesIO()
    torch.save([1], buffer)
    path = write_checkpoint(tmp_path, checkpoint_name("step", 2), {PAYLOAD: buffer.getvalue()}, 2)
    with pytest.raises(CheckpointError, match="expected a dict"):
        read_payload(path)


def test_payload_round_trip(tmp_path):
    payload = {"w": torch.randn(3, 4), "n": np.arange(3), "d": deque([1]), "s": {"k": (1, None)}}
    path = write_payload(tmp_path, checkpoint_name("step", 5), payload, 5)
    loaded = read_payload(path)
    assert torch.equal(loaded["w"], payload["w"])
    assert loaded["n"].tolist() == [0, 1, 2]
    assert (loaded["d"], loaded["s"]) == ([1], {"k": (1, None)})


def test_refused_payload_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match=r"optimizer\.hook"):
        write_payload(tmp_path, checkpoint_name("step", 5), {"optimizer": {"hook": print}}, 5)
    assert list(tmp_path.iterdir()) == []


def test_best_keeps_the_newest_only(tmp_path):
    write_payload(tmp_path, checkpoint_name("step", 5), {"a": 1}, 5)
    for steps in (5, 10, 10):
        path = write_best(tmp_path, {"steps": steps}, steps)
        assert newest_valid(tmp_path, "best") == path
        assert len(list(tmp_path.glob("best_*"))) == 1
    assert read_payload(path) == {"steps": 10}
    assert newest_valid(tmp_path).name == "step_000000005"


class Regression(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        self.env_steps = 0
        self.automatic_optimization = False
        self.seen: list[float] = []

    def training_step(self, batch: list, index: int) -> None:
        first, second = self.optimizers()
        loss = self.net(batch[0]).pow(2).mean()
        first.zero_grad()
        second.zero_grad()
        self.manual_backward(loss)
        first.step()
        second.step()
        self.env_steps += 8
        self.seen.append(float(loss))

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.net[0].parameters(), lr=1e-2),
            torch.optim.AdamW(self.net[2].parameters(), lr=1e-2),
        ]

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["env_steps"] = self.env_steps

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.env_steps = checkpoint["env_steps"]


class SaveEachEpoch(Callback):
    def on_train_epoch_end(self, trainer, module):
        name = checkpoint_name("step", module.env_steps)
        trainer.save_checkpoint(Path(trainer.default_root_dir) / "checkpoints" / name)

    def state_dict(self):
        return {"where": Path("x"), "best": np.float32(0.5), "window": deque([1.0])}

    def load_state_dict(self, state):
        self.loaded = state


def trainer_for(folder, epochs):
    return Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        plugins=[CommitCheckpointIO(keep=2)],
        callbacks=[SaveEachEpoch()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
    )


def data():
    inputs = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(inputs), batch_size=8)


@pytest.mark.filterwarnings("ignore")
def test_lightning_saves_resumes_and_continues_exactly(tmp_path):
    torch.manual_seed(0)
    whole = Regression()
    start = {k: v.clone() for k, v in whole.state_dict().items()}
    trainer_for(tmp_path / "whole", 4).fit(whole, data())
    folder = tmp_path / "whole" / "checkpoints"
    assert sorted(p.name for p in folder.iterdir()) == ["step_000000096", "step_000000128"]

    half = Regression()
    half.load_state_dict(start)
    trainer_for(tmp_path / "half", 2).fit(half, data())
    path = newest_valid(tmp_path / "half" / "checkpoints")
    assert path.name == "step_000000064"
    resumed = Regression()
    trainer = trainer_for(tmp_path / "half", 4)
    trainer.fit(resumed, data(), ckpt_path=path)
    assert resumed.env_steps == whole.env_steps == 128
    assert half.seen + resumed.seen == whole.seen
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert trainer.callbacks[0].loaded == {"where": "x", "best": 0.5, "window": [1.0]}
    assert newest_valid(tmp_path / "half" / "checkpoints").name == "step_000000128"

    checkpoint = read_payload(newest_valid(folder))
    assert {"state_dict", "optimizer_states", "loops", "callbacks", "env_steps"} <= set(checkpoint)


@pytest.mark.filterwarnings("ignore")
def test_lightning_refuses_a_damaged_checkpoint(tmp_path):
    trainer_for(tmp_path, 1).fit(Regression(), data())
    path = newest_valid(tmp_path / "checkpoints")
    (path / PAYLOAD).write_bytes(b"damaged")
    for broken in (path, path.with_name("step_000000001")):
        with pytest.raises(CheckpointError, match=broken.name):
            trainer_for(tmp_path, 2).fit(Regression(), data(), ckpt_path=str(broken))


def test_constructor_and_arguments(tmp_path):
    plugin = CommitCheckpointIO(keep=2)
    with pytest.raises(ConfigError, match="env_steps"):
        plugin.save_checkpoint({}, tmp_path / "step_000000001")
    plugin.save_checkpoint({"env_steps": 1}, tmp_path / "epoch=1.ckpt")  # as ModelCheckpoint does
    assert torch.load(tmp_path / "epoch=1.ckpt", weights_only=True) == {"env_steps": 1}
    plugin.remove_checkpoint(tmp_path / "epoch=1.ckpt")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="storage_options"):
        plugin.save_checkpoint({"env_steps": 1}, tmp_path / "step_000000001", storage_options={})
    plugin.save_checkpoint({"env_steps": 1}, tmp_path / "step_000000001")
    with pytest.raises(ConfigError, match="weights_only=False"):
        plugin.load_checkpoint(tmp_path / "step_000000001", weights_only=False)
    assert plugin.load_checkpoint(str(tmp_path / "step_000000001")) == {"env_steps": 1}
    plugin.remove_checkpoint(str(tmp_path / "step_000000001"))
    assert list(tmp_path.iterdir()) == []
