"""A sweep: Hydra's sweeper makes a list of runs, a launcher executes it, folders are the result.

A run's folder is named by its configuration and its seed, never by the clock, and each run is
started with ``resume=auto``: the same command skips what is finished and continues the rest.
"""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
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
from fetchlab.preflight.budget import MAIN_PROCESS_BYTES, format_bytes, free_disk_bytes
from fetchlab.preflight.sizes import (
    CHECKPOINT_BYTES,
    Memory,
    threads_and_workers,
    trains_on_cuda,
)
from fetchlab.replay.layout import plan_layout
from fetchlab.requeue import requeue
from fetchlab.run_folder import ended, quoted, require_writable, summary_of
from fetchlab.teacher import with_teacher

#: What the command of one run does not take over from the sweep's.
_OF_THE_SWEEP = ("run_dir", "resume", "launcher")
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
    name = f"{cfg['experiment']}_{config.config_hash(cfg)}_s{cfg['seed']}".replace("/", "_")
    overrides = [one for one in hydra.overrides.task if _key(one) not in _OF_THE_SWEEP]
    folders = [s.path for s in hydra.runtime.config_sources if s.provider == "command-line"]
    flags = [flag for folder in folders for flag in ("--config-dir", folder)]
    return Planned(
        cfg,
        root.resolve() / name,
        # A sweep's file may set more than the sweeper's parameters.
        (*flags, *overrides, "hydra.mode=RUN"),
        asked,
    )


def run_sweep(runs: Sequence[Planned]) -> int:
    """Execute the list, say what became of each run, and return the exit code.

    Raises:
        ConfigError: for what no run could be started with.
    """
    launcher = _launcher(runs[0].asked.launcher)
    _refuse_twins(runs)
    for root in {one.folder.parent for one in runs}:
        require_writable("run_dir", root, "choose another")
    causes: dict[str, str] = {}
    before = [one for one in runs if _done(one)]
    jobs, disk = [], 0
    for one in (one for one in runs if one not in before):
        try:
            job, job_disk = _job(one, launcher.cores_per_run)
        except ConfigError as error:
            causes[one.folder.name] = str(error)
        else:
            jobs.append(job)
            disk += job_disk
    where = ", ".join(sorted({quoted(one.folder.parent) for one in runs}))
    found = f"{len(before)} finished before, {len(jobs)} to do"
    print(f"sweep     {len(runs)} runs in {where}: {found}", flush=True)
    _check_disk(jobs, disk)
    by_folder = {one.folder: one for one in runs}
    with StopFlag() as flag:
        for job, code in launcher.launch(jobs, flag):
            name, run = job.folder.name, by_folder[job.folder]
            if _done(run):
                print(f"finished  {name}: {_result(job.folder)}", flush=True)
            elif not flag.stop:
                causes[name] = _cause(job.folder, code)
                print(f"failed    {name}: {causes[name]}", flush=True)
    return _report(runs, causes, flag)


def _report(runs: Sequence[Planned], causes: Mapping[str, str], flag: StopFlag) -> int:
    if flag.stop:
        left = sum(not _done(one) for one in runs)
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


def _launcher(node: Mapping[str, Any]) -> Launcher:
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


def _job(run: Planned, cores: int | None) -> tuple[Job, int]:
    """What a launcher needs to know of a run, and the bytes of disk that it takes.

    Raises:
        ConfigError: for a configuration that cannot work.
    """
    checked = config.check(with_teacher(run.cfg))
    threads, workers = threads_and_workers(checked, cores)
    told = replace(
        checked,
        trainer=replace(checked.trainer, threads=threads),
        collect=replace(checked.collect, workers=workers),
    )
    spec = open_env(task_spec(told), render=False).env_spec
    memory = Memory(told, build_module(told, spec), AT_ONCE).total_bytes()
    # The run's own check asks for all of it when its first process is there already.
    job = Job(
        run.folder,
        run.command,
        threads + workers,
        memory + MAIN_PROCESS_BYTES,
        trains_on_cuda(checked) or checked.trainer.accelerator == "gpu",
    )
    present = sum(file.stat().st_size for file in (run.folder / "replay").glob("*.bin"))
    disk = plan_layout(row_spec(told, spec), replay_size(told)).disk_bytes()
    kept = 0 if run.asked.paths.scratch else max(disk - present, 0)
    return job, kept + CHECKPOINT_BYTES


def _check_disk(jobs: Sequence[Job], needed: int) -> None:
    free = free_disk_bytes(jobs[0].folder) if jobs else needed
    expected = f"at most {format_bytes(free)}, which are free there, and the runs need "
    way = "free the disk, lower replay.capacity, or choose another run_dir"
    root = str(jobs[0].folder.parent) if jobs else ""
    require(needed <= free, "run_dir", root, expected + format_bytes(needed), way)


def _done(run: Planned) -> bool:
    return ended(run.folder, run.cfg["total_env_steps"]) is not None


def _result(folder: Path) -> str:
    summary = summary_of(folder)
    return f"success {summary['success_rate']:.0%} after {summary['env_steps']:,} env steps"


def _cause(folder: Path, code: int | None) -> str:
    """Why a run has not finished: its own last line, or what killed it."""
    where = f"see {quoted(folder / OUTPUT)}"
    if code is not None and code < 0:
        return f"killed by {signal.Signals(-code).name}; {where}"
    lines = [line for line in _last_lines(folder / OUTPUT) if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{(errors or lines or ['it said nothing'])[-1].strip()}; {where}"


def _last_lines(path: Path) -> Iterator[str]:
    try:
        yield from path.read_bytes()[-_SHOWN_BYTES:].decode(errors="replace").splitlines()
    except OSError:
        return


def _own(run: Planned, runs: Sequence[Planned]) -> list[str]:
    """The overrides that not all runs have."""
    return [shlex.quote(o) for o in run.overrides if not all(o in one.overrides for one in runs)]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").partition(".")[0].partition("@")[0]
