"""A sweep: Hydra's sweeper makes a list of runs, a launcher executes it, folders are the result.

A run's folder is named by its configuration and its seed, never by the clock, and each run is
started with ``resume=auto``: the same command skips what is finished and continues the rest.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from fetchlab import config, schema
from fetchlab.algos.steps import AT_ONCE
from fetchlab.build import build_module, replay_size, row_spec, swap_in, task_spec
from fetchlab.checkpoint.safe_config import allowed_targets
from fetchlab.checkpoint.signals import StopFlag
from fetchlab.conform import Conform
from fetchlab.envs.goal_env import open_env
from fetchlab.errors import ConfigError, require
from fetchlab.fields import Target
from fetchlab.launchers import OUTPUT, Job, Launcher
from fetchlab.overrides import literal
from fetchlab.preflight.budget import format_bytes, free_disk_bytes
from fetchlab.preflight.sizes import (
    MAIN_PROCESS_BYTES,
    Memory,
    disk_needed,
    threads_and_workers,
    trains_on_cuda,
)
from fetchlab.replay.layout import plan_layout
from fetchlab.requeue import requeue
from fetchlab.run_folder import ended, quoted, require_writable, summary_of
from fetchlab.teacher import with_teacher

#: What the command of one run does not take over from the sweep's.
_OF_THE_SWEEP = ("run_dir", "resume", "launcher", "search")
_SHOWN_BYTES = 4096


@dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Attributes:
        cfg: composed, unchecked.
        folder: absolute.
        overrides: that make it, as Hydra reads them.
        asked: of the command, composed with it.
    """

    cfg: dict[str, Any]
    folder: Path
    overrides: tuple[str, ...]
    asked: schema.Start

    @property
    def command(self) -> tuple[str, ...]:
        """Starts, continues, or returns at once."""
        place = literal([f"run_dir={self.folder}"], ["run_dir"])
        train = str(config.ROOT / "src" / "train.py")
        return (sys.executable, train, *self.overrides, *place, "resume=auto")


def planned(plain: Mapping[str, Any]) -> Planned:
    """The run that Hydra's sweeper has just composed.

    It lies in ``run_dir``, or in ``logs/sweeps/<sweep>``, under a name that its configuration and
    its seed alone decide.

    Raises:
        ConfigError: for a key of the command that does not fit.
    """
    asked, cfg = config.split(plain)
    hydra, given = HydraConfig.get(), cfg["run_dir"]
    require(given is None or isinstance(given, str), "run_dir", given, "a folder, or null", "quote")
    root = Path(given or hydra.sweep.dir)
    if not given and (sweep := hydra.runtime.choices.get("sweep")):
        root /= sweep
    overrides = [one for one in hydra.overrides.task if section(one) not in _OF_THE_SWEEP]
    folders = [s.path for s in hydra.runtime.config_sources if s.provider == "command-line"]
    flags = [flag for folder in folders for flag in ("--config-dir", folder)]
    searched = [one for one in hydra.overrides.hydra if one.startswith("hydra.searchpath=")]
    return Planned(
        cfg,
        root.resolve() / folder_name(cfg),
        # A sweep's file may set more than the sweeper's parameters.
        (*flags, *searched, *overrides, "hydra.mode=RUN"),
        asked,
    )


def folder_name(cfg: Mapping[str, Any]) -> str:
    """Of a run: what its configuration and its seed alone decide."""
    name = f"{cfg['experiment']}_{config.config_hash(cfg)}_s{cfg['seed']}"
    return name.replace("/", "_")


def run_sweep(runs: Sequence[Planned]) -> int:
    """Execute the list, say what became of each run, and return the exit code.

    Raises:
        ConfigError: for what no run could be started with.
    """
    launcher = make_launcher(runs[0].asked.launcher)
    _refuse_twins(runs)
    for root in {one.folder.parent for one in runs}:
        require_writable("run_dir", root, "choose another")
    left = [one for one in runs if not is_done(one)]
    jobs, causes = plan_jobs(left, launcher.cores_per_run)
    where = ", ".join(sorted({quoted(one.folder.parent) for one in runs}))
    found = f"{len(runs) - len(left)} finished before, {len(jobs)} to do"
    print(f"sweep     {len(runs)} runs in {where}: {found}", flush=True)
    by_folder = {one.folder: one for one in runs}
    with StopFlag() as flag:
        for job, code in launcher.launch(jobs, flag):
            name, run = job.folder.name, by_folder[job.folder]
            if is_done(run):
                print(f"finished  {name}: {_result(job.folder)}", flush=True)
            elif not flag.stop:
                causes[name] = cause_of(job.folder, code)
                print(f"failed    {name}: {causes[name]}", flush=True)
    return _report(runs, causes, flag)


def _report(runs: Sequence[Planned], causes: Mapping[str, str], flag: StopFlag) -> int:
    if flag.stop:
        left = sum(not is_done(one) for one in runs)
        print(
            f"stopped by {flag.reason}, {left} runs are left: the same command goes on", flush=True
        )
        requeue(str(flag.reason))
        return 128 + signal.Signals[str(flag.reason)].value
    for one in runs:
        if cause := causes.get(one.folder.name):
            print(
                f"error: {one.folder.name} ({' '.join(_own(one, runs))}): {cause}", file=sys.stderr
            )
    if causes:
        again = "the same command tries these again, and no others"
        print(f"error: {len(causes)} of {len(runs)} runs failed; {again}", file=sys.stderr)
    return 1 if causes else 0


def make_launcher(node: Mapping[str, Any]) -> Launcher:
    """What ``launcher`` names.

    Raises:
        ConfigError: for a key that does not fit, or a launcher that cannot work here.
    """
    targets = allowed_targets(config.CONFIGS)
    Conform(Target, targets).check(node, Target, "launcher")
    launcher: Launcher = swap_in(node)
    return launcher


def _refuse_twins(runs: Sequence[Planned]) -> None:
    """Two runs in one folder: nothing that a folder's name says tells them apart."""
    folders = [one.folder for one in runs]
    for one in runs:
        same = folders.count(one.folder) > 1
        says = "runs that differ in more than total_env_steps"
        require(not same, "sweep", " ".join(one.overrides), says, "leave one of them out")


def plan_jobs(runs: Sequence[Planned], cores: int | None) -> tuple[list[Job], dict[str, str]]:
    """What a launcher needs to know of each run, and by name why others cannot work.

    Raises:
        ConfigError: all together do not fit on the disk.
    """
    jobs, causes, known, disk = [], dict[str, str](), dict[str, tuple[Job, int]](), 0
    for run in runs:
        same = f"{config.config_hash(run.cfg)} {run.cfg['total_env_steps']}"  # but for the seed
        try:
            job, replay_bytes = known[same] = known.get(same) or _needs(run, cores)
        except ConfigError as error:
            causes[run.folder.name] = str(error)
            continue
        jobs.append(replace(job, folder=run.folder, command=run.command))
        disk += disk_needed(run.folder, 0 if run.asked.paths.scratch else replay_bytes)
    if jobs:
        root, free = jobs[0].folder.parent, free_disk_bytes(jobs[0].folder)
        says = f"a disk with {format_bytes(disk)} for the runs, and {format_bytes(free)} are free"
        way = "free some, lower replay.capacity, or choose another run_dir"
        require(disk <= free, "run_dir", str(root), says, way)
    return jobs, causes


def _needs(run: Planned, cores: int | None) -> tuple[Job, int]:
    """The job by the preflight's sums, for a process that may use so many cores; replay bytes."""
    checked = config.check(with_teacher(run.cfg))
    threads, workers = threads_and_workers(checked, cores)
    told = replace(
        checked,
        trainer=replace(checked.trainer, threads=threads),
        collect=replace(checked.collect, workers=workers),
    )
    spec = open_env(task_spec(told), render=False).env_spec
    memory = Memory(told, build_module(told, spec), AT_ONCE).total_bytes()
    memory += MAIN_PROCESS_BYTES  # the run checks its own when that process is there already
    gpu = trains_on_cuda(checked) or checked.trainer.accelerator == "gpu"
    replay_bytes = plan_layout(row_spec(told, spec), replay_size(told)).disk_bytes()
    return Job(run.folder, run.command, threads + workers, memory, gpu), replay_bytes


def is_done(run: Planned) -> bool:
    """Whether it is finished, or ended by one of its callbacks."""
    return ended(run.folder, run.cfg["total_env_steps"]) is not None


def _result(folder: Path) -> str:
    summary = summary_of(folder)
    rate = summary["success_rate"]  # None where a callback ended it before its first evaluation
    success = "no evaluation" if rate is None else f"success {rate:.0%}"
    return f"{success} after {summary['env_steps']:,} env steps"


def cause_of(folder: Path, code: int | None) -> str:
    """Why a run has not finished: its own last line, or what killed it."""
    where = f"see {quoted(folder / OUTPUT)}"
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}; {where}"
    said = b""
    with suppress(OSError):  # what cannot be read has said nothing
        said = (folder / OUTPUT).read_bytes()[-_SHOWN_BYTES:]
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{(errors or lines or ['it said nothing'])[-1].strip()}; {where}"


def _own(run: Planned, runs: Sequence[Planned]) -> list[str]:
    """The overrides that not all runs have."""
    return [shlex.quote(o) for o in run.overrides if not all(o in one.overrides for one in runs)]


def section(override: str) -> str:
    """Of an override: the first part of its key."""
    return override.partition("=")[0].lstrip("+~").partition(".")[0].partition("@")[0]
