"""Rounds of a learner whose replay and networks are on one device, without simulators."""

from __future__ import annotations

import numpy as np
import torch
from known_specs import PUSH
from tensordict import TensorDict

from fetchlab.build import build_module, replay_size, row_spec, swap_in
from fetchlab.collect.datamodule import Round
from fetchlab.config import typed
from fetchlab.envs.batched import GoalReward
from fetchlab.replay.replay import HindsightReplay
from fetchlab.replay.sampler import HindsightSampler
from fetchlab.replay.storage import EpisodeStorage

EPISODE = 5


class Learner:
    """The same numbers on every device: everything is drawn on the CPU, from fixed seeds.

    Args:
        cfg: of a run.
        folder: for the replay's files.
        device: of networks and replay.
    """

    def __init__(self, cfg, folder, device):
        self.cfg, self.device, self.steps = cfg, device, 0
        self._rng = np.random.default_rng(0)
        self.module = build_module(typed(cfg), PUSH).to(device)
        optimizers = self.module.configure_optimizers()
        self.module.optimizers = lambda *_: optimizers
        row, size = row_spec(typed(cfg), PUSH), replay_size(typed(cfg))
        stack, algo = cfg["obs"]["frame_stack"], cfg["algo"]
        self.replay = HindsightReplay(
            EpisodeStorage(folder, row, size, stack, device, algo["n_step"]),
            HindsightSampler(
                swap_in(cfg["relabel"]),
                GoalReward(True, 0.05),
                None,
                PUSH.goal_slice,
                algo["discount"],
            ),
            torch.Generator(device).manual_seed(5),
        )

    def store(self):
        """Observe and store one step of all environments; their episodes end together."""
        self.steps += 1
        n, over = self.cfg["collect"]["n_envs"], self.steps % EPISODE == 0
        flags = {name: torch.full((n, 1), over) for name in ("terminated", "truncated")}
        flags["terminated"].zero_()
        action = torch.from_numpy(self._rng.uniform(-1, 1, (n, 4)).astype(np.float32))
        step = TensorDict(
            {**self._obs(n), "action": action, "next": {**self._obs(n), **flags}}, batch_size=[n]
        )
        self.module.observe(step)
        self.replay.extend(step)

    def act(self):
        """The exploring policy's actions (N, 4), on the host."""
        n, stack = self.cfg["collect"]["n_envs"], self.cfg["obs"]["frame_stack"]
        obs = self._obs(n)
        if "pixels" in obs:
            obs["frames"] = obs.pop("pixels").repeat(1, stack, 1, 1)
        return self.module.explore(TensorDict(obs, batch_size=[n]), self.steps * n).cpu()

    def update(self, updates):
        """A round's updates."""
        size = self.cfg["algo"]["batch_size"]
        self.module.training_step(Round(self.replay, updates, size, self.steps), 0)

    def _obs(self, n):
        obs = {name: self._rng.normal(size=(n, d)) for name, d in (("state", 25), ("goal", 3))}
        obs = {name: torch.from_numpy(values.astype(np.float32)) for name, values in obs.items()}
        obs["desired_goal"] = obs.pop("goal")
        if typed(self.cfg).obs.sees_pixels:
            shape = (n, *row_spec(typed(self.cfg), PUSH).pixels_shape)
            obs["pixels"] = torch.from_numpy(self._rng.integers(0, 256, shape, np.uint8))
        return obs


def learn(cfg, folder, device, rounds, watched=None):
    """Weights after each round of so many updates, all actions, and the metrics' means.

    Args:
        cfg: of a run.
        folder: for the replay.
        device: of the learner.
        rounds: updates of each.
        watched: the pretended device, told what is going on.
    """

    def phase(name):
        if watched is not None:
            watched.phase = name

    phase("start")
    learner = Learner(cfg, folder, device)
    for _ in range(2 * EPISODE):
        learner.store()
    seen = []
    for nth, updates in enumerate(rounds):
        first = "" if nth else "first "
        phase(first + "store")
        learner.store()
        phase(first + "act")
        actions = learner.act()
        phase(first + "update")
        learner.update(updates)
        phase("read")
        seen.append({k: v.cpu().clone() for k, v in learner.module.state_dict().items()})
        seen[-1]["actions"] = actions
    return seen, learner.module.pop_metrics()
