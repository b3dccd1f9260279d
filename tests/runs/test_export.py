"""`src/export.py`: what it writes acts as the run's policy does, there, here and anywhere else."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest
import torch
from known_specs import PUSH
from safetensors.torch import load_file, save_file

import evaluate as evaluate_entry
import export as export_entry
from fetchlab import config, policy
from fetchlab.build import build_env, build_module
from fetchlab.checkpoint.find import newest_policy
from fetchlab.checkpoint.torch_io import load_weights, read_payload, write_payload
from fetchlab.collect.rollout import rollout
from fetchlab.config import typed
from fetchlab.entry import keys
from fetchlab.errors import ConfigError, RunFailedError
from fetchlab.play import evaluate, request
from fetchlab.preflight import numerics
from fetchlab.run_report import write_config

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"
SEEING = RESULTS / "pixel_push_laptop/seed0"
PUBLISHED = SEEING / "policy"
MAY_BE_NULL = ("progress", "phases", "milestones")
CAMERA = "{lookat: [1.3, 0.7, 0.4], distance: 1.0, azimuth: 90.0, elevation: -30.0}"
#: Nothing of the project, nor of what it is built with: torch alone.
ELSEWHERE = """
import sys
for name in ("fetchlab", "tensordict", "torchrl", "lightning", "hydra"):
    sys.modules[name] = None
import torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(1)
for folder in sys.argv[1:]:
    program = torch.export.load(folder + "/policy.pt2").module()
    given = load_file(folder + "/given.safetensors")
    few = {name: entry[:1] for name, entry in given.items()}
    save_file({"all": program(given), "first": program(few)}, folder + "/actions.safetensors")
"""


def command(entry, capsys, monkeypatch, *args):
    """What an entry prints, its error's line and its exit code."""
    monkeypatch.setattr(sys, "argv", ["entry.py", *map(str, args)])
    code = 0
    try:
        entry.main()
    except SystemExit as end:
        code = end.code
    printed = capsys.readouterr()
    return printed.out, printed.err, code


@pytest.fixture(scope="module")
def finished(finished, tmp_path_factory):
    """That run as it ended: other tests evaluate it, and a card tells of such evaluations."""
    own = tmp_path_factory.mktemp("own") / "run"
    return Path(shutil.copytree(finished, own, ignore=shutil.ignore_patterns("evaluations")))


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """By the run's folder: an agent from state, one that acts on an estimate, and a student."""
    runs = [finished, SEEING, RESULTS / "pixel_push_laptop_student/seed0"]
    folder = tmp_path_factory.mktemp("exported")
    return {run: policy.export(run, folder / str(index)) for index, run in enumerate(runs)}


def acted(run_dir):
    """Real observations of a run, as the entries of its policy, and the actions of `act`."""
    cfg = config.changed(config.stored(run_dir, ()), {"task.max_episode_steps": 6})
    run, rows = typed(cfg), []
    numerics.apply(cfg["trainer"], 1, cuda=False)
    with closing(build_env(run, 3, 1)) as env:
        module = build_module(run, env.base_env.env_spec)
        load_weights(module, newest_policy(run_dir / "checkpoints"))
        module.eval()
        rollout(env, lambda obs: rows.append(obs.exclude("action")) or module.act(obs), [1, 2, 3])
    obs = torch.cat(rows)
    return obs, module.act(obs)


def test_the_program_acts_as_the_policy_does_where_nothing_of_this_project_is(exported):
    expected = {}
    for run_dir, folder in exported.items():
        obs, expected[folder] = acted(run_dir)
        described = json.loads((folder / "policy.json").read_text())
        names = [one["name"] for one in described["inputs"]]
        given = {name: obs["frames" if name == "pixels" else name] for name in names}
        for one in described["inputs"]:
            assert ["B", *given[one["name"]].shape[1:]] == one["shape"]
            assert str(given[one["name"]].dtype) == f"torch.{one['dtype']}"
        # Of the flagships nobody needs to know where the object is.
        assert names == (["state", "desired_goal"] if folder.name == "0" else names)
        assert folder.name == "0" or names == ["pixels", "proprio", "desired_goal"]
        contiguous = {name: entry.contiguous() for name, entry in given.items()}
        save_file(contiguous, folder / "given.safetensors")
    done = subprocess.run(
        [sys.executable, "-I", "-c", ELSEWHERE, *map(str, expected)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for folder, actions in expected.items():
        found = load_file(folder / "actions.safetensors")
        assert found["all"].shape == actions.shape == (18, 4)
        assert found["all"].abs().max() <= 1 and found["all"].std() > 0.05
        torch.testing.assert_close(found["all"], actions, rtol=0, atol=1e-5)
        torch.testing.assert_close(found["first"], actions[:1], rtol=0, atol=1e-5)


def test_no_file_tells_where_it_was_made(exported):
    shipped = RESULTS / "pixel_push_laptop/seed0/policy"
    for folder in (*exported.values(), shipped):
        with ZipFile(folder / "policy.pt2") as program:
            parts = [program.read(name) for name in program.namelist()]
        for part in (*parts, *(path.read_bytes() for path in folder.glob("*.[jm]*"))):
            assert str(ROOT).encode() not in part


def test_an_exported_policy_gives_the_runs_numbers_and_nothing_is_unpickled(
    exported, tmp_path, monkeypatch
):
    short = {"task.max_episode_steps": 8}
    for index, (run_dir, folder) in enumerate(exported.items()):
        asked = {"episodes": 2, "seed": 5, "out": str(tmp_path / str(index))}
        (of_run,) = evaluate(request(run=str(run_dir), **asked), short)
        with monkeypatch.context() as patched:
            patched.setattr("torch.load", lambda *_, **__: pytest.fail("unpickled"))
            (alone,) = evaluate(request(policy=str(folder), **asked), short)
        assert alone["checkpoint"] == "exported"
        for one in (of_run, alone):
            del one["checkpoint"], one["file"]
        assert alone == of_run
        assert len({row["goal_distance_m"] for row in alone["table"]}) == 2


def test_what_is_learned_only_stays_behind(exported):
    kept = {
        folder.name: set(load_file(folder / "policy.safetensors")) for folder in exported.values()
    }
    state, estimate, student = (kept[name] for name in "012")
    for names in kept.values():
        assert not any(
            "critic" in name or "target" in name or "log_alpha" in name for name in names
        )
    assert {"agent.normalizer.state_mean", "agent.normalizer.state_m2"} <= state  # the statistics
    assert any(name.startswith("agent.auxiliary.goal_prediction.") for name in estimate)
    assert any(name.startswith("teacher.agent.actor.") for name in student)
    assert not any(name.startswith("agent.actor.") for name in student)
    for run_dir, folder in exported.items():
        weights = read_payload(newest_policy(run_dir / "checkpoints"))["state_dict"]
        for name, tensor in load_file(folder / "policy.safetensors").items():
            assert tensor.equal(weights[name])
        assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000


def test_a_student_with_a_policy_of_its_own_leaves_its_teacher_behind(compose_run, tmp_path):
    cfg = compose_run("pixel_push_laptop_student", "algo.student=actor", "trainer=cpu")
    cfg = {**cfg, "teacher": {**compose_run("vector_push", "trainer=cpu"), "ckpt_path": "/a/b"}}
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    write_config(run_dir, {**cfg, "run_dir": str(run_dir)})
    weights = {"state_dict": build_module(typed(cfg), PUSH).state_dict(), "env_steps": 7}
    write_payload(run_dir / "checkpoints", "best_000000007", weights, 7)
    folder = policy.export(run_dir, with_program=False)
    assert folder == run_dir / "policy" and not (folder / "policy.pt2").exists()
    names = load_file(folder / "policy.safetensors")
    assert any(name.startswith("agent.encoder.") for name in names)
    assert any(name.startswith("agent.actor.") for name in names)
    assert not any(name.startswith("teacher.") for name in names)
    text = (folder / "policy.json").read_text()
    assert str(tmp_path) not in text and "/a/b" not in text
    card = (folder / "README.md").read_text()
    assert "It was not evaluated." in card and "teacher=TEACHER_RUN_DIR" in card
    assert "policy.pt2" not in card
    assert "| (B, 3, 32, 32) | uint8 |" in card
    policy.export(run_dir, with_program=False)  # an earlier export is replaced


def test_the_card_is_the_runs(exported):
    card = (exported[SEEING] / "README.md").read_text()
    assert "**Success 98%** (95 % interval 93% to 99%, 100 episodes: used neither" in card
    assert "| 10,000 | 8% | 4% to 15% |" in card and "| 120,000 | 97% | 92% to 99% |" in card
    assert "| `pixels` | (B, 3, 32, 32) | uint8 |" in card
    assert "bfloat16" in card and "gymnasium-robotics 1." in card and "MIT" in card
    assert "<svg" in (exported[SEEING] / "curve.svg").read_text()
    assert "Trained on cpu in 19 min. " in card
    (line,) = re.findall(r"^(python src/train.py .*)$", card, re.MULTILINE)
    assert line.endswith("pixel_push_laptop seed=0 total_env_steps=120000")  # as it ships


@pytest.mark.parametrize(
    ("experiment", "changes"),
    [
        ("pixel_push_laptop", ["symmetry=none", "seed=3", "collect.workers=1"]),
        (
            "state_push",
            ["symmetry=mirror", "algo.lr=0.01", "logger=wandb", "logger.wandb.project='Zürich'"],
        ),
        ("state_push", ["algo=td3", "logger=csv"]),
        ("state_push", ["algo=ddpg", *(f"callbacks.{name}=null" for name in MAY_BE_NULL)]),
        ("state_push", ["collect.n_envs=4", "callbacks.evaluation.n_envs=8"]),  # follows it
        ("pixel_push", ["encoder=nature_cnn"]),
        ("pixel_push", ["obs=state"]),
        ("pixel_push", [f"obs.pixels.camera={CAMERA}"]),
        ("pixel_push_laptop", ["obs=pixels", "obs.pixels.camera=null"]),
        ("pixel_push_goalpred", ["auxiliary=[next_features]"]),
        ("pixel_push_laptop_critic", ["obs=pixels_strict", "symmetry=none"]),
        (RESULTS / "pixel_push_laptop_without_symmetry/seed1", []),  # of an earlier commit
    ],
)
def test_the_cards_command_is_that_of_this_very_configuration(experiment, changes):
    of = isinstance(experiment, Path)
    cfg = config.stored(experiment, ()) if of else config.compose(experiment, *changes)
    first, *overrides = shlex.split(policy.command(typed(cfg), cfg))[2:]
    composed = config.compose(first.partition("=")[2], *overrides)
    run, other = config.check(composed), typed(cfg)
    own = {"run_dir": None, "ckpt_path": None, "trusted_modules": []}
    assert replace(run, **own) == replace(other, **own)


def test_a_name_that_no_command_can_have_stops_no_export():
    watch = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "eval/return"}
    cfg = config.changed(config.compose("state_push"), {"callbacks.extra": {"my watch": watch}})
    assert "'+callbacks.extra.my watch={" in policy.command(config.check(cfg), cfg)


def test_the_card_of_a_run_that_recorded_its_machine(exported, finished):
    described = json.loads((exported[finished] / "policy.json").read_text())
    record = read_payload(newest_policy(finished / "checkpoints"))["record"]["fingerprint"]
    assert described["training"]["versions"] == record["versions"]
    assert record["processor"] in (exported[finished] / "README.md").read_text()
    assert described["evaluation"]["seeds_are"].startswith("those of the evaluations in training")


def test_the_card_says_when_its_time_is_of_more_than_the_checkpoint(copied):
    summary = {"env_steps": 4000, "wall_time_s": 96.3, "device": "cpu"}
    (copied / "summary.json").write_text(json.dumps(summary))
    card = (policy.export(copied, with_program=False) / "README.md").read_text()
    assert " in 800 env steps" in card
    told = r"^Trained on .+ in 2 min \(the whole run, 4,000 env steps\)\. With"
    assert re.search(told, card, re.MULTILINE)


def test_the_published_policy_is_the_runs_and_plays_from_the_command_line(
    tmp_path, capsys, monkeypatch
):
    weights = read_payload(newest_policy(SEEING / "checkpoints"))["state_dict"]
    found = load_file(PUBLISHED / "policy.safetensors")
    assert found and all(tensor.equal(weights[name]) for name, tensor in found.items())
    assert sum(path.stat().st_size for path in PUBLISHED.iterdir()) < 2_000_000
    (demo,) = re.findall(r"src/evaluate.py (policy=.*?) out=", (ROOT / "Makefile").read_text())
    assert ROOT / demo.removeprefix("policy=") == PUBLISHED
    args = (demo, f"out={tmp_path}", "episodes=2", "stochastic=true")
    monkeypatch.chdir(ROOT)
    out, err, code = command(evaluate_entry, capsys, monkeypatch, *args)
    assert (err, code) == ("", 0)
    assert "pixel_push_laptop at 120,000 env steps: success " in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluations"]


def spoilt(folder):
    """Ways to spoil an exported policy, and words of the error."""

    def described(**changes):
        text = json.loads((folder / "policy.json").read_text())
        (folder / "policy.json").write_text(json.dumps({**text, **changes}))

    def configured(**changes):
        described(config={**json.loads((folder / "policy.json").read_text())["config"], **changes})

    def weights(change):
        found = load_file(folder / "policy.safetensors")
        change(found)
        save_file(found, folder / "policy.safetensors")

    raw, name = folder / "policy.safetensors", "agent.actor.mu.weight"
    return {
        "no folder": (lambda: shutil.rmtree(folder), "No such file"),
        "no json": (lambda: (folder / "policy.json").write_text("{"), "policy.json: Expecting"),
        "deep": (lambda: (folder / "policy.json").write_text("[" * 100_000), "policy.json: "),
        "large": (lambda: (folder / "policy.json").write_text(" " * 2**20 + "{}"), "larger than"),
        "a list": (lambda: (folder / "policy.json").write_text("[1]"), "policy.json lacks format"),
        "newer": (lambda: described(format=2), "is of format 2, this version reads 1"),
        "no config": (lambda: described(config=None), "policy.json lacks format, config"),
        "empty config": (lambda: described(config={}), "expected"),
        "foreign": (lambda: configured(augment={"_target_": "os.system"}), "os.system"),
        "no weights": (lambda: raw.unlink(), "policy.safetensors: No such file"),
        "damaged": (lambda: raw.write_bytes(raw.read_bytes()[:99]), "policy.safetensors: "),
        "incomplete": (lambda: weights(lambda found: found.pop(name)), f"differs in {name}"),
        "of others": (lambda: weights(lambda found: found.update({name: found[name][:2]})), name),
        "more": (lambda: weights(lambda found: found.update(other=found[name] + 0)), "in other"),
    }


@pytest.mark.parametrize("name", spoilt(Path()))
def test_a_spoilt_policy_is_one_line(exported, finished, tmp_path, capsys, monkeypatch, name):
    folder = Path(shutil.copytree(exported[finished], tmp_path / "policy"))
    spoil, words = spoilt(folder)[name]
    spoil()
    monkeypatch.setattr("fetchlab.play.rollout", lambda *_: pytest.fail("played"))
    args = (f"policy={folder}", f"out={tmp_path / 'out'}", "episodes=1")
    out, err, code = command(evaluate_entry, capsys, monkeypatch, *args)
    assert (out, code, err.count("\n")) == ("", 2, 1), err
    assert words in err and err.startswith("error: ")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run="], "run='': expected a run's folder"),
        ([], "run=None: expected a run's folder"),
        (["run=absent"], "run='absent': expected a run's folder"),
        (["out={tmp}/taken"], "expected an empty folder, or an earlier export"),
        (["out=/dev/null/x"], "out='/dev/null/x': expected a folder that can be written"),
        (["checkpoint=absent"], "checkpoint='absent': expected a valid checkpoint"),
        (["program=some"], "program='some': expected true or false"),
        (["task=fetch_push"], "task"),
        (["seed=3"], "seed='3': expected only out, checkpoint"),
        (["hub=user/name"], "expected the package huggingface_hub; pip install"),
    ],
)
def test_slips_are_one_line(finished, tmp_path, capsys, monkeypatch, args, words):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").touch()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    given = [arg.format(tmp=tmp_path) for arg in args]
    if not any(arg.startswith("run=") for arg in given) and given:
        given = [f"run={finished}", f"out={tmp_path / 'out'}", *given]
    out, err, code = command(export_entry, capsys, monkeypatch, *given)
    assert (out, code, err.count("\n")) == ("", 2, 1), err
    assert words in err


def test_a_checkpoint_is_the_runs_own(finished, copied, tmp_path, monkeypatch):
    (own,) = (finished / "checkpoints").glob("best_*")
    other, out = copied / "checkpoints" / own.name, tmp_path / "out"
    expected = r"^checkpoint='.*best_.*': expected a checkpoint of this run; give its own run as"
    with pytest.raises(ConfigError, match=expected):
        policy.export(finished, out, other, with_program=False)
    assert not any(out.iterdir())
    monkeypatch.chdir(finished / "checkpoints")  # however its path is written
    policy.export(finished, out, own.name, with_program=False)
    assert (out / "policy.json").exists()


def test_help(capsys, monkeypatch):
    out, err, code = command(export_entry, capsys, monkeypatch, "--help")
    assert (err, code) == ("", 0) and "python src/export.py run=RUN_DIR" in out
    assert all(f"  {key}=" in out for key in keys("export"))


def test_what_cannot_be_traced_says_so(finished, tmp_path, monkeypatch):
    monkeypatch.setattr("fetchlab.policy.program", lambda _: torch.zeros(()).expand(2, -3))
    with pytest.raises(RunFailedError, match=r"cannot be traced .*program=false leaves policy.pt2"):
        policy.export(finished, tmp_path / "out")
    assert not (tmp_path / "out" / "policy.json").exists()  # so it is no exported policy's folder


class Hub:
    """The hub, for whom a folder stands in, and its client, which does what the real one does."""

    def __init__(self, root):
        self.root = root

    def create_repo(self, repo_id, exist_ok):
        assert exist_ok
        name = repo_id if "/" in repo_id else f"me/{repo_id}"  # whose token it is
        (self.root / name).mkdir(parents=True, exist_ok=True)

    def upload_folder(
        self, *, repo_id, folder_path, allow_patterns, commit_message, delete_patterns=()
    ):
        repo = self.root / repo_id
        assert repo.is_dir() and commit_message

        def matched(folder, patterns):
            return [path for path in folder.iterdir() if any(map(path.match, patterns))]

        for path in matched(repo, delete_patterns):
            path.unlink()
        for path in matched(folder_path, allow_patterns):
            shutil.copy(path, repo)
        return f"https://hub/{repo_id}"


def test_an_upload_is_one_command(finished, tmp_path, capsys, monkeypatch):
    hub = Hub(tmp_path / "hub")
    package, utils = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.utils")
    package.HfApi, package.get_token = (lambda token: hub), lambda: None
    utils.HFValidationError = type("HFValidationError", (ValueError,), {})

    def validate_repo_id(name):
        if not re.fullmatch(r"([\w.-]+/)?[\w.-]{1,96}", name):
            raise utils.HFValidationError("Repo id must use\nalphanumeric chars")

    utils.validate_repo_id = validate_repo_id
    monkeypatch.setitem(sys.modules, "huggingface_hub", package)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", utils)
    folder = tmp_path / "policy"
    args = (f"run={finished}", f"out={folder}", "program=false")
    written = {"README.md", "curve.svg", "policy.json", "policy.safetensors"}
    out, err, code = command(export_entry, capsys, monkeypatch, *args, "hub=user/reach")
    assert (out, code, err.count("\n")) == ("", 2, 1) and "expected a token" in err
    for name in ("a/b/c", "reach", "user/my reach"):
        out, err, code = command(export_entry, capsys, monkeypatch, *args, f"hub='{name}'")
        assert (out, code, err.count("\n")) == ("", 2, 1) and "expected user/name" in err
    assert not folder.exists()  # before any work
    package.get_token = lambda: "token"
    sent = hub.root / "user/reach"
    out, err, code = command(export_entry, capsys, monkeypatch, *args[:2], "hub=user/reach")
    assert (err, code) == ("", 0) and (sent / "policy.pt2").exists()
    for own in (folder, sent):
        (own / "videos.txt").touch()
    out, err, code = command(export_entry, capsys, monkeypatch, *args, "hub=user/reach")
    assert (err, code) == ("", 0) and out.endswith("hub: https://hub/user/reach\n")
    for name in written:
        assert (sent / name).read_bytes() == (folder / name).read_bytes()
    for own in (folder, sent):  # nothing stale, and what is somebody's own
        assert {path.name for path in own.iterdir()} == {*written, "videos.txt"}

    def refuse(*_, **__):
        raise OSError("403 Forbidden:\nno")

    monkeypatch.setattr(hub, "create_repo", refuse)
    out, err, code = command(export_entry, capsys, monkeypatch, *args, "hub=user/reach")
    assert (code, err) == (1, "error: the hub does not take user/reach: 403 Forbidden: no\n")
