"""TorchRL transforms of the batched environment: what an agent sees besides the raw entries.

Both are functions of the tensordict alone: older frames and the return so far are read from the
root entries of the step's input, where TorchRL carries them, so there are no buffers to checkpoint.
So a step's input must be the tensordict that the last step or reset returned.
"""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Composite, Unbounded
from torchrl.envs import Transform

from fetchlab.entries import PIXELS

FRAMES = "frames"
EPISODE_RETURN = "episode_return"
EPISODE_LENGTH = "episode_length"


class StackFrames(Transform):
    """Writes ``frames`` (N, S C, H, W) uint8: the newest S frames of this episode, oldest first.

    ``pixels`` (N, C, H, W) stays the newest frame alone. Before an episode has S (``size``) frames,
    its first one is repeated.
    """

    def __init__(self, size: int) -> None:
        super().__init__(in_keys=[PIXELS], out_keys=[FRAMES])
        self._size = size

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        newest = next_tensordict.get(PIXELS)
        older = _carried(tensordict, FRAMES)[:, newest.shape[1] :]
        return next_tensordict.set(FRAMES, torch.cat((older, newest), 1))

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        first = tensordict_reset.get(PIXELS)
        return tensordict_reset.set(FRAMES, first.repeat(1, self._size, 1, 1))

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Add ``frames``."""
        batch, channels, *image = observation_spec[PIXELS].shape
        shape = (batch, channels * self._size, *image)
        observation_spec[FRAMES] = Unbounded(shape, dtype=torch.uint8)
        return observation_spec


class TrackEpisodes(Transform):
    """Writes ``episode_return`` (N, 1) float32 and ``episode_length`` (N, 1) int64, in steps.

    At ``done`` the ``next`` entries are the finished episode's; the root entries of its successor
    are zero.
    """

    def __init__(self) -> None:
        super().__init__(in_keys=["reward"], out_keys=[EPISODE_RETURN, EPISODE_LENGTH])

    def _step(self, tensordict: TensorDictBase, next_tensordict: TensorDictBase) -> TensorDictBase:
        reward = next_tensordict.get("reward")
        next_tensordict.set(EPISODE_RETURN, _carried(tensordict, EPISODE_RETURN) + reward)
        return next_tensordict.set(EPISODE_LENGTH, _carried(tensordict, EPISODE_LENGTH) + 1)

    def _reset(
        self, tensordict: TensorDictBase, tensordict_reset: TensorDictBase
    ) -> TensorDictBase:
        shape = (*tensordict_reset.batch_size, 1)
        tensordict_reset.set(EPISODE_RETURN, torch.zeros(shape))
        return tensordict_reset.set(EPISODE_LENGTH, torch.zeros(shape, dtype=torch.int64))

    def transform_observation_spec(self, observation_spec: Composite) -> Composite:
        """Add both entries."""
        shape = (*observation_spec.shape, 1)
        observation_spec[EPISODE_RETURN] = Unbounded(shape, dtype=torch.float32)
        observation_spec[EPISODE_LENGTH] = Unbounded(shape, dtype=torch.int64)
        return observation_spec


def _carried(tensordict: TensorDictBase, key: str) -> Tensor:
    value = tensordict.get(key, None)
    if value is None:
        raise KeyError(f"{key!r} is missing: step the tensordict that the last step returned")
    return value
