"""One run: from a checked configuration to a finished, stopped or failed run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from fetchlab import config
from fetchlab.build import Parts, build_parts, memory_bytes, worker_count
from fetchlab.callbacks.evaluation import Evaluation, write_json
from fetchlab.checkpoint.find import newest_valid
from fetchlab.checkpoint.fingerprint import compare, config_difference, fingerprint
from fetchlab.checkpoint.manifest import CheckpointError
from fetchlab.checkpoint.run_lock import RunLock
from fetchlab.checkpoint.safe_config import allowed_targets, load_run_config
from fetchlab.checkpoint.torch_io import read_payload
from fetchlab.envs.pool import WorkerError
from fetchlab.learn.sac_module import NonFiniteError
from fetchlab.preflight.budget import format_bytes
from fetchlab.preflight.renderer import choose_renderer
from fetchlab.trainer import build_trainer
from fetchlab.types import ConfigError, RunFailedError

#: Causes that are reported in one line; anything else is a defect and keeps its traceback.
STOPS_A_RUN = (WorkerError, NonFiniteError, CheckpointError, OSError)


def start(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Run a new experiment to its end, and return its summary.

    Args:
        cfg: resolved, plain.

    Raises:
        ConfigError: for a configuration that cannot work.
    """
    config.check_sizes(cfg)
    config.sees_pixels(cfg)
    run_dir = config.choose_run_dir(cfg, datetime.now())
    made = config.claim_run_dir(run_dir)
    with RunLock(run_dir):
        try:
            return _run(cfg, run_dir, checkpoint=None, record=_record(cfg))
        except ConfigError:
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
        CheckpointError: when there is nothing valid to resume.
    """
    if not run_dir.is_dir():
        raise ConfigError("resume", str(run_dir), "a run's folder", "check the path")
    with RunLock(run_dir):
        stored = load_run_config(run_dir / "config.yaml", allowed_targets(config.CONFIGS))
        cfg = {**stored, **changes}
        if trainer is not None:
            cfg["trainer"] = config.shipped("trainer", trainer)
        config.check_sizes(cfg)
        checkpoint = newest_valid(run_dir / "checkpoints")
        old, new = read_payload(checkpoint)["record"], _record(cfg)
        _refuse_differences(run_dir, old, new, force)
        forced = [*old["forced"], *compare(old["fingerprint"], new["fingerprint"])]
        return _run(cfg, run_dir, checkpoint, {**new, "forced": forced})


def _refuse_differences(
    run_dir: Path, old: Mapping[str, Any], new: Mapping[str, Any], force: bool
) -> None:
    may_change = ("total_env_steps", "trainer", "run_dir")
    lines = config_difference(old["config"], new["config"], may_change)
    lines += compare(old["fingerprint"], new["fingerprint"])
    if lines and not force:
        raise ConfigError(
            "resume",
            str(run_dir),
            "the configuration, versions, threads and renderer of the run",
            f"differs in {'; '.join(lines)}; restore that, or give force_resume=true",
        )


def _record(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What an exact resume depends on besides the checkpoint."""
    trainer = cfg["trainer"]
    if trainer["threads"] is not None:
        torch.set_num_threads(trainer["threads"])
    if trainer["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer", "gpu", "a CUDA device", "use trainer=cpu or trainer=auto")
    cuda = trainer["accelerator"] != "cpu" and torch.cuda.is_available()
    renderer = choose_renderer().description if config.sees_pixels(cfg) else "none"
    workers = worker_count(cfg["collect"]["workers"], cfg["collect"]["n_envs"])
    return {
        "config": dict(cfg),
        "fingerprint": fingerprint(workers, renderer, "cuda" if cuda else "cpu"),
        "forced": [],
    }


def _run(
    cfg: Mapping[str, Any], run_dir: Path, checkpoint: Path | None, record: Mapping[str, Any]
) -> dict[str, Any]:
    parts = build_parts(cfg, run_dir)
    try:
        if checkpoint is None and cfg["ckpt_path"] is not None:
            _load_weights(parts, Path(cfg["ckpt_path"]))
        built = build_trainer(cfg, run_dir, parts, record, resume=checkpoint is not None)
        _write_config(run_dir, cfg)
        _announce(cfg, run_dir, parts, record)
        clock, status = time.monotonic(), "failed"
        try:
            built.trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint)
            status = "finished" if parts.data.done else "stopped"
        except STOPS_A_RUN as error:
            raise RunFailedError(
                f"{error}; to continue: python src/train.py resume={run_dir}"
            ) from error
        finally:
            seconds = time.monotonic() - clock
            summary = _summary(cfg, parts, built.evaluation, status, seconds)
            write_json(run_dir / "summary.json", summary)
    finally:
        parts.env.close()
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
    lines = (
        f"run       {run_dir}",
        f"device    {used['device']}, {used['threads']} torch threads, {used['workers']} workers",
        f"renderer  {used['renderer']}",
        f"replay    {disk} of disk ({format_bytes(replay.bytes_per_transition)} a transition)",
        f"memory    about {memory}",
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
