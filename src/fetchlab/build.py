"""From a configuration to parts to a Trainer, in the order of the data flow: where all of it meets.

Environment -> agent -> algorithm -> replay -> collector -> data module -> callbacks and loggers ->
Trainer. What a user swaps is named in YAML by ``_target_``; the rest is built here.
"""

from __future__ import annotations

import fetchlab.envs.without_gl  # noqa: F401  before torchrl, which imports mujoco

# isort: split
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torchrl.envs import TransformedEnv

from fetchlab.algos.off_policy import OffPolicy
from fetchlab.algos.routing import Routing
from fetchlab.algos.steps import AT_ONCE
from fetchlab.augment import NoAugment
from fetchlab.callbacks import find
from fetchlab.callbacks.checkpoints import Checkpoints
from fetchlab.checkpoint.torch_io import CommitCheckpointIO
from fetchlab.collect.collector import Collector
from fetchlab.collect.datamodule import ReplayDataModule
from fetchlab.config import typed
from fetchlab.entries import ACHIEVED_GOAL, DESIRED_GOAL, PIXELS, STATE, EnvSpec
from fetchlab.envs.batched import make_env
from fetchlab.envs.spec import TaskSpec
from fetchlab.errors import ConfigError, require
from fetchlab.fields import OpenSection
from fetchlab.loggers.build import build_loggers
from fetchlab.networks.agent import Agent, Vision
from fetchlab.networks.norms import VectorNormalizer
from fetchlab.networks.pixel_encoder import PixelEncoder
from fetchlab.preflight.sizes import (
    Memory,
    check_fits,
    collecting_workers,
    evaluation_workers,
    replay_device,
    worker_count,
)
from fetchlab.replay.layout import ReplaySize, RowSpec, plan_layout
from fetchlab.replay.replay import HindsightReplay
from fetchlab.replay.sampler import HindsightSampler
from fetchlab.replay.storage import EpisodeStorage
from fetchlab.schema import Callbacks, Pixels, Run

#: Every consumer of random numbers has a stream of its own, so that none can echo another's.
STREAMS = ("weights", "exploration", "updates", "replay", "environments", "warm-up")


@dataclass
class Parts:
    """A run's learner and data, before a Trainer joins them."""

    module: OffPolicy
    data: ReplayDataModule
    env: TransformedEnv
    memory_bytes: int


def build_parts(run: Run, run_dir: Path) -> Parts:
    """Everything that learns and collects, on the run's replay files.

    Raises:
        ConfigError: for the first value that cannot work.
    """
    device = replay_device(run)
    env = build_env(run, run.collect.n_envs, collecting_workers(run))
    try:
        spec = env.base_env.env_spec
        module = build_module(run, spec)
        row, size, memory = row_spec(run, spec), replay_size(run), Memory(run, module, AT_ONCE)
        plan = plan_layout(row, size)
        check_fits(run, run_dir, plan.disk_bytes(), plan.bytes_per_transition(), memory)
        storage = EpisodeStorage(
            run_dir / "replay", row, size, run.obs.frame_stack, device, run.algo.n_step
        )
        sampler = HindsightSampler(
            swap_in(run.relabel),
            env.base_env.compute_reward,
            env.base_env.compute_terminated,
            spec.goal_slice,
            run.algo.discount,
        )
        generator = torch.Generator(device).manual_seed(seed_for(run.seed, "replay"))
        replay = HindsightReplay(storage, sampler, generator)
        collector = Collector(
            env,
            module,
            replay.extend,
            run.collect.learning_starts,
            env_seed=seed_for(run.seed, "environments"),
            action_seed=seed_for(run.seed, "warm-up"),
        )
        data = ReplayDataModule(
            collector,
            replay,
            run.algo.batch_size,
            run.algo.utd_ratio,
            run.total_env_steps,
            run.callbacks.evaluation.every_env_steps,
            run.replay.verify,
        )
        data.seed = run.seed
        data.make_evaluation_env = partial(
            build_env, run, run.callbacks.evaluation.n_envs, evaluation_workers(run)
        )
    except BaseException:
        env.close()
        raise
    return Parts(module, data, env, memory.total_bytes())


def build_trainer(
    run: Run,
    run_dir: Path,
    record: Mapping[str, Any],
    logged: Mapping[str, Any] | None,
) -> pl.Trainer:
    """The Trainer of a run; every trigger in it counts env steps, none counts Lightning's steps.

    ``record`` is written into every checkpoint, and compared when it is resumed; ``logged`` are the
    loggers' states in the checkpoint that will be loaded, None in a new run.
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
        # Not 1: callbacks that monitor a metric then look at it after evaluations
        # (`on_validation_end`), not at every end of an epoch, which a signal may cut short.
        check_val_every_n_epoch=2,
        log_every_n_steps=0,  # nothing calls `self.log`
        default_root_dir=str(run_dir),
    )
    checkpoints = find(trainer, Checkpoints)
    checkpoints.record, checkpoints.loggers = record, loggers
    if logged is None:
        for logger in loggers.values():
            logger.log_hyperparams(dict(record["config"]))
    return trainer


def build_env(
    run: Run, n_envs: int, workers: int | None, render: bool | None = None
) -> TransformedEnv:
    """The batched environment, for training or evaluation."""
    return make_env(
        task_spec(run, render),
        n_envs=n_envs,
        workers=worker_count(workers, n_envs),
        frame_stack=run.obs.frame_stack,
        timeout_s=run.collect.timeout_s,
    )


def task_spec(run: Run, render: bool | None = None) -> TaskSpec:
    """What each environment simulates and renders; ``render`` overrides whether it does."""
    pixels = None
    if run.obs.sees_pixels if render is None else render:
        # A video of an agent without pixels: the usual picture.
        pixels = run.obs.pixels or Pixels(84, 1, None, {}, True, "fast")
    return TaskSpec(pixels=pixels, **vars(run.task))


def replay_size(run: Run) -> ReplaySize:
    """How much this run stores: min(capacity, total_env_steps) plus the margin."""
    return ReplaySize(
        n_envs=run.collect.n_envs,
        max_episode_steps=run.task.max_episode_steps,
        capacity=run.replay.capacity,
        total_env_steps=run.total_env_steps,
        margin_env_steps=run.replay.margin_env_steps,
    )


def row_spec(run: Run, spec: EnvSpec) -> RowSpec:
    """What one step of one environment stores."""
    pixels = run.obs.pixels if run.obs.sees_pixels else None
    shape = None if pixels is None else pixels.shape
    stored = spec.goal_slice is None
    return RowSpec(spec.state_dim, spec.goal_dim, spec.action_dim, stored, shape)


def build_module(run: Run, spec: EnvSpec) -> OffPolicy:
    """Networks, losses and optimizers; draws the initial weights from ``seed``."""
    teacher = {}
    if isinstance(run.teacher, Mapping):  # weights: of its checkpoint, or of this run's own
        teacher = {"teacher": build_module(typed(run.teacher), spec)}
    torch.manual_seed(seed_for(run.seed, "weights"))
    vision = _vision(run, spec)
    stored = {STATE: spec.state_dim, DESIRED_GOAL: spec.goal_dim}
    if spec.goal_slice is None:
        stored[ACHIEVED_GOAL] = spec.goal_dim
    obs = run.obs
    normalizer = VectorNormalizer(
        stored, obs.normalize, obs.normalize_std_floor, obs.normalize_clip
    )
    symmetry = None
    if run.symmetry is not None:
        mapped = PIXELS in (*obs.actor_inputs, *obs.critic_inputs)
        cameras = obs.pixels.cameras if obs.pixels and mapped else []
        symmetry = swap_in(run.symmetry)(env_spec=spec, cameras=cameras)
    agent = Agent(spec, obs.actor_inputs, obs.critic_inputs, vision, normalizer, symmetry)
    return swap_in(run.algo.target)(
        agent=agent,
        routing=Routing(run.routing.encoder_optimizer, run.routing.trained_by),
        explore_seed=seed_for(run.seed, "exploration"),
        update_seed=seed_for(run.seed, "updates"),
        cuda_graphs=run.trainer.cuda_graphs,
        **teacher,
    )


def _vision(run: Run, spec: EnvSpec) -> Vision | None:
    """How an agent with pixels sees, and what teaches it to."""
    augment, pixels = swap_in(run.augment), run.obs.pixels
    if not run.obs.sees_pixels:
        remedy = "for an agent without pixels"
        named, plain = type(augment).__name__, isinstance(augment, NoAugment)
        require(plain, "augment", named, f"none {remedy}", "use augment=none, or obs=pixels")
        require(
            not run.auxiliary,
            "auxiliary",
            [*run.auxiliary],
            f"no loss {remedy}, which has no encoder to ask",
            f"use obs=pixels, or {' '.join(f'~auxiliary.{name}' for name in run.auxiliary)}",
        )
        return None
    stack, trainer = run.obs.frame_stack, run.trainer
    assert pixels and run.encoder and run.pooling and run.feature_norm  # `config.check` saw to it
    cnn = swap_in(run.encoder)(in_channels=pixels.shape[0] * stack, image_size=pixels.image_size)
    pooling = swap_in(run.pooling)(in_shape=cnn.out_shape)
    # By position: torch's own modules name this argument differently.
    encoder = PixelEncoder(cnn, pooling, swap_in(run.feature_norm)(pooling.out_dim))
    auxiliary = {
        name: swap_in(node)(feature_dim=encoder.out_dim, env_spec=spec)
        for name, node in run.auxiliary.items()
    }
    bfloat16 = trainer.precision == "bfloat16"
    return Vision(
        encoder, stack, augment, auxiliary, bfloat16, trainer.channels_last, trainer.compile
    )


def swap_in(node: Mapping[str, Any]) -> Any:
    """What a group's YAML names by ``_target_``.

    Raises:
        ConfigError: the part's own, or Lightning's of a part of its own, without Hydra's words.
    """
    try:
        return instantiate(node)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            raise cause from None
        if isinstance(cause, MisconfigurationException):
            says, name = " ".join(str(cause).split()), node["_target_"]
            raise ConfigError(name, node, "arguments that fit", says) from None
        raise


def seed_for(seed: int, stream: str) -> int:
    """The seed of one stream, in [0, 2^32), from the run's ``seed``."""
    return int(np.random.SeedSequence((seed, STREAMS.index(stream))).generate_state(1)[0])


def _callbacks(section: Callbacks) -> list[pl.Callback]:
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
