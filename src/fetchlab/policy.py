"""A policy that leaves its run: exported to a folder, and put together again from it."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import safetensors.torch
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fetchlab import __version__, config
from fetchlab.algos.off_policy import OffPolicy
from fetchlab.build import build_module, task_spec
from fetchlab.callbacks.evaluation import FILE_NAME
from fetchlab.checkpoint.find import newest_policy
from fetchlab.checkpoint.fingerprint import fingerprint
from fetchlab.checkpoint.manifest import CheckpointError
from fetchlab.checkpoint.torch_io import load_weights
from fetchlab.collect.video import VideoUnavailableError
from fetchlab.durable import read_json, write_bytes, write_json, write_text
from fetchlab.envs.goal_env import open_env
from fetchlab.errors import ConfigError, RunFailedError, require
from fetchlab.export.acting import Acting, acting_weights, program
from fetchlab.export.card import CURVE, card, curve_svg
from fetchlab.preflight import numerics
from fetchlab.preflight.sizes import learner_threads
from fetchlab.run import STOPS_A_RUN
from fetchlab.run_folder import require_run, require_writable, summary_of
from fetchlab.schema import Run

NAME = "exported"
CARD = "README.md"
WEIGHTS, DESCRIPTION, PROGRAM = "policy.safetensors", "policy.json", "policy.pt2"
FILES = (WEIGHTS, DESCRIPTION, PROGRAM, CARD, CURVE)
FORMAT = 1
_MAX_BYTES = 1 << 20
_EXPECTED = "a folder that src/export.py wrote"
#: What differs from run to run of one experiment, and what its command says by itself.
_OF_THE_RUN = (
    *("seed", "total_env_steps", "run_dir", "ckpt_path", "teacher", "experiment"),
    "trusted_modules",
)


def export(
    run_dir: str | Path,
    out: str | Path | None = None,
    checkpoint: str | Path | None = None,
    with_program: bool = True,
    trusted_modules: Sequence[str] = (),
) -> Path:
    """Write a run's policy as files that travel; returns their folder.

    Args:
        run_dir: a run's folder.
        out: where to; None: ``RUN_DIR/policy``. An earlier export there is replaced.
        checkpoint: folder of a checkpoint of this run; None takes the newest valid one.
        with_program: also write ``policy.pt2``.
        trusted_modules: that the run's configuration may name beside the project's.

    Raises:
        ConfigError: no run, no checkpoint of it, or a folder that cannot be written.
        RunFailedError: no valid checkpoint, or a policy that cannot be traced.
    """
    run_dir = Path(run_dir)
    require_run("run", run_dir)
    cfg = config.stored(run_dir, trusted_modules)
    run = config.check(cfg)
    folder = run_dir / "policy" if out is None else Path(out)
    _require_ours(folder)
    numerics.apply(cfg["trainer"], learner_threads(run), cuda=False)
    module = _module(run)
    with in_one_line(checkpoint):
        path = _checkpoint(run_dir / "checkpoints", checkpoint)
        payload = load_weights(module, path)
    module.eval()
    acting = _acting(run, module)
    history = read_json(run_dir / FILE_NAME, list)
    description = {
        "format": FORMAT,
        **_what_it_is(run, cfg, acting),
        "env_steps": int(payload["env_steps"]),
        "evaluation": _evaluation(run_dir, path.name, int(payload["env_steps"]), history),
        "training": _training(run, cfg, run_dir, payload.get("record", {})),
        "exported": _exported(),
        "config": _travels(cfg),
    }
    for name in FILES:  # of an earlier export, which may have had others
        (folder / name).unlink(missing_ok=True)
    weights = {name: one.contiguous() for name, one in acting_weights(acting).items()}
    write_bytes(folder / WEIGHTS, safetensors.torch.save(weights, {"format": "pt"}))
    if with_program:
        write_bytes(folder / PROGRAM, _program(acting))
    if history:
        write_text(folder / CURVE, curve_svg(history))
    write_text(folder / CARD, card(description, history, with_program))
    write_json(folder / DESCRIPTION, description)  # last: it makes this an exported policy's folder
    return folder


@contextmanager
def in_one_line(checkpoint: str | Path | None) -> Iterator[None]:
    """What may go wrong while a policy is found and played, as an error that is one line.

    Args:
        checkpoint: the one that was asked for by name, if any.
    """
    try:
        yield
    except (*STOPS_A_RUN, VideoUnavailableError) as error:
        if isinstance(error, CheckpointError) and checkpoint is not None:
            expected = "a valid checkpoint of this run's networks"
            raise ConfigError("checkpoint", str(checkpoint), expected, error.reason) from error
        raise RunFailedError(str(error)) from error


def stored(
    folder: Path, trusted: Sequence[str]
) -> tuple[dict[str, Any], Callable[[OffPolicy], int]]:
    """An exported policy's configuration, and what loads it and says its env steps.

    Args:
        folder: what `export` wrote, perhaps somewhere else: nothing in it is trusted.
        trusted: modules that it may name beside the project's, from this command line.

    Raises:
        ConfigError: it is none, cannot work, or names what is not allowed; loading: it is damaged.
    """
    description = _described(folder)
    cfg = {**description["config"], "trusted_modules": [*trusted]}
    run = config.check(cfg)

    def load(module: OffPolicy) -> int:
        _put_weights(folder, _acting(run, module.eval()))
        return int(description["env_steps"])

    return cfg, load


def _described(folder: Path) -> dict[str, Any]:
    """What `export` wrote of a policy; of its ``config`` nothing is checked yet.

    Raises:
        ConfigError: no such folder, or nothing that can be read.
    """
    path = folder / DESCRIPTION
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES} bytes")
        found = json.loads(raw)
    except (OSError, ValueError, RecursionError) as error:
        remedy = f"check the path ({path.name}: {_reason(error)})"
        raise ConfigError("policy", str(folder), _EXPECTED, remedy) from error
    kinds = {"format": int, "config": dict, "env_steps": int}
    sound = isinstance(found, dict) and all(
        isinstance(found.get(name), kind) for name, kind in kinds.items()
    )
    says = f"{DESCRIPTION} lacks {', '.join(kinds)}"
    require(sound, "policy", str(folder), _EXPECTED, says)
    newer = f"{DESCRIPTION} is of format {found['format']}, this version reads {FORMAT}"
    require(found["format"] == FORMAT, "policy", str(folder), _EXPECTED, newer)
    return dict(found)


def _put_weights(folder: Path, acting: Acting) -> None:
    """Put an exported policy's weights into a module, of which `acting` is made.

    Raises:
        ConfigError: they are missing, damaged, or of other networks.
    """
    path, expected = folder / WEIGHTS, "weights of the networks that its policy.json describes"
    try:
        found = safetensors.torch.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        remedy = f"export it again ({path.name}: {_reason(error)})"
        raise ConfigError("policy", str(folder), expected, remedy) from error
    wanted = acting_weights(acting)
    odd = sorted(
        name
        for name in {*wanted, *found}
        if name not in wanted
        or name not in found
        or (found[name].shape, found[name].dtype) != (wanted[name].shape, wanted[name].dtype)
    )
    remedy = f"export it again ({path.name} differs in {', '.join(odd[:3])})"
    require(not odd, "policy", str(folder), expected, remedy)
    acting.module.load_state_dict(found, strict=False)


def _reason(error: Exception) -> str:
    """One line of it."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())[:200]


def _checkpoint(folder: Path, asked: str | Path | None) -> Path:
    """The one of a run's checkpoints that was asked for, or its newest."""
    if asked is None:
        return newest_policy(folder)
    path = Path(asked)
    own = not path.exists() or path.resolve().parent == folder.resolve()
    require(own, "checkpoint", str(asked), "a checkpoint of this run", "give its own run as run=")
    return path


def _module(run: Run) -> OffPolicy:
    with closing(open_env(task_spec(run, render=False), render=False)) as env:
        return build_module(run, env.env_spec)


def _acting(run: Run, module: OffPolicy) -> Acting:
    images = None
    if run.obs.pixels is not None:
        channels, height, width = run.obs.pixels.shape
        images = channels * run.obs.frame_stack, height, width
    return Acting(module, images)


def _program(acting: Acting) -> bytes:
    try:
        return program(acting)
    except Exception as error:  # whatever torch.export cannot follow in a user's own algorithm
        reason = " ".join(str(error).split())[:300]
        raise RunFailedError(
            f"act cannot be traced by torch.export ({reason}); program=false leaves policy.pt2 out"
        ) from error


def _require_ours(folder: Path) -> None:
    """Refuse a folder in which somebody else's files would be replaced."""
    require_writable("out", folder, "choose another")
    ours = (folder / DESCRIPTION).exists() or (folder / WEIGHTS).exists()
    free = ours or not any(folder.iterdir())
    require(free, "out", str(folder), "an empty folder, or an earlier export", "choose another")


def _what_it_is(run: Run, cfg: Mapping[str, Any], acting: Acting) -> dict[str, Any]:
    """What somebody needs who has only the files."""
    spec = acting.module.agent.env_spec
    kinds = {name: "uint8" if name == "pixels" else "float32" for name in acting.inputs}
    action = {"name": "action", "shape": ["B", spec.action_dim], "dtype": "float32"}
    return {
        "experiment": run.experiment,
        "seed": run.seed,
        "algorithm": run.algo.target["_target_"].rpartition(".")[2],
        "task": cfg["task"],
        "inputs": [
            {"name": name, "shape": ["B", *shape], "dtype": kinds[name]}
            for name, shape in acting.inputs.items()
        ],
        "output": {**action, "range": [-1.0, 1.0]},
        "proprio": list(spec.proprio),
        "frame_stack": run.obs.frame_stack,
        "camera": cfg["obs"]["pixels"] if "pixels" in acting.inputs else None,
        "precision": run.trainer.precision if "pixels" in acting.inputs else "float32",
    }


def _evaluation(
    run_dir: Path, name: str, env_steps: int, history: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """What is known of this checkpoint's success: by the most episodes that did not choose it."""
    own = []
    for path in sorted((run_dir / "evaluations").glob("*.json")):
        found = read_json(path, dict)
        fair = str(found.get("seeds_are", "")).startswith("used neither")
        same = found.get("checkpoint") == name and not found.get("changes")
        if fair and same and not found.get("stochastic"):
            own.append(found)
    rows = [row for row in history if row["env_steps"] == env_steps]
    if not own and not rows:
        return None
    chosen = max(own, key=lambda one: int(one["episodes"])) if own else rows[-1]
    names = ("episodes", "success_rate", "success_rate_95", "return", "goal_distance_m")
    told = "those of the evaluations in training, which chose the best checkpoint"
    return {key: chosen[key] for key in names} | {"seeds_are": chosen.get("seeds_are", told)}


def _training(
    run: Run, cfg: Mapping[str, Any], run_dir: Path, record: Mapping[str, Any]
) -> dict[str, Any]:
    """How it came about, as far as the run's folder tells; None is what it does not tell."""
    summary = summary_of(run_dir)
    used = record.get("fingerprint", {})
    return {
        "command": command(run, cfg),
        "wall_time_s": summary.get("wall_time_s"),
        "env_steps": summary.get("env_steps"),
        "device": used.get("device", summary.get("device")),
        "processor": used.get("processor"),
        "versions": used.get("versions"),
    }


def command(run: Run, cfg: Mapping[str, Any]) -> str:
    """What starts this run again: its experiment, and where its configuration differs from that."""
    given = [f"seed={run.seed}", f"total_env_steps={run.total_env_steps}"]
    given += ["teacher=TEACHER_RUN_DIR"] if run.teacher is not None else []
    if run.experiment in config.names("experiment"):
        with suppress(HydraException, OmegaConfBaseException):  # names that Hydra's grammar has not
            for _ in range(2):  # what refers to a changed value has changed with it
                shipped = config.compose(run.experiment, *given)
                given += _changes(_compared(shipped), _compared(cfg))
    return shlex.join(["python", "src/train.py", f"experiment={run.experiment}", *given])


def _compared(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that a command compares; one that is null is as good as absent."""
    return {k: v for k, v in cfg.items() if v is not None and k not in _OF_THE_RUN}


def _changes(shipped: Mapping[str, Any], own: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Hydra's overrides that make ``own`` of ``shipped``, which lies at ``prefix``."""
    changes = []
    for name, value in shipped.items():
        if name not in own:
            if value is None:  # which Hydra cannot delete
                changes.append(f"{prefix}{name}=0")
            changes.append(f"~{prefix}{name}")
    for name, value in own.items():
        was = shipped.get(name)
        if isinstance(value, Mapping) and isinstance(was, Mapping):
            changes += _changes(was, value, f"{prefix}{name}.")
        elif name not in shipped or was != value:
            sign = "" if name in shipped else "+"
            changes.append(f"{sign}{prefix}{name}={_override(value)}")
    return changes


def _override(value: Any) -> str:
    """A value as Hydra's command line has it: JSON, but for the keys, which have no quotes."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_override(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_override, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _exported() -> dict[str, Any]:
    """By what it was exported."""
    versions = fingerprint(workers=0, renderer="none", device="cpu")["versions"]
    git = ["git", "-C", str(config.ROOT), "rev-parse", "HEAD"]
    commit = None
    with suppress(OSError):
        done = subprocess.run(git, capture_output=True, text=True, check=False)
        commit = done.stdout.strip() or None
    return {"versions": {"fetchlab": __version__, **versions}, "commit": commit}


def _travels(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without what means something on one machine only."""
    own: dict[str, Any] = {"run_dir": None, "ckpt_path": None, "trusted_modules": []}
    teacher = cfg.get("teacher")
    if isinstance(teacher, Mapping):
        own["teacher"] = _travels(teacher)
    return {**cfg, **own}
