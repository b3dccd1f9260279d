"""Every option of every swap-in group trains in a real experiment; one of each group at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from known_specs import PUSH
from resnet_weights import write_resnet_weights
from tiny_runs import ONE_EVALUATION

from fetchlab.build import build_module
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.config import typed
from fetchlab.run import start

CONFIGS = Path(__file__).parents[2] / "configs"
GROUPS = ("encoder", "pooling", "feature_norm", "augment", "relabel", "routing")
OPTIONS = {name: sorted(file.stem for file in (CONFIGS / name).glob("*.yaml")) for name in GROUPS}


@pytest.mark.parametrize("nth", range(max(len(options) for options in OPTIONS.values())))
def test_options_train(compose_run, tmp_path, nth):
    chosen = {name: options[nth % len(options)] for name, options in OPTIONS.items()}
    overrides = [f"{name}={option}" for name, option in chosen.items()]
    if chosen["encoder"] == "resnet_stem":
        weights = write_resnet_weights(tmp_path / "resnet18.pth")
        overrides.append(f"encoder.weights_path={weights}")
    cfg = compose_run(
        "pixel_push_strict", *ONE_EVALUATION, *overrides, f"run_dir={tmp_path / 'run'}"
    )
    summary = start(cfg)
    assert summary["status"] == "finished"
    assert summary["grad_updates"] >= 2
    first, *_, last = sorted((tmp_path / "run/checkpoints").glob("step_*"))
    before, after = (read_payload(path)["state_dict"] for path in (first, last))
    weights = [name for name in before if name.startswith("agent.encoder.cnn.")]
    same = all(torch.equal(before[name], after[name]) for name in weights)
    assert same == (chosen["routing"] == "frozen" or chosen["encoder"] == "resnet_stem")


@pytest.mark.parametrize("routing", OPTIONS["routing"])
def test_an_experiment_keeps_its_auxiliary_loss_under_every_routing(compose_run, routing):
    cfg = compose_run(
        "pixel_push_laptop", "obs=pixels_strict", "symmetry=none", f"routing={routing}"
    )
    assert cfg["auxiliary"]["goal_prediction"]["huber_m"] == 0.02
    build_module(typed(cfg), PUSH)
