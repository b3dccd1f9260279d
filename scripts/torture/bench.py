"""The short run that everything is held against, uninterrupted, and its half, killed midway."""

from __future__ import annotations

import csv
import random
import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from run_hash import run_hash

from torture.victims import Outcome, Victim, copy

#: A ring of 110 rows that 840 env steps of two environments wrap 3.9 times; every resume compares
#: every row with its checksum.
ARGS = (
    "debug=default",
    "algo.utd_ratio=0.25",
    "algo.hidden=[32,32]",
    "replay.capacity=100",
    "replay.margin_env_steps=2",
    "replay.verify=full",
    "collect.n_envs=2",
    "collect.workers=1",
    "collect.learning_starts=100",
    "callbacks.log_every_env_steps=60",
    "callbacks.evaluation.every_env_steps=420",
    "callbacks.evaluation.episodes=2",
    "trainer=cpu",
    "trainer.threads=1",
)
KINDS = {
    "state": ("experiment=state_push", "algo.batch_size=8", *ARGS),
    "pixel": ("experiment=pixel_push_nodrq", "algo.batch_size=4", "encoder.filters=8", *ARGS),
}
TOTAL, HALF = 840, 360
SHORT_PIXEL_TOTAL = 420  # pictures are slow without a GPU


class Result(NamedTuple):
    """What was seen, and whether it is what must happen; None where this machine cannot tell."""

    ok: bool | None
    seen: str


@dataclass
class Bench:
    """Two finished runs of one kind, and a place for their copies.

    Attributes:
        kind: ``state`` or ``pixel``.
        folder: scratch, of one row's part.
        reference: the uninterrupted run's folder, with its H, and the seconds that it trained.
        half: a run killed midway; of pixels, in the full version only.
        resume_s: seconds from the start of a resume to its first new row of metrics.
        full: whether to be thorough.
        rng: seeded by row and part.
    """

    kind: str
    folder: Path
    reference: Path
    half: Path
    h: str = ""
    train_s: float = 0.0
    resume_s: float = 0.0
    full: bool = False
    rng: random.Random = field(default_factory=random.Random)

    def run(self, *more: str, run_dir: Path, **victim: object) -> Victim:
        """Start a new run."""
        short = self.kind == "pixel" and not self.full
        total = SHORT_PIXEL_TOTAL if short else TOTAL
        args = [*KINDS[self.kind], f"total_env_steps={total}", *more, f"run_dir={run_dir}"]
        return self.command(args, **victim)

    def resume(self, run_dir: Path, *more: str, **victim: object) -> Victim:
        """Start a resume."""
        return self.command([f"resume={run_dir}", *more], **victim)

    def command(
        self,
        args: list[str],
        fault: Callable[[], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Victim:
        """Start any command line of `src/train.py`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = len(list(self.folder.glob("*.log")))
        return Victim(args, self.folder / f"{number}.log", fault, environment)

    def copy_half(self, name: str = "half") -> Path:
        """A fresh copy of the run that was killed midway."""
        return copy(self.half, self.folder / name)

    def same(self, run_dir: Path) -> bool:
        """Resume to the end: whether H is the uninterrupted run's.

        Raises:
            RuntimeError: it did not finish.
        """
        done = self.resume(run_dir).wait()
        if done.rc != 0:
            raise RuntimeError(f"the resume ended with {done.rc}:\n{done.text}")
        return run_hash(run_dir)["H"] == self.h

    def verdict(self, run_dir: Path, ok: bool, seen: str, always: bool = False) -> Result:
        """What was seen so far and, in the full version, that the resumed run has the same H."""
        if not (self.full or always):
            return Result(ok, seen)
        same = self.same(run_dir)
        return Result(ok and same, f"{seen}; after the resume {'same H' if same else 'ANOTHER H'}")

    def show(self, text: str) -> str:
        """``text`` without what differs between machines."""
        line = " ".join(text.split())
        for path in (self.folder, self.folder.parent, self.folder.parent.parent):
            line = line.replace(str(path), "...")
        line = re.sub(r"(pid|process) \d+", r"\1 ...", line)
        return line.removeprefix("error: ")[:240]


def logged(run_dir: Path) -> list[int]:
    """``env_steps`` of the complete rows of metrics."""
    path = run_dir / "metrics.csv"
    if not path.exists():
        return []
    whole = path.read_text().rpartition("\n")[0].splitlines()
    return [int(row[0]) for row in csv.reader(whole[1:])]


def reached(run_dir: Path, env_steps: int) -> Callable[[], bool]:
    """Whether the run has logged that many env steps."""
    return lambda: max(logged(run_dir), default=-1) >= env_steps


def checkpoints(run_dir: Path) -> list[int]:
    """Env steps of the checkpoints that are there under their final names, oldest first."""
    names = [path.name for path in (run_dir / "checkpoints").glob("step_*")]
    return sorted(int(name.split("_")[1]) for name in names)


def prepare(kind: str, folder: Path, full: bool) -> Bench:
    """Make the reference and the half of one kind.

    Raises:
        RuntimeError: the uninterrupted run did not finish, or is not repeatable.
    """
    bench = Bench(kind, folder / "prepare", folder / "reference", folder / "half", full=full)
    victim = bench.run(run_dir=bench.reference)
    began = victim.wait_for(lambda: bool(checkpoints(bench.reference)))
    done = finished(victim)
    bench.train_s = done.seconds - began
    bench.h = run_hash(bench.reference)["H"]
    if kind == "pixel" and not full:
        return bench
    victim = bench.run(run_dir=bench.half)
    victim.wait_for(lambda: max(checkpoints(bench.half), default=0) > HALF)
    victim.signal(signal.SIGKILL)
    victim.wait()
    copied = bench.copy_half()
    before = max(logged(copied))
    victim = bench.resume(copied)
    bench.resume_s = victim.wait_for(reached(copied, before + 60))
    finished(victim)
    if run_hash(copied)["H"] != bench.h:
        raise RuntimeError(f"{kind}: a run killed midway and resumed has another H")
    return bench


def finished(victim: Victim) -> Outcome:
    """Wait for a run that must finish."""
    done = victim.wait()
    if done.rc != 0:
        raise RuntimeError(f"a run that nothing disturbed ended with {done.rc}:\n{done.text}")
    return done
