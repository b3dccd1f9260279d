"""One run: from a checked configuration to a finished, stopped or failed run folder."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.loggers import WandbLogger
from torch import nn

from fetchlab import config
from fetchlab.build import Parts, build_parts, build_trainer
from fetchlab.callbacks import find
from fetchlab.callbacks.checkpoints import Checkpoints
from fetchlab.callbacks.evaluation import Evaluation
from fetchlab.callbacks.stopping import Stopping
from fetchlab.checkpoint.find import newest_valid, warn_of_strangers
from fetchlab.checkpoint.fingerprint import config_difference, fingerprint
from fetchlab.checkpoint.manifest import CheckpointError, unlisted
from fetchlab.checkpoint.run_lock import RunLock
from fetchlab.checkpoint.signals import STOP_SIGNALS
from fetchlab.checkpoint.torch_io import load_weights, read_payload
from fetchlab.durable import write_json
from fetchlab.envs.pool import WorkerError
from fetchlab.errors import ConfigError, NonFiniteError, RunFailedError, require
from fetchlab.preflight import numerics
from fetchlab.preflight.renderer import choose_renderer
from fetchlab.preflight.sizes import collecting_workers, learner_threads, trains_on_cuda
from fetchlab.replay.files import LAYOUT_FILE, ReplayError
from fetchlab.requeue import require_progress
from fetchlab.run_folder import (
    choose_run_dir,
    claimed,
    ended,
    finished,
    has_checkpoint,
    quoted,
    require_run,
)
from fetchlab.run_report import announce, learned, summarize, write_config
from fetchlab.schema import Run
from fetchlab.scratch import carry_replay, lost_replay, place_replay, placed_replay
from fetchlab.teacher import taught_by, teacher_as_path, with_teacher

#: What a resume may change without `force_resume`.
MAY_CHANGE = (
    *("total_env_steps", "run_dir", "trusted_modules"),
    # Of the trainer what changes no number, or what the fingerprint tells.
    *("trainer.accelerator", "trainer.cuda_graphs"),
    *("trainer.threads", "trainer.deterministic", "trainer.tf32", "trainer.compile"),
    *("callbacks.evaluation", "callbacks.progress_refresh_s", "callbacks.progress"),
    *("callbacks.milestones", "callbacks.milestones_of"),
)
#: Causes that are reported in one line; anything else is a defect and keeps its traceback.
STOPS_A_RUN = (WorkerError, NonFiniteError, ReplayError, CheckpointError, OSError)


def start(cfg: Mapping[str, Any], scratch: str | None = None) -> dict[str, Any]:
    """Run a new experiment to its end, and return its summary.

    Args:
        cfg: resolved; plain or OmegaConf's.
        scratch: where its replay lies; None: in its folder.

    Raises:
        ConfigError: for a configuration that cannot work.
        RunFailedError: for a run that cannot go on, or a folder that another process uses.
    """
    cfg = with_teacher(config.plain(cfg))
    run = config.check(cfg)
    run_dir = choose_run_dir(cfg, datetime.now())
    with claimed(run_dir), _in_one_line(run_dir), placed_replay(run_dir, scratch):
        return _run(run, cfg, run_dir, checkpoint=None, record=_record(run, cfg))


def resume(run_dir: str | Path, changes: Mapping[str, Any], force: bool) -> dict[str, Any]:
    """Continue a run exactly where its newest valid checkpoint left it.

    Args:
        run_dir: the run's folder; it may have been moved.
        changes: values that replace the run's own, by dotted key; any of `MAY_CHANGE`. What
            ``trusted_modules`` are is not taken from the run's folder.
        force: continue although versions, threads, renderer or configuration differ; recorded.

    Raises:
        ConfigError: for a configuration that changed, or one that names what is not allowed.
        RunFailedError: for nothing valid to resume, files that are damaged, a run that cannot go
            on, or a folder that another process uses.
    """
    changes = {"trusted_modules": [], **changes}
    if "callbacks.progress_refresh_s" in changes:  # which a stored configuration has resolved
        changes["callbacks.progress.refresh_s"] = changes["callbacks.progress_refresh_s"]
    trusted = changes["trusted_modules"]
    return _continue(
        Path(run_dir), trusted, lambda own: config.changed(own, changes), finished, force
    )


def start_or_resume(
    cfg: Mapping[str, Any], force: bool, scratch: str | None = None
) -> dict[str, Any]:
    """Run an experiment to its end, whatever its folder holds of it: the same call each time.

    Where there is no checkpoint it starts, where there is one it goes on from the newest valid one,
    and where the run is finished, or ended by one of its callbacks, it returns at once.

    Args:
        cfg: as for `start`, with a ``run_dir``.
        force: as for `resume`.
        scratch: where its replay shall lie, to which it is carried; None: where it is.

    Raises:
        ConfigError: the folder has a run of another configuration; and as `start` and `resume`.
        RunFailedError: as `start` and `resume`.
    """
    cfg = config.plain(cfg)
    way = "give run_dir=DIR beside it, a folder that does not depend on the time"
    require(cfg["run_dir"] is not None, "resume", "auto", "the run's folder", way)
    run_dir = choose_run_dir(cfg, datetime.now())
    require_progress(run_dir)
    if not has_checkpoint(run_dir):
        return start(cfg, scratch)

    def asked(own: Mapping[str, Any]) -> dict[str, Any]:
        # Forced, too: the teacher that it has learned from is in its checkpoints.
        its_own = isinstance(own.get("teacher"), Mapping) and (force or taught_by(own, cfg))
        new = {**cfg, "teacher": own["teacher"]} if its_own else dict(cfg)
        lines = config_difference(teacher_as_path(own, new), new, MAY_CHANGE)
        expected = "a folder without a run, or with one of this configuration"
        way = f"it differs in {'; '.join(lines)}; give another run_dir, or force_resume=true"
        require(force or not lines, "run_dir", str(run_dir), expected, way)
        return new

    return _continue(run_dir, cfg["trusted_modules"], asked, ended, force, scratch)


def _continue(
    run_dir: Path,
    trusted: Sequence[str],
    asked: Callable[[Mapping[str, Any]], dict[str, Any]],
    done: Callable[[Path, int], dict[str, Any] | None],
    force: bool,
    scratch: str | None = None,
) -> dict[str, Any]:
    """Go on with what ``asked`` makes of the run's own configuration, unless it is ``done``."""
    require_run("resume", run_dir)
    with RunLock(run_dir), _in_one_line(run_dir):
        require_run("resume", run_dir)
        cfg = asked(config.stored(run_dir, trusted))
        run = config.check(cfg)
        if summary := done(run_dir, run.total_env_steps):
            more = "give total_env_steps=M, a larger number, to go on"
            print(f"{summary['status']} at {summary['env_steps']:,} env steps; {more}", flush=True)
            return summary
        try:
            checkpoint = newest_valid(run_dir / "checkpoints")
            payload = read_payload(checkpoint)
            old = payload.get("record")
            if old is None:
                raise CheckpointError(checkpoint, "holds weights alone: nothing to continue")
        except CheckpointError as error:
            raise RunFailedError(str(error)) from error
        if lost := lost_replay(run_dir, force):
            place_replay(run_dir, scratch)
        else:
            _require_replay(run_dir / "replay")
        new = _record(run, cfg)
        lines = config_difference(old["config"], cfg, MAY_CHANGE)
        lines += config_difference(old["fingerprint"], new["fingerprint"])
        if lines and not force:
            raise ConfigError(
                "resume",
                str(run_dir),
                "the configuration, versions, threads and renderer of the run",
                f"differs in {'; '.join(lines)}; restore that, or give force_resume=true",
            )
        new["forced"] = [*old["forced"], *lines, *([f"replay: {lost} -> empty"] if lost else [])]
        carry_replay(run_dir, scratch)
        return _run(run, cfg, run_dir, checkpoint, new, payload["loggers"], lost is not None)


def _require_replay(folder: Path) -> None:
    """Refuse to continue on an empty replay, which would be made where there is none."""
    if not (folder / LAYOUT_FILE).is_file():
        raise RunFailedError(
            f"{folder}: the replay's files are missing ({LAYOUT_FILE}): a run goes on from the "
            "transitions that it stored; restore the folder, it belongs to the run's"
        )


@contextmanager
def _in_one_line(run_dir: Path) -> Iterator[None]:
    """Turn what stops a run into its cause and the way on, in one line; details follow it."""
    try:
        yield
    except STOPS_A_RUN as error:
        way = "nothing was trained yet, start it again"
        if has_checkpoint(run_dir):
            way = _continue_command(run_dir)
        cause, _, details = str(error).partition("\n")
        raise RunFailedError(f"{cause}; {way}\n{details}".rstrip()) from error


def _continue_command(run_dir: Path) -> str:
    return f"to continue: python src/train.py resume={quoted(run_dir)}"


def _record(run: Run, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Make this process compute as the run says; what an exact resume depends on besides it."""
    if run.trainer.accelerator == "gpu" and not torch.cuda.is_available():
        raise ConfigError("trainer", "gpu", "a CUDA device", "use trainer=cpu or trainer=auto")
    cuda = trains_on_cuda(run)
    numerics.apply(cfg["trainer"], learner_threads(run), cuda)
    renderer = choose_renderer().description if run.obs.sees_pixels else "none"
    device = "cuda" if cuda else "cpu"
    process = fingerprint(collecting_workers(run), renderer, device)
    if run.trainer.compile and run.obs.sees_pixels:
        process["compiler"] = numerics.compiler(device)
    return {"config": dict(cfg), "fingerprint": process, "forced": []}


@contextmanager
def _signals_given_back(trainer: pl.Trainer, parts: Parts) -> Iterator[None]:
    """Leave this process as the run found it: Lightning tears nothing down after an exception.

    It also answers a Ctrl-C before the first round by ignoring all further ones, and exit code 1.
    """
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS} if main else {}
    try:
        yield
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        for kind in (Stopping, Evaluation):
            find(trainer, kind).teardown(trainer, parts.module, "fit")
        for logger in trainer.loggers:  # Weights & Biases has one run at a time in a process
            if isinstance(logger, WandbLogger) and logger._experiment is not None:
                logger.experiment.finish()
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _run(
    run: Run,
    cfg: Mapping[str, Any],
    run_dir: Path,
    checkpoint: Path | None,
    record: Mapping[str, Any],
    logged: Mapping[str, Any] | None = None,
    replay_lost: bool = False,
) -> dict[str, Any]:
    # Nothing here draws from these two, but a swap-in may; checkpoints hold their states.
    random.seed(run.seed)
    np.random.seed(run.seed % 2**32)
    parts = build_parts(run, run_dir)
    parts.data.replay_lost = replay_lost
    try:
        if checkpoint is None and run.ckpt_path is not None:
            _load_weights("ckpt_path", parts.module, run.ckpt_path)
        if checkpoint is None and isinstance(run.teacher, Mapping):
            teacher: Any = parts.module.teacher
            _load_weights("teacher", teacher, str(run.teacher["ckpt_path"]))
        trainer = build_trainer(run, run_dir, record, logged)
        evaluation = find(trainer, Evaluation)
        write_config(run_dir, cfg)
        announce(run, run_dir, parts, record)
        status, device = "failed", trainer.strategy.root_device
        try:
            with _signals_given_back(trainer, parts):
                trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint)
            whole = parts.data.done and not evaluation.due(parts.data)
            status = "finished" if whole else "stopped"
        finally:
            reason = find(trainer, Stopping).flag.reason if status == "stopped" else None
            seconds = find(trainer, Checkpoints).wall_time_s
            summary = summarize(run, parts, evaluation, seconds)
            # Where it trained: Lightning has moved the module back to the CPU by now.
            summary |= {"device": str(device), "status": status, "stop_reason": reason}
            # Where a full disk stopped the run, that error must not hide behind this one.
            with suppress(*((OSError,) if status == "failed" else ())):
                write_json(run_dir / "summary.json", summary)
    finally:
        parts.env.close()
    if reason is not None:
        at = f"stopped by {reason} at {summary['env_steps']:,} env steps"
        print(f"{at}; {_continue_command(run_dir)}", flush=True)
    elif status == "finished":
        print(learned(evaluation.history, seconds, run_dir), flush=True)
    return summary


def _load_weights(key: str, module: nn.Module, folder: str) -> None:
    """Begin with the weights, targets and input statistics of another run's checkpoint."""
    path = Path(folder)
    try:
        warn_of_strangers(path, unlisted(path))
        load_weights(module, path)
    except CheckpointError as error:
        expected = "a checkpoint of the same networks"
        raise ConfigError(key, folder, expected, error.reason) from error
