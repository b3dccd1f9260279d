"""Parts, callbacks and loggers joined in one Lightning Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.profilers import PassThroughProfiler

from fetchlab import schema
from fetchlab.build import Parts, build_env, swap_in
from fetchlab.callbacks import find
from fetchlab.callbacks.checkpoints import Checkpoints
from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.callbacks.stopping import Stopping
from fetchlab.checkpoint.torch_io import CommitCheckpointIO
from fetchlab.fields import OpenSection
from fetchlab.loggers.build import build_loggers
from fetchlab.preflight.sizes import evaluation_workers


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
    run: schema.Run,
    run_dir: Path,
    parts: Parts,
    record: Mapping[str, Any],
    logged: Mapping[str, Any] | None,
) -> Assembled:
    """The Trainer of a run; every trigger in it counts env steps, none counts Lightning's steps.

    Args:
        run: the checked configuration.
        run_dir: the run's folder.
        parts: of `fetchlab.build`.
        record: written into every checkpoint, compared when it is resumed.
        logged: the loggers' states in the checkpoint that will be loaded; None in a new run.
    """
    loggers = build_loggers(run.logger, run_dir, logged or {})
    callbacks = _callbacks(run.callbacks)
    _silence_lightning()
    trainer = pl.Trainer(
        accelerator=run.trainer.accelerator,
        devices=1,
        # Not `deterministic`: `preflight.numerics` has set it, before the record read it.
        max_epochs=-1,
        logger=list(loggers.values()),
        callbacks=callbacks,
        plugins=[CommitCheckpointIO(keep=run.callbacks.keep_checkpoints), _one_process()],
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        # Not 1: callbacks that monitor a metric then look at it after evaluations
        # (`on_validation_end`), not at every end of an epoch, which a signal may cut short.
        check_val_every_n_epoch=2,
        log_every_n_steps=0,  # nothing calls `self.log`
        profiler=NoProfiler(),
        use_distributed_sampler=False,
        default_root_dir=str(run_dir),
    )
    evaluation, checkpoints = find(trainer, Evaluation), find(trainer, Checkpoints)
    checkpoints.record, checkpoints.loggers = record, loggers
    workers = evaluation_workers(run)
    parts.data.seed = run.seed
    parts.data.make_evaluation_env = partial(
        build_env, run, run.callbacks.evaluation.n_envs, workers
    )
    if logged is None:
        for logger in loggers.values():
            logger.log_hyperparams(dict(record["config"]))
    return Assembled(trainer, evaluation, checkpoints, find(trainer, Stopping))


def _callbacks(section: schema.Callbacks) -> list[pl.Callback]:
    """In the order of the section's fields: what a user adds comes behind what it may read."""
    nodes: list[Any] = []
    for field in fields(section):
        value = getattr(section, field.name)
        if field.name == "extra":
            nodes += value.values()
        elif isinstance(value, OpenSection):
            nodes.append({**value.target, "_partial_": False})
        elif isinstance(value, Mapping):
            nodes.append(value)
    return [swap_in(node) for node in nodes]


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
