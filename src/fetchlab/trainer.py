"""Parts, callbacks and loggers joined in one Lightning Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.profilers import PassThroughProfiler

from fetchlab.build import Parts, build_env
from fetchlab.callbacks.checkpoints import Checkpoints
from fetchlab.callbacks.disk_watch import DiskWatch
from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.callbacks.log_points import LogPoints
from fetchlab.callbacks.progress import EnvStepProgress
from fetchlab.callbacks.stopping import Stopping
from fetchlab.callbacks.throughput import RateMeter, TimeEstimate
from fetchlab.checkpoint.torch_io import CommitCheckpointIO
from fetchlab.config import typed
from fetchlab.loggers.csv import RunCSVLogger
from fetchlab.loggers.tensorboard import RunTensorBoardLogger
from fetchlab.preflight.sizes import evaluation_workers

COLUMNS = (
    "train/success_rate",
    "train/return",
    "eval/success_rate",
    "eval/return",
    "eval/goal_distance_m",
    "time/env_steps_per_s",
    "time/grad_updates_per_s",
)


class NoProfiler(PassThroughProfiler):
    """Lightning asks its profiler for a context 24 times a round; here it is always the same."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> nullcontext[None]:  # type: ignore[override]
        """Measure nothing."""
        return self._nothing


@dataclass
class Assembled:
    """A Trainer and the callbacks whose results the summary reads."""

    trainer: pl.Trainer
    evaluation: Evaluation
    checkpoints: Checkpoints
    stopping: Stopping


def build_trainer(
    cfg: Mapping[str, Any], run_dir: Path, parts: Parts, record: Mapping[str, Any], resume: bool
) -> Assembled:
    """The Trainer of a run; every trigger in it counts env steps, none counts Lightning's steps.

    Args:
        cfg: resolved, plain.
        run_dir: the run's folder.
        parts: of `fetchlab.build`.
        record: written into every checkpoint, compared when it is resumed.
        resume: whether a checkpoint will be loaded.
    """
    run = typed(cfg)
    options, evaluating = cfg["callbacks"], cfg["callbacks"]["evaluation"]
    data, module, rates = parts.data, parts.module, RateMeter()
    log_points = LogPoints(
        options["log_every_env_steps"],
        (
            module.pop_metrics,
            data.collector.means,
            lambda: rates.read(data.env_steps, module.grad_updates),
        ),
        lambda: rates.start(data.env_steps, module.grad_updates),
    )
    stopping = Stopping()
    checkpoints = Checkpoints(run_dir / "checkpoints", lambda data: evaluation.due(data), record)
    evaluation = Evaluation(
        lambda: build_env(run, evaluating["n_envs"], evaluation_workers(run)),
        evaluating["every_env_steps"],
        evaluating["episodes"],
        cfg["seed"],
        run_dir / "evaluation.json",
        stop=lambda: stopping.asked,
        record=log_points.write,
        commit=checkpoints.evaluated,
    )
    total, estimate = cfg["total_env_steps"], options["time_estimate"]
    # In this order: a state is committed before its evaluation, which can be made up for.
    callbacks: list[pl.Callback] = [
        DiskWatch(run_dir, **options["disk_watch"], stop=stopping.request),
        stopping,
        log_points,
        checkpoints,
        evaluation,
        EnvStepProgress(total, options["progress_refresh_s"]),
        TimeEstimate(total, **estimate),
    ]
    _silence_lightning()
    trainer = pl.Trainer(
        accelerator=cfg["trainer"]["accelerator"],
        devices=1,
        # Not `deterministic`: `preflight.numerics` has set it, before the record read it.
        max_epochs=-1,
        logger=_loggers(cfg, run_dir, resume, parts.module.metric_names),
        callbacks=callbacks,
        plugins=[CommitCheckpointIO(keep=options["keep_checkpoints"]), _one_process()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=0,  # nothing calls `self.log`
        profiler=NoProfiler(),
        use_distributed_sampler=False,
        default_root_dir=str(run_dir),
    )
    return Assembled(trainer, evaluation, checkpoints, stopping)


def _loggers(
    cfg: Mapping[str, Any], run_dir: Path, resume: bool, metric_names: tuple[str, ...]
) -> list[Logger]:
    loggers: list[Logger] = []
    if cfg["logger"]["csv"]:
        loggers.append(RunCSVLogger(str(run_dir), (*metric_names, *COLUMNS), resume))
    if cfg["logger"]["tensorboard"]:
        loggers.append(RunTensorBoardLogger(str(run_dir), resume))
    return loggers


def _one_process() -> LightningEnvironment:
    """A run is one process, whatever a scheduler or launcher says of it in the environment.

    Left alone, Lightning would guess a cluster from those variables and check that the run's size
    fits it, answer SIGUSR1 itself, and keep quiet where they give the process another rank than 0.
    """
    environment = LightningEnvironment()
    environment.set_global_rank(0)
    return environment


def _silence_lightning() -> None:
    """Hide advice that does not apply: one process, and a collector instead of a DataLoader."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    for text in (".*`srun`.*", ".*does not have many workers.*", ".*isinstance.*LeafSpec.*"):
        warnings.filterwarnings("ignore", message=text)
