"""What a run says about itself: before its first step, in ``config.yaml`` and at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fetchlab.build import Parts
from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.durable import write_text
from fetchlab.durations import format_duration
from fetchlab.entries import ESTIMATED_GOAL, PIXELS
from fetchlab.preflight.budget import format_bytes
from fetchlab.preflight.numerics import emulation
from fetchlab.preflight.sizes import usable_cores
from fetchlab.run_folder import quoted
from fetchlab.schema import Run


def announce(run: Run, run_dir: Path, parts: Parts, record: Mapping[str, Any]) -> None:
    """Say what this run will use, before its first step."""
    used, replay = record["fingerprint"], parts.data.replay.storage.layout
    disk, memory = format_bytes(replay.disk_bytes()), format_bytes(parts.memory_bytes)
    exact = used["device"] == "cpu" or run.trainer.deterministic
    resume = (
        "bit-exact" if exact else "not bit-exact on CUDA; trainer.deterministic=true makes it so"
    )
    if not parts.env.base_env.env_spec.restorable:
        resume = "starts the running episodes anew: this environment cannot save its state"
    algorithm = run.algo.target["_target_"].rpartition(".")[2]
    seen = ", ".join(run.obs.actor_inputs).replace(
        ESTIMATED_GOAL, f"{PIXELS} (as {ESTIMATED_GOAL})"
    )
    lines = [
        f"run       {run_dir}",
        f"learns    {run.task.env_id} by {algorithm}; the policy is given {seen}",
        f"device    {used['device']}, {used['threads']} torch threads, {used['workers']} workers",
        f"renderer  {used['renderer']}",
        f"replay    {disk} of disk ({format_bytes(replay.bytes_per_transition())} a transition)",
        f"memory    about {memory}",
        f"resume    {resume}",
        f"length    {run.total_env_steps:,} env steps; Ctrl-C stops after a checkpoint",
        *(["compile   the first updates take 5 to 60 s longer"] if "compiler" in used else ()),
        *(emulation(run.trainer.precision, used["device"]) if run.obs.sees_pixels else ()),
    ]
    busy, cores = used["threads"] + used["workers"], usable_cores()
    if busy > max(2, cores):
        lines.append(
            f"warning   {busy} threads and workers wait for each other on {cores} cores: leave one "
            "of trainer.threads and collect.workers null"
        )
    print("\n".join(lines), flush=True)


def learned(history: Sequence[Mapping[str, Any]], seconds: float, run_dir: Path) -> str:
    """What a finished run's policy can do, since when, and how to watch it.

    ``history`` are its evaluations, the last one at its end; see `Evaluation`.
    """
    first, last = history[0], history[-1]
    began = f" ({first['success_rate']:.0%} after {first['env_steps']:,})"
    return (
        f"success {last['success_rate']:.0%} of {last['episodes']} evaluation episodes after "
        f"{last['env_steps']:,} env steps{began if first is not last else ''} in "
        f"{format_duration(seconds)}; watch it: "
        f"python src/evaluate.py run={quoted(run_dir)} video=true"
    )


def write_config(run_dir: Path, cfg: Mapping[str, Any]) -> None:
    """Write ``config.yaml``: resolved, complete, without anything that YAML has to resolve."""

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    write_text(run_dir / "config.yaml", yaml.dump(dict(cfg), Dumper=Plain, sort_keys=False))


def summarize(run: Run, parts: Parts, evaluation: Evaluation, seconds: float) -> dict[str, Any]:
    """What ``summary.json`` says of the run's work up to now."""
    steps, updates = parts.data.env_steps, parts.module.grad_updates
    return {
        "experiment": run.experiment,
        "seed": run.seed,
        "env_steps": steps,
        "grad_updates": updates,
        "success_rate": evaluation.history[-1]["success_rate"] if evaluation.history else None,
        "best_success_rate": evaluation.best if evaluation.history else None,
        "phase": evaluation.history[-1].get("phase") if evaluation.history else None,
        "wall_time_s": seconds,
        "env_steps_per_s": steps / seconds,
        "grad_updates_per_s": updates / seconds,
        "replay_bytes_per_transition": parts.data.replay.storage.layout.bytes_per_transition(),
    }
