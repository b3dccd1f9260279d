"""Faults that have to be forced: patches for a victim, applied in its process before its command.

The product has no switches for them. Each function here returns the patch.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

Patch = Callable[[], None]
DISK_STEPS = ("open", "write", "fsync", "rename", "mkdir", "unlink", "rmdir")


def die(*_: object, **__: object) -> NoReturn:
    """``kill -9`` this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def nan_action(call: int) -> Patch:
    """The policy's ``call``-th action of environment 1 is NaN."""

    def patch() -> None:
        from fetchlab.algos.sac import SAC

        inner, calls = SAC.explore, iter(range(1, 1 << 30))

        def explore(self: Any, obs: Any, env_steps: int) -> Any:
            action = inner(self, obs, env_steps)
            if next(calls) == call:
                action[1, 0] = float("nan")
            return action

        SAC.explore = explore

    return patch


def poisoned_reward(call: int) -> Patch:
    """The ``call``-th batch of rewards holds a NaN; prints whether the update changed a weight."""

    def patch() -> None:
        import torch

        from fetchlab.algos.sac import SAC
        from fetchlab.envs.batched import BatchedGoalEnv
        from fetchlab.errors import NonFiniteError

        reward, update = BatchedGoalEnv.compute_reward, SAC.learn
        calls = iter(range(1, 1 << 30))

        def compute_reward(self: Any, *goals: Any) -> Any:
            rewards = reward(self, *goals)
            if next(calls) == call:
                rewards.view(-1)[0] = float("nan")
            return rewards

        def checked_update(self: Any, batch: Any) -> None:
            before = [parameter.detach().clone() for parameter in self.parameters()]
            try:
                update(self, batch)
            except NonFiniteError:
                same = all(map(torch.equal, before, self.parameters()))
                print("weights unchanged" if same else "WEIGHTS CHANGED", flush=True)
                raise

        BatchedGoalEnv.compute_reward, SAC.learn = compute_reward, checked_update

    return patch


def unstable_simulator() -> None:
    """Workers boot with a simulator that blows up: see `torture.worker_faults`."""
    from fetchlab.envs import link

    assert link._BOOT  # or nobody would read this one
    link._BOOT = "from torture.worker_faults import main; main()"


def torn_row(call: int) -> Patch:
    """Die within the ``call``-th write of rows, when one of their arrays is written."""

    def patch() -> None:
        from fetchlab.replay import storage

        inner, calls = storage.read_step, iter(range(1, 1 << 30))

        class Torn(dict):
            def items(self) -> Iterator[Any]:  # type: ignore[override]
                yield next(iter(super().items()))
                die()

        def read_step(*args: Any) -> Any:
            step = inner(*args)
            return step._replace(transition=Torn(step.transition)) if next(calls) == call else step

        storage.read_step = read_step

    return patch


def unwritable_commit(call: int) -> Patch:
    """From its ``call``-th commit on the run may not write to its folder of checkpoints."""

    def patch() -> None:
        from fetchlab.checkpoint import commit

        inner, calls = commit._write_folder, iter(range(1, 1 << 30))

        def write_folder(path: Path, content: Any) -> None:
            if next(calls) >= call:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            inner(path, content)

        commit._write_folder = write_folder

    return patch


def other_machine() -> None:
    """Another version of torch, another renderer."""
    from fetchlab import run

    inner = run.fingerprint

    def fingerprint(*args: Any) -> dict[str, Any]:
        found = inner(*args)
        found["versions"] = {**found["versions"], "torch": "1.0.0"}
        return {**found, "renderer": "another renderer"}

    run.fingerprint = fingerprint


def in_evaluation(job: Callable[[Any], object], call: int) -> Patch:
    """Before the ``call``-th step of all evaluations, do ``job(env)``."""

    def patch() -> None:
        from fetchlab.callbacks import evaluation

        inner, calls = evaluation.rollout, iter(range(1, 1 << 30))

        def rollout(env: Any, policy: Any, *args: Any, **kwargs: Any) -> Any:
            def disturbed(obs: Any) -> Any:
                if next(calls) == call:
                    job(env)
                return policy(obs)

            return inner(env, disturbed, *args, **kwargs)

        evaluation.rollout = rollout

    return patch


def no_trainer() -> None:
    """Die when the replay's files are there, and before the configuration is written."""
    from fetchlab import run

    run.build_trainer = die


def no_first_commit() -> None:
    """Die when everything is there but a checkpoint."""
    from fetchlab.checkpoint.torch_io import CommitCheckpointIO

    CommitCheckpointIO.save_checkpoint = die


def killed_at_every_disk_step(call: int, run_dir: Path, folder: Path, modes: list[str]) -> Patch:
    """At the ``call``-th commit, a copy of this process dies at each of its steps on disk.

    What each left behind is copied to ``folder / <mode>-<n>``; then the run goes on undisturbed.
    The victims are forked at that very commit, so that each costs milliseconds.
    """

    def patch() -> None:
        from fetchlab.checkpoint.torch_io import CommitCheckpointIO

        inner, calls = CommitCheckpointIO.save_checkpoint, iter(range(1, 1 << 30))

        def save_checkpoint(self: Any, checkpoint: Any, path: Any, storage_options: Any) -> None:
            if next(calls) == call:
                for mode in modes:
                    _die_at_each_step(lambda: inner(self, checkpoint, path), run_dir, folder, mode)
            inner(self, checkpoint, path, storage_options)

        CommitCheckpointIO.save_checkpoint = save_checkpoint

    return patch


def _die_at_each_step(commit: Callable[[], None], run_dir: Path, folder: Path, mode: str) -> None:
    before = folder / "before"
    for n in range(1, 1 << 30):
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(run_dir / "checkpoints", before)
        pid = os.fork()
        if pid == 0:
            _arm(n, mode)
            commit()
            os._exit(0)
        ended = os.WIFEXITED(os.waitpid(pid, 0)[1])
        if not ended:
            shutil.copytree(run_dir, folder / f"{mode}-{n}")
        shutil.rmtree(run_dir / "checkpoints")
        shutil.copytree(before, run_dir / "checkpoints")
        if ended:
            return


def _arm(n: int, mode: str) -> None:
    """Die ``before`` or ``after`` the n-th step on disk, or with half of it done (``torn``)."""
    steps = iter(range(1, 1 << 30))

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def step(*args: Any, **kwargs: Any) -> Any:
            if (name == "open" and not args[1] & os.O_CREAT) or next(steps) != n:
                return real(*args, **kwargs)
            if mode == "torn" and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            if mode == "after":
                real(*args, **kwargs)
            die()

        setattr(os, name, step)

    for name in DISK_STEPS:
        wrap(name)
