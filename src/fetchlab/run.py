"""One run: from a checked configuration to a finished, stopped or failed run folder."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fetchlab import config
from fetchlab.build import Parts, build_parts
from fetchlab.callbacks.evaluation import Evaluation, write_json
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.fingerprint import compare, config_difference, fingerprint
from fetchlab.checkpoint.manifest import CheckpointError
from fetchlab.checkpoint.run_lock import RunLock
from fetchlab.checkpoint.safe_config import allowed_targets, load_run_config
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.envs.pool import WorkerError
from fetchlab.preflight.allocator import reuse_memory
from fetchlab.preflight.budget import format_bytes
from fetchlab.preflight.renderer import choose_renderer
from fetchlab.replay.files import ReplayError
from fetchlab.sizes import collecting_workers, learner_threads, memory_bytes
from fetchlab.trainer import build_trainer
from fetchlab.types import ConfigError, NonFiniteError, RunFailedError

#: What a resume may change without `force_resume`.
MAY_CHANGE = ("total_env_steps", "trainer", "run_dir")
#: Causes that are reported in one line; anything else is a defect and keeps its traceback.
STOPS_A_RUN = (WorkerError, NonFiniteError, ReplayError, CheckpointError, OSError)


def start(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Run a new experiment to its end, and return its summary.

    Args:
        cfg: resolved, plain.

    Raises:
        ConfigError: for a configuration that cannot work.
        RunFailedError: for a run that cannot go on, or a folder that another process uses.
    """
    config.check_sizes(cfg)
    config.sees_pixels(cfg)
    run_dir = config.choose_run_dir(cfg, datetime.now())
    made = config.claim_run_dir(run_dir)
    with RunLock(run_dir), _in_one_line(run_dir):
        try:
            return _run(cfg, run_dir, checkpoint=None, record=_record(cfg))
        except BaseException:
            config.release_run_dir(run_dir, made)
            raise


def resume(
    run_dir: Path, changes: Mapping[str, Any], trainer: str | None, force: bool
) -> dict[str, Any]:
    """Continue a run exactly where its newest valid checkpoint left it.

    Args:
        run_dir: the run's folder; it may have been moved.
        changes: values that replace the run's own: ``total_env_steps`` or nothing.
        trainer: name of a trainer configuration to use instead of the run's own.
        force: continue although versions, threads, renderer or configuration differ; recorded.

    Raises:
        ConfigError: for a configuration that changed, or one that names what is not allowed.
        RunFailedError: for nothing valid to resume, files that are damaged, a run that cannot go
            on, or a folder that another process uses.
    """
    if not run_dir.is_dir():
        raise ConfigError("resume", str(run_dir), "a run's folder", "check the path")
    with RunLock(run_dir), _in_one_line(run_dir):
        stored = load_run_config(run_dir / "config.yaml", allowed_targets(config.CONFIGS))
        cfg = {**stored, **changes}
        if trainer is not None:
            cfg["trainer"] = config.shipped("trainer", trainer)
        config.check_sizes(cfg)
        try:
            checkpoint = newest_valid(run_dir / "checkpoints")
            old, new = read_payload(checkpoint)["record"], _record(cfg)
        except CheckpointError as error:
            raise RunFailedError(str(error)) from error
        lines = config_difference(old["config"], new["config"], MAY_CHANGE)
        lines += compare(old["fingerprint"], new["fingerprint"])
        if lines and not force:
            raise ConfigError(
                "resume",
                str(run_dir),
                "the configuration, versions, threads and renderer of the run",
                f"differs in {'; '.join(lines)}; restore that, or give force_resume=true",
            )
        return _run(cfg, run_dir, checkpoint, {**new, "forced": [*old["forced"], *lines]})


@contextmanager
def _in_one_line(run_dir: Path) -> Iterator[None]:
    """Turn what stops a run into its cause and the way on, in one line; details follow it."""
    try:
        yield
    except STOPS_A_RUN as error:
        way = "nothing was trained yet, start it again"
        if (run_dir / "checkpoints").is_dir():
            way = _continue_command(run_dir)
        cause, _, details = str(error).partition("\n")
        raise RunFailedError(f"{cause}; {way}\n{details}".rstrip()) from error


def _continue_command(run_dir: Path) -> str:
    return f"to continue: python src/train.py resume={run_dir}"


def _record(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What an exact resume depends on besides the checkpoint."""
    trainer = cfg["trainer"]
    torch.set_num_threads(learner_threads(cfg))
    reuse_memory()
    if trainer["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer", "gpu", "a CUDA device", "use trainer=cpu or trainer=auto")
    cuda = trainer["accelerator"] != "cpu" and torch.cuda.is_available()
    renderer = choose_renderer().description if config.sees_pixels(cfg) else "none"
    process = fingerprint(collecting_workers(cfg), renderer, "cuda" if cuda else "cpu")
    return {"config": dict(cfg), "fingerprint": process, "forced": []}


def _run(
    cfg: Mapping[str, Any], run_dir: Path, checkpoint: Path | None, record: Mapping[str, Any]
) -> dict[str, Any]:
    # Nothing here draws from these two, but a swap-in may; checkpoints hold their states.
    random.seed(cfg["seed"])
    np.random.seed(cfg["seed"] % 2**32)
    parts = build_parts(cfg, run_dir)
    try:
        if checkpoint is None and cfg["ckpt_path"] is not None:
            _load_weights(parts, Path(cfg["ckpt_path"]))
        built = build_trainer(cfg, run_dir, parts, record, resume=checkpoint is not None)
        _write_config(run_dir, cfg)
        _announce(cfg, run_dir, parts, record)
        status = "failed"
        try:
            built.trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint)
            whole = parts.data.done and not built.evaluation.due(parts.data)
            status = "finished" if whole else "stopped"
        finally:
            reason = built.stopping.reason if status == "stopped" else None
            seconds = built.checkpoints.wall_time_s
            summary = _summary(cfg, parts, built.evaluation, status, seconds)
            summary["stop_reason"] = reason
            # Where a full disk stopped the run, that error must not hide behind this one.
            with suppress(*((OSError,) if status == "failed" else ())):
                write_json(run_dir / "summary.json", summary)
    finally:
        parts.env.close()
    if reason is not None:
        at = f"stopped by {reason} at {summary['env_steps']:,} env steps"
        print(f"{at}; {_continue_command(run_dir)}", flush=True)
    return summary


def _load_weights(parts: Parts, path: Path) -> None:
    """Start from another run's weights, targets and input statistics; the rest is new."""
    try:
        parts.module.load_state_dict(read_payload(path)["state_dict"])
    except (CheckpointError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            "ckpt_path", str(path), "a checkpoint of the same networks", f"{reason[:300]}"
        ) from error


def _announce(
    cfg: Mapping[str, Any], run_dir: Path, parts: Parts, record: Mapping[str, Any]
) -> None:
    """Say what this run will use, before its first step."""
    used, replay = record["fingerprint"], parts.data.replay
    disk, memory = format_bytes(replay.disk_bytes), format_bytes(memory_bytes(cfg, parts.module))
    exact = used["device"] == "cpu" or cfg["trainer"]["deterministic"]
    resume = (
        "bit-exact" if exact else "not bit-exact on CUDA; trainer.deterministic=true makes it so"
    )
    lines = (
        f"run       {run_dir}",
        f"device    {used['device']}, {used['threads']} torch threads, {used['workers']} workers",
        f"renderer  {used['renderer']}",
        f"replay    {disk} of disk ({format_bytes(replay.bytes_per_transition)} a transition)",
        f"memory    about {memory}",
        f"resume    {resume}",
        f"length    {cfg['total_env_steps']:,} env steps; Ctrl-C stops after a checkpoint",
    )
    print("\n".join(lines), flush=True)


def _write_config(run_dir: Path, cfg: Mapping[str, Any]) -> None:
    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    text = yaml.dump(dict(cfg), Dumper=Plain, sort_keys=False)
    temporary = run_dir / ".config.yaml.tmp"
    temporary.write_text(text)
    temporary.replace(run_dir / "config.yaml")


def _summary(
    cfg: Mapping[str, Any], parts: Parts, evaluation: Evaluation, status: str, seconds: float
) -> dict[str, Any]:
    steps, updates = parts.data.env_steps, parts.module.grad_updates
    return {
        "experiment": cfg["experiment"],
        "seed": cfg["seed"],
        "env_steps": steps,
        "grad_updates": updates,
        "success_rate": evaluation.history[-1]["success_rate"] if evaluation.history else None,
        "best_success_rate": evaluation.best if evaluation.history else None,
        "wall_time_s": seconds,
        "env_steps_per_s": steps / seconds,
        "grad_updates_per_s": updates / seconds,
        "replay_bytes_per_transition": parts.data.replay.bytes_per_transition,
        "device": str(parts.module.device),
        "status": status,
    }
