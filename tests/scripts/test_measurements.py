"""Both measurements from the command line, on real frames and real networks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import drq_noise
import feature_stats
import pytest
import torch
import yaml

from fetchlab.build import build_module
from fetchlab.checkpoint.torch_io import write_payload
from fetchlab.config import typed

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(autouse=True)
def real_frames(monkeypatch, moments):
    """The frames of one rollout for all, whatever a test asks for."""
    for script in (drq_noise, feature_stats):
        monkeypatch.setattr(script, "collect", lambda cfg, count: moments)


@pytest.fixture
def measured(tmp_path, capsys):
    """Run a script; its exit code, its text and its numbers."""

    def run(script, *arguments):
        file = tmp_path / "report.json"
        code = script.main([*arguments, "--json", str(file)])
        out, err = capsys.readouterr()
        return code, out + err, json.loads(file.read_text()) if file.exists() else None

    return run


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, pixel_push, moments):
    """What a run leaves: a configuration, and weights that are not those it began with."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(pixel_push))
    module = build_module(typed(pixel_push), moments.layout)
    with torch.no_grad():
        module.agent.encoder.pooling.log_temperature.fill_(math.log(0.01))
    payload = {"state_dict": module.state_dict(), "env_steps": 4000}
    write_payload(folder / "checkpoints", "step_000004000", payload, 4000)
    return folder


def test_noise_of_an_experiment(measured):
    code, text, found = measured(drq_noise, "--draws", "6")
    assert code == 0
    assert text.startswith("Random shift against SpatialSoftmax: experiment pixel_push, seed 0")
    assert found["shift"] == {"pad_px": 4, "used_in_training": True, "shared_draw": False}
    size = found["geometry"]
    assert (size["image_px"], size["map_cells"], size["stride_px"]) == (84, 21, 4)
    assert size["std"] == pytest.approx(0.0645497)
    assert size["std_two_draws"] == pytest.approx(0.0912871)
    assert size["largest"] == pytest.approx(0.1)
    assert found["signal"]["inside"] == 1.0
    assert list(found["noise"]) == ["untrained"]
    one = found["noise"]["untrained"]
    assert one["maps"] == 32
    assert one["live_maps"] > 16
    # nearly flat softmaxes: coordinates stay near the middle, and so do their changes
    assert 0 < one["absolute"] < 0.5 * size["std"]
    assert one["pairs"] > 0
    # two draws add their squares, one draw nearly cancels
    assert one["target"]["shared"] < one["target"]["independent"]
    assert found["undefined"] == {}


def test_noise_of_a_run_is_untrained_and_trained(measured, run_dir):
    code, text, found = measured(drq_noise, "--run", str(run_dir), "--draws", "2")
    assert code == 0
    assert "run run of pixel_push at 4,000 env steps" in text
    untrained, trained = found["noise"]["untrained"], found["noise"]["trained"]
    # the same maps through a sharper softmax reach further
    assert trained["absolute"] > 3 * untrained["absolute"]
    again = measured(drq_noise, "--draws", "2")[2]["noise"]["untrained"]
    assert again == untrained


def test_a_shift_that_the_experiment_does_not_use(measured):
    code, text, found = measured(drq_noise, "--experiment", "pixel_push_strict", "--draws", "2")
    assert code == 0
    assert "it trains without a shift: this one is configs/augment/random_shift.yaml" in text
    assert found["shift"]["used_in_training"] is False
    assert found["noise"]["untrained"]["absolute"] > 0


@pytest.mark.parametrize(
    ("pooling", "kind"),
    [("flatten_linear", "FlattenLinear"), ("global_average", "GlobalAverage")],
)
def test_a_pooling_without_coordinates_is_one_line(measured, pooling, kind):
    code, text, found = measured(drq_noise, f"pooling={pooling}", "--draws", "2")
    assert code == 0
    lines = [line for line in text.splitlines() if "no noise of coordinates" in line]
    assert lines == [
        f"no noise of coordinates (untrained): {kind} has no coordinates; "
        "try pooling=spatial_softmax"
    ]
    assert found["noise"] == {}
    assert found["geometry"]["std"] == pytest.approx(0.0645497)


@pytest.mark.parametrize("encoder", ["nature_cnn", "drqv2_cnn", "impala_cnn"])
def test_every_encoder(measured, encoder):
    options = (f"encoder={encoder}", "feature_norm=layer_norm")
    code, _, found = measured(drq_noise, *options, "--draws", "2")
    assert code == 0
    assert found["noise"]["untrained"]["live_maps"] >= 2
    code, _, found = measured(feature_stats, *options)
    assert code == 0
    # after the feature normalisation: each vector's mean is 0, so the entries' mean is
    features = found["networks"]["untrained"]["features"]
    assert sum(features["mean"]) == pytest.approx(0, abs=1e-3)
    assert 0.05 < features["rms"] < 1.001  # below 1 where the variance is less than LayerNorm's eps


def test_statistics_of_an_experiment(measured):
    code, text, found = measured(feature_stats)
    assert code == 0
    assert text.startswith("Encoder outputs: experiment pixel_push, seed 0, 3 moments")
    one = found["networks"]["untrained"]
    assert one["maps"]["shape"] == [32, 21, 21]
    assert one["softmax"]["temperature"] == 1.0
    assert 400 < one["softmax"]["used"] <= 441  # nearly flat
    assert len(one["features"]["mean"]) == 64
    names = ["pixels", "proprio", "achieved_goal", "desired_goal"]
    assert list(one["actor"]["entries"]) == list(one["critic"]["entries"]) == names
    assert one["actor"]["rms_ratio"] < 1
    assert "entry 63" in measured(feature_stats, "--entries")[1]


def test_vectors_are_normalised_as_in_training(measured):
    raw = measured(feature_stats)[2]["networks"]["untrained"]["actor"]["entries"]
    for mode in ("fixed", "running"):
        found = measured(feature_stats, f"obs.normalize={mode}")[2]
        entries = found["networks"]["untrained"]["actor"]["entries"]
        assert raw["proprio"]["std_rms"] < 0.2
        assert 0.3 < entries["proprio"]["std_rms"] < 2
        assert entries["pixels"] == raw["pixels"]


def test_statistics_of_a_run_are_untrained_and_trained(measured, run_dir):
    code, text, found = measured(feature_stats, "--run", str(run_dir))
    assert code == 0
    assert "run run of pixel_push at 4,000 env steps" in text
    temperatures = [one["softmax"]["temperature"] for one in found["networks"].values()]
    assert temperatures == pytest.approx([1.0, 0.01])
    used = [one["softmax"]["used"] for one in found["networks"].values()]
    assert used[1] < used[0]


def test_statistics_where_something_is_not_defined(measured):
    code, text, found = measured(
        feature_stats, "--experiment", "pixel_push_asymmetric", "pooling=flatten_linear"
    )
    assert code == 0
    assert "temperature: not defined, FlattenLinear has none" in text
    assert "not defined, the critic sees no pixels" in text
    one = found["networks"]["untrained"]
    assert one["softmax"] is None
    assert one["critic"]["rms_ratio"] is None
    assert one["actor"]["rms_ratio"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment", "vector_push"], "experiment='vector_push': expected an agent that sees"),
        (["--experiment", "nonsense"], "experiment='experiment=nonsense': expected what src/train"),
        (["encoder=nonsense"], "expected what src/train.py can compose"),
        (["encoder=resnet_stem"], "encoder.weights_path=None: expected"),
        (["--run", "nowhere"], "run='nowhere': expected a run's folder"),
        (["--run", "nowhere", "seed=1"], "overrides=['seed=1']: expected none beside --run"),
        (["obs.pixels.image_size=0"], "obs.pixels.image_size=0: expected at least"),
    ],
)
@pytest.mark.parametrize("script", [drq_noise, feature_stats])
def test_what_a_user_can_mistype_is_one_line(measured, script, arguments, message):
    code, text, found = measured(script, *arguments)
    assert (code, found) == (2, None)
    assert text.startswith("error: ")
    assert message in text
    assert text.count("\n") == 1


@pytest.mark.parametrize("option", [["--frames", "1"], ["--draws", "x"], ["--frames", "-4"]])
def test_counts_that_cannot_be(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        drq_noise.main(option)
    assert stopped.value.code == 2
    assert "expected a whole number from 2" in capsys.readouterr().err


def test_a_run_without_a_checkpoint(measured, tmp_path, pixel_push):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(pixel_push))
    code, text, _ = measured(drq_noise, "--run", str(tmp_path))
    assert code == 1
    assert "no valid step checkpoint" in text


@pytest.mark.parametrize(
    "script", ["drq_noise", pytest.param("feature_stats", marks=pytest.mark.full)]
)
def test_a_script_runs_from_anywhere(tmp_path, script):
    command = [sys.executable, SCRIPTS / f"{script}.py", "--experiment", "state_push"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: experiment='state_push': expected an agent that sees")
