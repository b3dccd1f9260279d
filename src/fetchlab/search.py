"""A search: Optuna proposes runs, the launcher executes them, the study is a folder of runs.

Optuna directly, with its journal storage: Hydra's Optuna sweeper (1.3.0) demands Optuna below 3.

The journal has every proposal before its run begins, and a run's folder all that it learned. The
same command therefore keeps what has ended, continues the runs that were cut off, and proposes the
rest; one at a time, the same trials as without the cut: what the sampler draws for a trial depends
on the seed, the trial's number and the trials before it. With several at a time it depends on who
ends first, too.
"""

from __future__ import annotations

import importlib
import json
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from fetchlab import schema
from fetchlab.callbacks.evaluation import FILE_NAME as EVALUATION
from fetchlab.checkpoint.fingerprint import config_difference
from fetchlab.checkpoint.run_lock import RunLock
from fetchlab.checkpoint.signals import StopFlag
from fetchlab.durable import read_json, write_json
from fetchlab.errors import ConfigError, require
from fetchlab.launchers import Job
from fetchlab.launchers.local import Local
from fetchlab.report.search import STUDY
from fetchlab.requeue import requeue
from fetchlab.run_folder import quoted, require_writable
from fetchlab.search_space import check_space, compose, drawn
from fetchlab.sweep import (
    Planned,
    cause_of,
    folder_name,
    is_done,
    make_launcher,
    plan_jobs,
    section,
)

#: In the study's folder: Optuna's record.
JOURNAL = "study.log"
#: What a later command may change of a study.
MAY_CHANGE = ("search.trials", "run.run_dir", "run.trusted_modules")
#: Overrides that make a trial short, and no part of what it found.
_BUDGET = ("sweep", "total_env_steps", "debug", "hydra")
#: Fewer say nothing of which parameter mattered.
_ENOUGH = 4


def run_search(runs: Sequence[Planned]) -> int:
    """Search until there are as many trials as asked for, and return the exit code.

    Args:
        runs: the one whose neighbours are the trials.

    Raises:
        ConfigError: for what no search could be made with.
    """
    base, asked = runs[0], runs[0].asked.search
    assert asked is not None
    way = "leave the others out, or list them in search.space"
    require(len(runs) == 1, "sweep", f"{len(runs)} runs", "one value of each key", way)
    # It has to wait with a proposal for the results before it, and to end a run that is pruned.
    name = base.asked.launcher.get("_target_")
    says, way = "launcher=local for a search", "on a cluster: give the command in a job of its own"
    require(name == f"{Local.__module__}.{Local.__name__}", "launcher", name, says, way)
    launcher, root = cast(Local, make_launcher(base.asked.launcher)), base.folder.parent
    check_space(base, asked.space)
    optuna = _import_optuna()
    require_writable("run_dir", root, "choose another")
    with RunLock(root), StopFlag() as flag:
        study = Study(base, asked, optuna, launcher.cores_per_run)
        for job, code in launcher.launch(study.jobs(), flag, study.prunes):
            study.end(job, code, flag.stop)
        return study.report(flag)


@dataclass
class _Open:
    """A trial that has not ended."""

    trial: Any
    run: Planned
    overrides: tuple[str, ...]
    reported: int  # env steps of the newest evaluation that Optuna has
    judged: int  # and of the newest that the pruner was asked about
    pruned: bool = False


class Study:
    """Asks Optuna for trials, and tells it what became of their runs.

    Raises:
        ConfigError: the folder has another study, or the disk is too small.
    """

    def __init__(self, base: Planned, asked: schema.Search, optuna: Any, cores: int | None) -> None:
        self._base, self._asked, self._optuna, self._cores = base, asked, optuna, cores
        self._root = base.folder.parent
        self._study = self._load()
        self._open: list[_Open] = []
        self._failed = 0  # under this command
        ended, cut = len(self._trials("COMPLETE", "PRUNED")), len(self._trials("RUNNING"))
        new = max(asked.trials - ended - cut, 0)
        found = f"{ended} ended before, {cut} to go on with, {new} to propose"
        print(f"search    {asked.trials} trials in {quoted(self._root)}: {found}", flush=True)
        plan_jobs([base] * (cut + new), cores)  # whether the disk holds them all

    def jobs(self) -> Iterator[Job]:
        """Trials that were cut off, then new ones, each proposed when it is asked for."""
        for one in self._trials("RUNNING"):
            self._seed(one.number)
            # The newest evaluation is judged again: the cut may have come just before its verdict.
            steps = [-1, -1, *sorted(one.intermediate_values)]
            trial = self._optuna.Trial(self._study, one._trial_id)
            yield from self._begin(trial, steps[-1], steps[-2])
        while self._left() > 0:
            self._seed(len(self._study.trials))
            yield from self._begin(self._study.ask())

    def prunes(self, job: Job) -> bool:
        """Whether the pruner wants no more of a running job, by its evaluations so far."""
        return all([self._watch(one) for one in self._open if one.run.folder == job.folder])

    def end(self, job: Job, code: int | None, stopped: bool) -> None:
        """Record what became of a job, unless it was stopped and is to go on."""
        for one in [one for one in self._open if one.run.folder == job.folder]:
            done, pruned = is_done(one.run), self._watch(one)
            curve = read_json(job.folder / EVALUATION, list)
            if stopped and not (done or pruned):
                continue
            self._open.remove(one)
            if pruned:
                self._study.tell(one.trial, state=self._optuna.trial.TrialState.PRUNED)
                text = f"below the median at {one.judged:,} env steps"
                self._say("pruned", one.trial, text, one.overrides)
            elif done and curve:
                one.trial.set_user_attr("return", curve[-1]["return"])
                self._study.tell(one.trial, self._value(curve))
                text = f"{self._sought} {self._value(curve):.4g}"
                self._say("finished", one.trial, text, one.overrides)
            else:
                cause = "no evaluation" if done else cause_of(job.folder, code)
                self._fail(one.trial, one.overrides, cause)

    def report(self, flag: StopFlag) -> int:
        """Name the best, and return the exit code."""
        found = self._write()
        if best := found["best"]:
            text = f"{self._sought} {best['value']:.4g}, {' '.join(best['overrides'])}"
            print(f"best      trial {best['number']}: {text}")
            print(f"          {quoted(self._root / best['run'])}; all are in {STUDY} beside it")
            print(f"in full   {best['command']}", flush=True)
        if flag.stop:
            print(f"stopped by {flag.reason}: the same command goes on", flush=True)
            requeue(str(flag.reason))
            return 128 + signal.Signals[str(flag.reason)].value
        if self._failed:
            again = "the same command draws others in their place"
            print(f"error: {self._failed} of the trials failed; {again}", file=sys.stderr)
        return 1 if self._failed else 0

    def _load(self) -> Any:
        """The folder's study, or a new one; what a killed process left half done is mended."""
        optuna, path = self._optuna, self._root / JOURNAL
        # Nobody else is here, see `RunLock`: Optuna would wait half a minute for a dead process.
        Path(f"{path}.lock").unlink(missing_ok=True)
        if path.exists():
            written = path.read_bytes()
            with path.open("r+b") as file:  # a line that is cut short would spoil the next one
                file.truncate(written.rfind(b"\n") + 1)
        pruner: Any = optuna.pruners.NopPruner()
        if (told := self._asked.pruner) is not None:
            pruner = optuna.pruners.MedianPruner(told.startup_trials, told.warmup_env_steps)
        backend = optuna.storages.journal.JournalFileBackend(str(path))
        study = optuna.create_study(
            study_name="search",
            storage=optuna.storages.JournalStorage(backend),
            direction=self._asked.direction,
            pruner=pruner,
            load_if_exists=True,
        )
        asked = json.loads(json.dumps({"run": self._base.cfg, "search": asdict(self._asked)}))
        lines = config_difference(study.user_attrs.get("asked", asked), asked, MAY_CHANGE)
        expected = "a folder without a study, or with this one"
        way = f"it differs in {'; '.join(lines)}; give another run_dir"
        require(not lines, "run_dir", str(self._root), expected, way)
        study.set_user_attr("asked", asked)
        return study

    def _seed(self, number: int) -> None:
        """A seed for each trial: a stream for all would begin anew in each process."""
        seed = np.random.SeedSequence([self._asked.seed, number]).generate_state(1)
        self._study.sampler = self._optuna.samplers.TPESampler(
            n_startup_trials=self._asked.startup_trials, seed=int(seed[0])
        )

    @property
    def _sought(self) -> str:
        return f"{self._asked.of} {self._asked.metric}"

    def _trials(self, *states: str) -> list[Any]:
        return [one for one in self._study.trials if one.state.name in states]

    def _left(self) -> int:
        ended = len(self._trials("COMPLETE", "PRUNED"))
        return self._asked.trials - ended - len(self._open) - self._failed

    def _begin(self, trial: Any, reported: int = -1, judged: int = -1) -> Iterator[Job]:
        """The trial's job, if there is something to do."""
        overrides = drawn(trial, self._asked.space)
        trial.set_user_attr("overrides", overrides)
        try:
            cfg = compose(self._base, overrides)
            run = replace(
                self._base,
                cfg=cfg,
                folder=self._root / folder_name(cfg),
                overrides=(*self._base.overrides, *overrides),
            )
            trial.set_user_attr("run", run.folder.name)
            jobs, causes = plan_jobs([run], self._cores)
        except ConfigError as error:
            self._fail(trial, overrides, str(error))
            return
        if causes:
            self._fail(trial, overrides, causes[run.folder.name])
            return
        twin = any(one.run.folder == run.folder for one in self._open)
        self._open.append(_Open(trial, run, overrides, reported, judged))
        if is_done(run):
            self.end(jobs[0], 0, stopped=False)
        elif not twin:  # one run is enough for both
            yield from jobs

    def _watch(self, one: _Open) -> bool:
        """Report evaluations that are new; whether the pruner stops the trial.

        A verdict stands whatever the run has done since: it must not depend on who was quicker.
        """
        curve = read_json(one.run.folder / EVALUATION, list)
        for index, evaluation in enumerate(curve):
            at = evaluation["env_steps"]
            if one.pruned or at <= one.judged:
                continue
            if at > one.reported:
                one.trial.report(self._value(curve[: index + 1]), at)
                one.reported = at
            one.judged = at
            one.pruned = at < one.run.cfg["total_env_steps"] and one.trial.should_prune()
        return one.pruned

    def _value(self, curve: Sequence[Mapping[str, Any]]) -> float:
        """What a run is judged by, had it ended with the last of these evaluations."""
        values = [float(one[self._asked.metric]) for one in curve]
        best = max if self._asked.direction == "maximize" else min
        means = {"last": values[-1], "best": best(values), "mean": float(np.mean(values))}
        return means[self._asked.of]

    def _fail(self, trial: Any, overrides: Sequence[str], cause: str) -> None:
        self._failed += 1
        trial.set_user_attr("cause", cause)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        self._say("failed", trial, cause, overrides)

    def _say(self, word: str, trial: Any, text: str, overrides: Sequence[str]) -> None:
        print(f"{word:9} trial {trial.number}: {text} ({' '.join(overrides)})", flush=True)
        self._write()

    def _write(self) -> dict[str, Any]:
        """``study.json``: all trials and the best, for whoever has no Optuna."""
        rows = [
            {
                "number": one.number,
                "state": one.state.name.lower(),
                "value": one.value,
                "return": one.user_attrs.get("return"),
                "env_steps": max(one.intermediate_values, default=0),
                "params": one.params,
                "overrides": list(one.user_attrs.get("overrides", ())),
                "run": one.user_attrs.get("run"),
                "cause": one.user_attrs.get("cause"),
            }
            for one in self._study.trials
        ]
        sign = 1 if self._asked.direction == "maximize" else -1
        complete = [row for row in rows if row["state"] == "complete"]
        # Of equal ones the one with more return, of those the first.
        best = max(complete, key=lambda row: (sign * row["value"], row["return"]), default=None)
        found = {
            **{key: getattr(self._asked, key) for key in ("metric", "of", "direction")},
            "experiment": self._base.cfg["experiment"],
            "total_env_steps": self._base.cfg["total_env_steps"],
            "best": best and {**best, "command": self._command(best["overrides"])},
            "importances": self._importances(),
            "trials": rows,
        }
        write_json(self._root / STUDY, found)
        return found

    def _command(self, overrides: Sequence[str]) -> str:
        """That trains with these, as long as the experiment says."""
        given = [one for one in self._base.overrides if section(one) not in _BUDGET]
        return shlex.join(["python", "src/train.py", *given, *overrides])

    def _importances(self) -> dict[str, float]:
        """Shares that add up to 1, by PED-ANOVA (arXiv 2304.10255), which needs no scikit-learn."""
        values = [one.value for one in self._trials("COMPLETE")]
        if len(values) < _ENOUGH or len({*values}) < 2:
            return {}
        by = self._optuna.importance
        found = by.get_param_importances(self._study, evaluator=by.PedAnovaImportanceEvaluator())
        return {key: float(share) for key, share in found.items()}


def _import_optuna() -> Any:
    try:
        optuna = importlib.import_module("optuna")
    except ModuleNotFoundError as error:
        way = "pip install -e '.[optuna]'"
        raise ConfigError("search", "Optuna", "an installed package", way) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
