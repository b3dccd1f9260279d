"""The replay's storage: single frames in memory-mapped rings, one per environment.

One row per (environment, time) holds one frame, never a stack and never the next one; the final
observation of an episode is a row too and never a transition's start. Stacks and next observations
are rebuilt when reading. Only finished episodes can be read, because hindsight needs their end.

Exact resume: a checkpoint holds `EpisodeStorage.state_dict`, that is which rows can be sampled, and
never the rows themselves. They stay in the files, and `EpisodeStorage.set` refuses to overwrite a
row that one of the two newest checkpoints needs; `commit_needed` says so in time. Rows written
after a checkpoint lie outside of what it can sample, so a kill in mid-write tears nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data.replay_buffers import Storage

from fetchlab.replay.files import ReplayError, RowFiles
from fetchlab.replay.layout import ROUNDS_AHEAD, ReplaySize, RowSpec, plan_layout, rows_written
from fetchlab.replay.reader import RowReader
from fetchlab.replay.step import read_step
from fetchlab.replay.window import Commit, CommittedRows, EpisodeRows, EpisodeWindow

STATE_VERSION = 1
NOT_OPEN = -1


def not_offered(self: Any, *arguments: Any, **options: Any) -> NoReturn:
    """For what TorchRL's classes have to have; its own ``loads`` unpickles."""
    raise NotImplementedError("the rows stay in the replay's files: use state_dict()")


def no_state(self: Any, *state: Any) -> Any:
    """For parts that have none: ``state_dict`` and ``load_state_dict``."""
    return {}


class EpisodeStorage(Storage):
    """Rows on disk, the window of finished episodes, and what checkpoints protect.

    Args:
        directory: folder of the files. An existing replay is opened, and can be used after
            `load_state_dict`, which also grows it when the run was extended.
        row: what one step of one environment holds.
        size: how much to store.
        frame_stack: frames per stack, S.
        device: where transitions are drawn and put together; elsewhere than on the CPU all rows are
            kept there too.
        n_step: steps of a transition (see `RowReader`).

    Raises:
        ReplayError: existing files that do not fit, or too little disk.
    """

    def __init__(
        self,
        directory: Path,
        row: RowSpec,
        size: ReplaySize,
        frame_stack: int,
        device: torch.device,
        n_step: int,
    ) -> None:
        self._asked, self._device = plan_layout(row, size), device
        super().__init__(max_size=size.n_envs * self._asked.window_steps)
        self.reader = RowReader(frame_stack, size.max_episode_steps, device, n_step)
        self.files = RowFiles(directory, self._asked)
        self._usable = not self.files.existing
        self._cursor = np.zeros(size.n_envs, np.int64)
        self._open_start = np.full(size.n_envs, NOT_OPEN)
        self._resumed_unfinished = EpisodeRows.none()
        self._attach()

    def _attach(self) -> None:
        """Index and protection for the files as they are now."""
        layout = self.layout = self.files.layout
        self.max_size = layout.n_envs * layout.window_steps
        self.window = EpisodeWindow(layout, self._device)
        self.commits = CommittedRows(layout.n_envs, layout.rows)
        self._free_at_least = 0
        self._ring = np.arange(layout.n_envs) * layout.rows
        self.reader.attach(self.files.arrays, layout.rows)

    def set(self, cursor: Any, data: TensorDictBase, *, set_cursor: bool = True) -> None:
        """Append one step of all environments, a batch [N] as `read_step` takes it.

        The root observation is stored where an episode begins: at the first step and after a done.
        Each ring has its own cursor, so TorchRL's is ignored.

        Raises:
            ValueError: data that no environment can have produced; nothing is stored.
            ReplayError: a protected row would be overwritten, or an episode goes on too long;
                nothing is stored.
        """
        arrays = self.files.arrays
        step = read_step(data, arrays, self.layout.n_envs)
        begins = self._open_start == NOT_OPEN
        self._refuse_overwriting()
        self._refuse_long_episodes(begins, step.done)
        at = self._ring + self._cursor % self.layout.rows
        if begins.any():
            for name, values in step.before.items():
                arrays[name][at[begins]] = values[begins]
            self._open_start[begins] = self._cursor[begins]
        for name, values in step.transition.items():
            arrays[name][at] = values
        self._cursor += 1
        self._free_at_least -= 2  # the most that a step takes, see `_finish`
        after = self._ring + self._cursor % self.layout.rows
        for name, values in step.after.items():
            arrays[name][after] = values
        self.reader.push(np.concatenate((at[begins], after)), at)
        for env in np.flatnonzero(step.done).tolist():
            self._finish(env)

    def _finish(self, env: int) -> None:
        start = int(self._open_start[env])
        length = int(self._cursor[env]) - start
        self.window.append(env, start, length, self.files.episode_checksum(env, start, length))
        self._open_start[env] = NOT_OPEN
        self._cursor[env] += 1

    def _refuse_overwriting(self) -> None:
        if not self._usable:
            raise ReplayError(
                f"{self.files.directory} holds the rows of an earlier run; "
                "load its checkpoint first, or use another folder"
            )
        if not self._rows_free(2):  # this step's row, and the first one of an episode
            raise ReplayError(
                "the next row is one that the two newest checkpoints need; commit a checkpoint "
                "when commit_needed() says so, or raise replay.margin_env_steps"
            )

    def _refuse_long_episodes(self, begins: np.ndarray, done: np.ndarray) -> None:
        longest = self.layout.max_episode_steps
        too_long = np.where(begins, 1, self._cursor + 1 - self._open_start) + ~done > longest
        if too_long.any():
            raise ReplayError(
                f"environments {np.flatnonzero(too_long).tolist()} go on after {longest} steps; "
                "end episodes there, or raise task.max_episode_steps"
            )

    def get(self, index: Tensor) -> TensorDict:
        """`RowReader.transitions` of the indices (B,) int64 that `EpisodeWindow.draw` gave."""
        return self.reader.transitions(self.window.locate(index))

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return self.window.total

    def flush(self) -> None:
        """Make all rows durable; call before a checkpoint that refers to them is committed."""
        self.files.flush()

    def committed(self) -> None:
        """The newest `state_dict` is durable: protect its rows, release the third newest's."""
        self.commits.committed()
        self._free_at_least = 0

    def replace_commit(self) -> None:
        """The next `state_dict` replaces the newest durable one; no row is stored in between."""
        self.commits.replace()

    def abandon_open(self) -> None:
        """Forget the episodes in progress, whose rows the next ones take: nobody can go on there.

        Call it before `require_intact`: of the same checkpoint, an earlier resume has done so.
        """
        begun = self._open_start != NOT_OPEN
        self._cursor[begun] = self._open_start[begun]
        self._open_start[begun] = NOT_OPEN
        self._resumed_unfinished = EpisodeRows.none()
        before = [one for one in (self.commits.previous, self.commits.newest) if one is not None]
        self.commits.restore(
            [one._replace(cursor=np.minimum(one.cursor, self._cursor)) for one in before]
        )
        self._free_at_least = 0

    def commit_needed(self, rounds_ahead: int = ROUNDS_AHEAD) -> bool:
        """Whether one of the next ``rounds_ahead`` rounds may touch a protected row."""
        return not self._rows_free(rows_written(rounds_ahead) + 1)

    def _rows_free(self, wanted: int) -> bool:
        """Whether every ring has so many rows left before the first protected one."""
        if self._free_at_least < wanted:  # a lower bound; looked up again only where it may matter
            self._free_at_least = int((self.commits.limit - self._cursor).min())
        return self._free_at_least >= wanted

    def state_dict(self) -> dict[str, Any]:
        """What can be sampled and continued, as plain tensors; never the rows."""
        self.commits.take(Commit(self._first_rows(), self._cursor.copy()))
        newest = self.commits.newest
        parts = {
            "cursor": self._cursor,
            "open_start": self._open_start,
            "oldest_transition": self.window.oldest_transitions,
            "previous_start": newest.start if newest else np.zeros(0, np.int64),
            "previous_cursor": newest.cursor if newest else np.zeros(0, np.int64),
            **self.window.episodes().named("episode"),
            **self._unfinished().named("unfinished"),
        }
        tensors = {name: torch.from_numpy(part.copy()) for name, part in parts.items()}
        return {"version": STATE_VERSION, **tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from `state_dict` on the same files; grow them when more rows are asked for."""
        found = (state_dict["version"], len(state_dict["cursor"]))
        expected = (STATE_VERSION, self.layout.n_envs)
        if found != expected:
            raise ReplayError(
                f"replay state (version, n_envs)={found}: expected {expected}; resume with the "
                "settings and the release that the run was made with"
            )
        state = {name: part.numpy() for name, part in state_dict.items() if name != "version"}
        episodes = EpisodeRows.of("episode", state)
        start = np.where(state["open_start"] == NOT_OPEN, state["cursor"], state["open_start"])
        np.minimum.at(start, episodes.env, episodes.start)
        commits = [Commit(start, state["cursor"].copy())]
        if len(state["previous_start"]):
            commits = [Commit(state["previous_start"], state["previous_cursor"]), *commits]
        self.files.grow(self._asked, first=commits[0].start, end=state["cursor"] + 1)
        self._attach()
        self.reader.push_all()
        self._cursor[:], self._open_start[:] = state["cursor"], state["open_start"]
        self.window.restore(episodes, state["oldest_transition"])
        self.commits.restore(commits)
        self._free_at_least = 0
        self._resumed_unfinished = EpisodeRows.of("unfinished", state)
        self._usable = True

    def verify(self, mode: Literal["tail", "full"]) -> EpisodeRows:
        """Episodes whose rows are not those that were written.

        ``full`` reads the whole window, ``tail`` only what the newest checkpoint added to the one
        before it. Both include what was in progress when the state was saved.
        """
        stored, unfinished = self.window.episodes(), self._resumed_unfinished
        episodes = EpisodeRows(*map(np.concatenate, zip(stored, unfinished, strict=True)))
        # What was in progress at the checkpoint may have left the window since.
        check = episodes.start >= self._first_rows()[episodes.env]
        if mode == "tail" and self.commits.previous is not None:
            last_row = episodes.start + episodes.length
            check &= last_row >= self.commits.previous.cursor[episodes.env]
        check[check] = self.files.checksums(*episodes.only(check)[:3]) != episodes.checksum[check]
        return episodes.only(check)

    def require_intact(self, mode: Literal["tail", "full"]) -> None:
        """`verify`, with a `ReplayError` that names the episodes; call after `load_state_dict`."""
        bad = self.verify(mode)
        if len(bad.env):
            where = [f"env {env} rows {s}..{s + n}" for env, s, n, _ in zip(*bad, strict=True)]
            raise ReplayError(
                f"{self.files.directory}: checksum error in {len(where)} episodes "
                f"({', '.join(where[:5])}{', ...' if len(where) > 5 else ''}); "
                "restore the files, or start the run again"
            )

    def _unfinished(self) -> EpisodeRows:
        """The episodes in progress, as far as they are stored."""
        env = np.flatnonzero(self._open_start != NOT_OPEN)
        start = self._open_start[env]
        episodes = EpisodeRows(env, start, self._cursor[env] - start, np.zeros_like(env))
        return episodes._replace(checksum=self.files.checksums(*episodes[:3]))

    def _first_rows(self) -> np.ndarray:
        """Oldest absolute row (N,) that can be sampled or continued."""
        begun = np.where(self._open_start == NOT_OPEN, self._cursor, self._open_start)
        return self.window.first_rows(otherwise=begun)

    _empty = dumps = loads = not_offered
