"""Before a launch: does this machine carry this configuration, how fast, and does it learn at all?

Everything is asked of the real thing: an environment that draws a frame, the run's own sums, a
short training run in a temporary folder, and an update of its networks, followed by autograd.
"""

from __future__ import annotations

import fetchlab.envs.without_gl  # noqa: F401  before torchrl, which imports mujoco

# isort: split
import contextlib
import io
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import imageio.v3 as iio
import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fetchlab import config
from fetchlab.algos.gradients import Reach, look
from fetchlab.algos.steps import AT_ONCE
from fetchlab.build import build_env, build_module, build_trainer, replay_size, row_spec
from fetchlab.callbacks.stopping import BY_CALLBACK
from fetchlab.callbacks.throughput import TimeEstimate, format_duration, format_rate
from fetchlab.durable import write_json
from fetchlab.entries import PIXELS, EnvSpec
from fetchlab.errors import ConfigError, RunFailedError, require
from fetchlab.fields import Above
from fetchlab.preflight.budget import (
    available_memory_bytes,
    fitting_capacity,
    format_bytes,
    free_disk_bytes,
    nearest_existing,
)
from fetchlab.preflight.renderer import choose_renderer
from fetchlab.preflight.sizes import (
    Memory,
    check_fits,
    disk_needed,
    threads_and_workers,
    trains_on_cuda,
    usable_cores,
)
from fetchlab.replay.layout import plan_layout
from fetchlab.run import STOPS_A_RUN, start
from fetchlab.run_folder import (
    choose_run_dir,
    has_checkpoint,
    require_free,
    require_writable,
)
from fetchlab.schema import Run
from fetchlab.teacher import with_teacher

FOUND = "probe.json"
#: The replay of the measured run has room for so many env steps a second, and is full thereafter.
MOST_ENV_STEPS_PER_S = {False: 500, True: 2000}  # on a GPU
PICTURE_SIDE = 336

Verdict = Literal["ok", "note", "no"]
COLOURS = {"ok": "green", "note": "yellow", "no": "red"}


@dataclass(frozen=True)
class Finding:
    """One line of the table; ``no`` makes it no go, a ``note`` is for the reader to weigh."""

    about: str
    found: str
    verdict: Verdict = "ok"


class Probe(TimeEstimate):
    """Measures a training run, looks at its gradients and ends it; writes `FOUND` into its folder.

    Args:
        seconds: to measure, after the first updates.
    """

    def __init__(self, seconds: Annotated[float, Above(0)]) -> None:
        super().__init__(
            after_updates=sys.maxsize, after_s=seconds, long_run_h=math.inf, instead=""
        )
        self._simulated: float | None = None  # env steps/s before the first update

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Count from here."""
        super().on_train_start(trainer, pl_module)
        self._started_s = time.monotonic()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        """Stop when enough is measured."""
        super().on_train_batch_end(trainer, pl_module, *args)
        if self._first is None:
            seconds = time.monotonic() - self._started_s
            self._simulated = trainer.datamodule.env_steps / max(seconds, 1e-9)
        elif self._done:
            trainer.should_stop = True

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Look at an update of what has been learned, on a batch of what has been collected."""
        data, reach = trainer.datamodule, []
        if len(data.replay):
            batch = data.replay.draw(data.batch_size, data.env_steps).to(pl_module.device)
            reach = [asdict(one) for one in look(pl_module, batch)]
        found = {"env_steps_per_s": self.rate, "simulated_per_s": self._simulated, "reach": reach}
        write_json(Path(trainer.default_root_dir) / FOUND, found)

    def _speak(self, remaining: int, rate: float) -> None:
        """Nothing: the doctor does."""


def examine(
    cfg: Mapping[str, Any],
    seconds: float,
    picture: str | None,
    probe: Mapping[str, Any],
    resumes: bool = False,
) -> Iterator[Finding]:
    """Everything that is found, in turn; ends early at what makes all that follows meaningless.

    Args:
        cfg: resolved, plain, of the run.
        seconds: to measure.
        picture: file of the frame; None: in ``logs``.
        probe: the node of `Probe`.
        resumes: whether a run in its folder is to be continued.

    Raises:
        ConfigError: a configuration that cannot work on any machine, or no file for the frame.
    """
    cfg = with_teacher(config.plain(cfg))
    run = config.check(cfg)
    run_dir = choose_run_dir(cfg, datetime.now())
    file = _picture(picture, config.ROOT / "logs" / f"doctor_{run.experiment}.png")
    yield from _packages(config.ROOT / "requirements.lock")
    yield _device(run)
    yield _cores(run)
    refused = [*_refused(run, run_dir, resumes)]
    yield from refused
    renderer = _renderer(run)
    yield renderer
    draws = renderer.verdict == "ok"
    if not draws and run.obs.sees_pixels:
        return
    spec, frame = _first_look(run, draws, file)
    yield from frame
    fits = [*_sizes(run, spec, run_dir)]
    yield from fits
    if all(one.verdict != "no" for one in refused + fits):
        yield from _measured(run, cfg, run_dir, seconds, probe)


def show(findings: Iterator[Finding], console: Console | None = None) -> bool:
    """Print each as it is found, and the verdict; returns whether it is go."""
    console, kept = console or Console(), []
    table = Table("about", "found", "", show_lines=False)
    for one in findings:
        kept.append(one)
        table.add_row(one.about, escape(one.found), f"[{COLOURS[one.verdict]}]{one.verdict}[/]")
    console.print(table)
    against = [f"{one.about}: {one.found}" for one in kept if one.verdict == "no"]
    verdict = f"no go: {'; '.join(against)}" if against else "go"
    console.print(verdict, soft_wrap=True, highlight=False, markup=False)
    return not against


def _picture(asked: str | None, otherwise: Path) -> Path:
    """The frame's file, before anything is looked at."""
    file, example = Path(asked or otherwise), "e.g. picture=frame.png"
    ends = file.suffix.lower() == ".png" and not file.is_dir()
    require(ends, "picture", str(file), "a file that ends in .png", example)
    require_writable("picture", file.parent, example)
    return file


def _packages(lock: Path) -> Iterator[Finding]:
    """Installed versions that are not the lock's: numbers may differ from those of others."""
    locked = [line.strip().partition("==") for line in lock.read_text().splitlines()]
    wanted = {name: version for name, equals, version in locked if equals and name[:1] != "#"}
    same = True
    for name, version in wanted.items():
        try:
            installed = metadata.version(name).partition("+")[0]
        except metadata.PackageNotFoundError:
            installed = "(absent)"
        if installed != version:
            same = False
            yield Finding("packages", f"{name} {installed}, the lock has {version}", "note")
    if same:
        yield Finding("packages", f"all {len(wanted)} as in {lock.name}")


def _device(run: Run) -> Finding:
    if trains_on_cuda(run):
        return Finding("device", torch.cuda.get_device_name())
    if run.trainer.accelerator == "gpu":
        return Finding("device", "no CUDA device, and trainer=gpu", "no")
    return Finding("device", "cpu")


def _cores(run: Run) -> Finding:
    (threads, workers), cores = threads_and_workers(run), usable_cores()
    found = f"{cores}, for {threads} torch threads and {workers} workers"
    # As at the launch: one of each is the least, also on a single core.
    waits = threads + workers > max(2, cores)
    return Finding(
        "cores",
        f"{found}, which wait for each other" if waits else found,
        "note" if waits else "ok",
    )


def _renderer(run: Run) -> Finding:
    try:
        found = choose_renderer()
    except ConfigError as error:
        needed = run.obs.sees_pixels
        words = str(error) if needed else f"{error} (no agent here sees, videos need it)"
        return Finding("renderer", words, "no" if needed else "note")
    return Finding("renderer", f"{found.backend}: {found.description}")


def _refused(run: Run, run_dir: Path, resumes: bool) -> Iterator[Finding]:
    """What a launch refuses in its first second: its folder, a logger, a callback."""
    try:
        if not (resumes and has_checkpoint(run_dir)):
            require_free(run_dir)
        require_writable("run_dir", nearest_existing(run_dir), "choose another")
    except ConfigError as error:
        yield Finding("run_dir", str(error), "no")
    on_cpu = replace(run, trainer=replace(run.trainer, accelerator="cpu"))
    with tempfile.TemporaryDirectory(prefix="fetchlab-doctor-") as folder:
        try:
            build_trainer(on_cpu, Path(folder), {}, {})
        except ConfigError as error:
            yield Finding("launch", str(error), "no")


def _first_look(run: Run, draws: bool, file: Path) -> tuple[EnvSpec, list[Finding]]:
    """What the environment yields, and a frame of it as the agent or a video would see it."""
    with closing(build_env(run, 1, 1, render=draws)) as env:
        spec, obs = env.base_env.env_spec, env.reset()
        if not draws:
            return spec, []
        frame = obs.get(PIXELS)[0].permute(1, 2, 0).numpy()
    times = -(-PICTURE_SIDE // len(frame))
    iio.imwrite(file, frame.repeat(times, 0).repeat(times, 1))
    plain = int(frame.max()) == int(frame.min())
    said = "one colour only" if plain else f"{len(frame)} x {len(frame)} pixels"
    return spec, [Finding("frame", f"{said}: {file}", "no" if plain else "ok")]


def _sizes(run: Run, spec: EnvSpec, run_dir: Path) -> Iterator[Finding]:
    """Disk and memory of the whole run."""
    layout = plan_layout(row_spec(run, spec), replay_size(run))
    memory = Memory(run, build_module(run, spec), AT_ONCE)
    total, each = layout.disk_bytes(), layout.bytes_per_transition()
    needed, free = disk_needed(run_dir, total), free_disk_bytes(run_dir)
    largest = fitting_capacity(needed, free, min(run.replay.capacity, run.total_env_steps), each)
    verdict: Verdict = "ok"
    try:
        check_fits(run, run_dir, total, each, memory)
    except ConfigError as error:
        verdict = "no"
        yield Finding("fits", str(error), verdict)
    yield Finding(
        "disk",
        f"{format_bytes(needed)} of {format_bytes(free)} free at {nearest_existing(run_dir)}; "
        f"the largest replay there is replay.capacity={largest}",
    )
    held, available = memory.total_bytes(), available_memory_bytes()
    yield Finding("memory", f"{format_bytes(held)} of {format_bytes(available)} available")


def _measured(
    run: Run, cfg: Mapping[str, Any], run_dir: Path, seconds: float, probe: Mapping[str, Any]
) -> Iterator[Finding]:
    """A training run of this configuration, as long as it takes to measure it."""
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=nearest_existing(run_dir)) as folder:
        short = Path(folder) / "run"
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                summary = start(_shortened(run, cfg, short, seconds, probe))
        except (RunFailedError, *STOPS_A_RUN) as error:
            yield Finding("training", str(error).partition("\n")[0], "no")
            return
        found = json.loads((short / FOUND).read_text())
    reason = str(summary["stop_reason"])
    if summary["status"] == "stopped" and not reason.startswith(BY_CALLBACK):
        if reason.startswith("SIG"):
            raise KeyboardInterrupt
        yield Finding("training", f"stopped by {reason}", "no")
    yield from _times(run, found["env_steps_per_s"], found["simulated_per_s"])
    yield from _routing([Reach(**one) for one in found["reach"]])


def _shortened(
    run: Run, cfg: Mapping[str, Any], run_dir: Path, seconds: float, probe: Mapping[str, Any]
) -> dict[str, Any]:
    """The same run, of which only its first part is trained: nothing watches, logs or evaluates."""
    first = max(run.collect.learning_starts, run.collect.n_envs * run.task.max_episode_steps)
    enough = 2 * first + math.ceil(seconds * MOST_ENV_STEPS_PER_S[trains_on_cuda(run)])
    steps = min(run.total_env_steps, enough)
    quiet = dict.fromkeys(("phases", "milestones", "progress", "time_estimate"))
    changes = {
        "run_dir": str(run_dir),
        "total_env_steps": steps,
        "replay.margin_env_steps": min(run.replay.margin_env_steps, steps),
        "callbacks.evaluation.every_env_steps": steps,
        "callbacks.evaluation.episodes": 1,  # at the end of a run that is shorter than the time
        "logger": {},
        "callbacks.extra": {"probe": dict(probe)},
        **{f"callbacks.{name}": None for name in quiet},
    }
    return config.changed(cfg, changes)


def _times(run: Run, rate: float | None, simulated: float | None) -> Iterator[Finding]:
    """How long the run takes, with its evaluations, and until when each milestone."""
    if rate is None:
        yield Finding("speed", "no update in this time: measure longer, e.g. seconds=300", "note")
        return
    evaluation = run.callbacks.evaluation
    each = evaluation.target["episodes"] * run.task.max_episode_steps / (simulated or math.inf)

    def needed(env_steps: int) -> str:
        evaluations = math.ceil(env_steps / evaluation.every_env_steps)
        return format_duration(env_steps / rate + evaluations * each)

    words = f"{format_rate(rate)} env steps/s"
    if simulated:
        words += f" ({format_rate(simulated)} without updates)"
    yield Finding("speed", words)
    yield Finding("time", f"{needed(run.total_env_steps)} for {run.total_env_steps:,} env steps")
    milestones: Mapping[str, Any] = run.callbacks.milestones or {}
    for row in milestones.get("table", []):
        at = int(row["at_env_steps"])
        if at <= run.total_env_steps:
            said = f"{row['success_at_least']:.0%} at {at:,} env steps: after {needed(at)}"
            yield Finding("milestone", said)


def _routing(reach: list[Reach]) -> Iterator[Finding]:
    """Each loss and the parts that it moves, or must not move."""
    if not reach:
        yield Finding("gradients", "no episode has ended in this time: measure longer", "note")
    for one in reach:
        moves = f"moves {one.moved} of {one.tensors} tensors" if one.moved else "leaves it alone"
        should = (
            "" if one.as_it_should else f", and should {'move' if one.expected else 'not move'} it"
        )
        verdict: Verdict = "ok" if one.as_it_should else "no"
        yield Finding("gradients", f"{one.loss} loss on {one.part}: {moves}{should}", verdict)
