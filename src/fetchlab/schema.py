"""The tree of a configuration: one dataclass a section, every key with its type and its range.

Defaults are in ``configs/``, never here; whoever adds a key to a YAML adds its field here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fetchlab.entries import SEEING
from fetchlab.fields import (
    GLOBAL,
    Above,
    Below,
    Hint,
    Length,
    Max,
    Min,
    OpenSection,
    Supplied,
    Target,
)

Count = Annotated[int, Min(1)]
Index = Annotated[int, Min(0)]
Point = Annotated[list[float], Length(3), Hint("give x, y, z", "a list of 3 numbers, metres")]
Seconds = Annotated[float, Above(0)]
FOLDER = Hint("leave it out or give a path (./12 where its name is a number)", "a folder, or null")


RUN_FOLDER = "a run's folder"
Modules = Annotated[list[str], Hint("e.g. trusted_modules=[my_pkg]", "a list of names of modules")]


@dataclass(frozen=True)
class Task:
    """``configs/task``."""

    env_id: str
    max_episode_steps: Annotated[int, Min(1), Hint("Fetch episodes have 50")]
    kwargs: Annotated[dict[str, Any], Hint("arguments for gymnasium.make, by name")]
    proprio: Annotated[
        list[Index] | None, Hint("entries of the state, or null: those that are known")
    ]
    reward_range: Annotated[list[float] | None, Hint("e.g. [-1, 0], or null: unknown")]


@dataclass(frozen=True)
class Camera:
    """``obs.pixels.camera``: metres and degrees; azimuth 0 looks along +x, elevation -90 down."""

    lookat: Point
    distance: Annotated[float, Above(0)]
    azimuth: float
    elevation: float


@dataclass(frozen=True)
class Pixels:
    """``obs.pixels``; without a camera gymnasium's default one, where a cube is 3 pixels wide."""

    image_size: Annotated[int, Min(16), Max(256), Hint("84 is the usual choice")]
    supersample: Annotated[
        int, Min(1), Max(16), Hint("1 renders images as they are, 2 to 4 smooth")
    ]
    camera: Annotated[
        Camera | None,
        Hint("begin with obs=pixels_strict, whose camera can be changed key by key"),
    ]
    more_cameras: Annotated[dict[str, Camera], Hint("begin with obs=pixels_strict_two")]
    show_goal: Annotated[bool, Hint("false hides the goal marker")]
    quality: Annotated[
        Literal["fast", "reference"], Hint("fast is quicker, reference equals gymnasium's picture")
    ]

    @property
    def cameras(self) -> list[Camera | None]:
        """All of them, in the order of a frame's channels."""
        return [self.camera, *self.more_cameras.values()]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a frame: (3 V, H, W), one RGB picture for each of V cameras."""
        return 3 * len(self.cameras), self.image_size, self.image_size

    @property
    def rendered_size(self) -> int:
        """Side of the picture whose blocks are averaged to an image, pixels."""
        return self.image_size * self.supersample


@dataclass(frozen=True)
class Obs:
    """``configs/obs``."""

    actor_inputs: list[str]
    critic_inputs: list[str]
    normalize: Literal["none", "fixed", "running"]
    normalize_std_floor: Annotated[float, Above(0)]
    normalize_clip: Annotated[float, Above(0)]
    frame_stack: Annotated[int, Min(1), Hint("the study used 4")]
    pixels: Annotated[Pixels | None, Hint("begin with obs=pixels")]

    @property
    def sees_pixels(self) -> bool:
        """Whether actor or critics take images."""
        return any(name in (*self.actor_inputs, *self.critic_inputs) for name in SEEING)


@dataclass(frozen=True)
class Replay:
    """``configs/replay``."""

    capacity: Annotated[
        int, Min(1), Hint("transitions over all environments, the study used 500000")
    ]
    margin_env_steps: Annotated[int, Min(1), Hint("25000 is usual")]
    device: Annotated[Literal["auto", "cpu", "cuda"], Hint("cpu works everywhere")]
    verify: Annotated[Literal["tail", "full"], Hint("tail reads the newest rows only")]


@dataclass(frozen=True)
class Algo(OpenSection):
    """``configs/algo``: what data and relabelling read; all other keys are the algorithm's own."""

    batch_size: Annotated[int, Min(1), Hint("the study used 256")]
    utd_ratio: Annotated[
        float,
        Above(0),
        Hint(
            "the study used 0.25 for pixels",
            "a positive number of gradient updates per env step",
        ),
    ]
    discount: Annotated[float, Above(0), Below(1), Hint("0.95 is usual")]
    n_step: Count
    # Read by interpolation alone: a stored configuration has `relabel.k` resolved.
    her_k: float | dict[str, float]
    lr: Annotated[float, Min(0)]


@dataclass(frozen=True)
class Routing:
    """``configs/routing``."""

    encoder_optimizer: Literal["critic", "actor"]
    trained_by: list[Literal["critic", "actor", "auxiliary"]]


@dataclass(frozen=True)
class Collect:
    """``configs/collect``."""

    n_envs: Annotated[int, Min(1), Hint("4 to 8 on a desktop")]
    workers: Annotated[Count | None, Hint("null is the cores that trainer.threads leaves")]
    learning_starts: Annotated[int, Min(0), Hint("the study used 1000 env steps")]
    timeout_s: Seconds


@dataclass(frozen=True)
class Trainer:
    """``configs/trainer``."""

    accelerator: Literal["auto", "cpu", "gpu"]
    deterministic: bool
    threads: Annotated[Count | None, Hint("1 is usual")]
    precision: Annotated[
        Literal["float32", "bfloat16"],
        Hint("float32 is exact", "float32 or bfloat16"),
    ]
    tf32: bool
    channels_last: bool
    compile: bool
    cuda_graphs: bool


@dataclass(frozen=True)
class Evaluation(OpenSection):
    """``callbacks.evaluation``."""

    every_env_steps: Count
    n_envs: Count
    workers: Annotated[Count | None, Hint("null is one per core")]


@dataclass(frozen=True)
class Callbacks:
    """``configs/callbacks``; those with a ``_target_`` in the order in which Lightning has them."""

    log_every_env_steps: Count
    # Read by interpolation alone.
    progress_refresh_s: Annotated[float, Above(0)]
    milestones_of: str | None
    keep_checkpoints: Annotated[int, Min(2), Hint("one may be damaged")]
    disk_watch: Target | None
    stopping: Target
    log_points: Target
    evaluation: Evaluation
    # Before the progress, which says what they found, and before `extra`, which may act on it.
    phases: Target | None
    milestones: Target | None
    progress: Target | None
    time_estimate: Target | None
    extra: dict[str, Target]
    checkpoints: Target


@dataclass(frozen=True)
class Run:
    """The whole."""

    # First: other keys may be the experiment's name.
    experiment: Annotated[str, Hint(GLOBAL, "an experiment's name")]
    task: Task
    obs: Obs
    encoder: Annotated[Target | None, Supplied(("in_channels", "image_size"))]
    pooling: Annotated[Target | None, Supplied(("in_shape",))]
    feature_norm: Annotated[Target | None, Supplied(first=True)]
    augment: Target
    symmetry: Annotated[Target | None, Supplied(("env_spec", "cameras"))]
    relabel: Target
    replay: Replay
    algo: Annotated[
        Algo,
        Supplied(
            ("agent", "routing", "explore_seed", "update_seed", "cuda_graphs"), asked=("teacher",)
        ),
    ]
    # A run's folder; in a run that has begun, the configuration of the run in that folder.
    teacher: Annotated[str | dict[str, Any] | None, FOLDER]
    routing: Routing
    auxiliary: Annotated[
        dict[str, Target],
        Supplied(("feature_dim", "env_spec")),
        Hint("e.g. auxiliary=[goal_prediction]"),
    ]
    collect: Collect
    trainer: Trainer
    callbacks: Callbacks
    logger: dict[str, Target]
    seed: Annotated[int, Min(0), Hint("seed=0", "an integer from 0")]
    total_env_steps: Annotated[int, Min(1), Hint("2000000 is a full state run")]
    ckpt_path: Annotated[str | None, FOLDER]
    run_dir: Annotated[str | None, FOLDER]
    trusted_modules: Modules


@dataclass(frozen=True)
class Paths:
    """``paths``: what depends on the machine."""

    scratch: Annotated[str | None, FOLDER]


@dataclass(frozen=True)
class Pruner:
    """``search.pruner``: the median rule."""

    startup_trials: Index
    warmup_env_steps: Index


@dataclass(frozen=True)
class Interval:
    """A number of ``search.space``; whole where both ends are."""

    low: float
    high: float
    log: bool


@dataclass(frozen=True)
class Choices:
    """A choice of ``search.space``, of values that an override can have."""

    choices: list[Any]


@dataclass(frozen=True)
class Search:
    """``search``, which the files of ``configs/sweep/search`` set."""

    trials: Count
    seed: Index
    startup_trials: Count
    metric: Literal["success_rate", "return", "goal_distance_m"]
    of: Literal["last", "best", "mean"]
    direction: Literal["maximize", "minimize"]
    pruner: Pruner | None
    # Each an `Interval` or `Choices`, under the key that it is an override of.
    space: Annotated[
        dict[str, Any],
        Hint("e.g. {algo.lr: {low: 1e-4, high: 1e-3, log: true}, encoder: {choices: [a, b]}}"),
    ]


@dataclass(frozen=True)
class Start:
    """Of ``configs/train.yaml`` what is the command's, and no part of a run's configuration."""

    resume: Annotated[
        Literal["auto"] | None, Hint("python src/train.py experiment=NAME run_dir=DIR resume=auto")
    ]
    force_resume: bool
    paths: Paths
    launcher: Annotated[dict[str, Any], Hint("launcher=local")]  # a sweep holds it to its target
    search: Annotated[Search | None, Hint("sweep=search/reach")]


@dataclass(frozen=True)
class Resume:
    """Of ``configs/resume.yaml`` what is not the run's own."""

    resume: Annotated[str, Hint("python src/train.py resume=RUN_DIR", RUN_FOLDER)]
    force_resume: bool
    trusted_modules: Modules


@dataclass(frozen=True)
class Evaluate:
    """Of ``configs/evaluate.yaml`` what is not the run's own."""

    run: Annotated[str | None, Hint("python src/evaluate.py run=RUN_DIR", RUN_FOLDER)]
    checkpoint: Annotated[str | None, Hint("leave it out for the newest", "a folder, or null")]
    episodes: Annotated[int, Min(1), Hint("100 is precise")]
    seed: Annotated[int, Min(0)] | None
    stochastic: bool
    video: bool
    table: bool
    policy: Annotated[str | None, Hint("leave it out, or give an exported policy's folder")]
    out: Annotated[str | None, FOLDER]
    trusted_modules: Modules


@dataclass(frozen=True)
class Export:
    """Of ``configs/export.yaml`` what is not the run's own: all of it."""

    run: Annotated[str, Hint("python src/export.py run=RUN_DIR out=DIR", RUN_FOLDER)]
    out: Annotated[str | None, FOLDER]
    checkpoint: Annotated[str | None, Hint("leave it out for the newest", "a folder, or null")]
    program: bool
    hub: Annotated[str | None, Hint("e.g. hub=user/fetch-push", "user/name, or null")]
    trusted_modules: Modules


RUNS = "runs' folders, folders with runs below them, or globs"


@dataclass(frozen=True)
class Report:
    """``configs/report.yaml``."""

    runs: Annotated[str | list[str] | None, Hint("runs=logs/state_reach, or runs=[A,B]", RUNS)]
    compare: Annotated[list[str] | None, Hint("compare=[RUN_A,RUN_B]", "two runs' folders")]
    out: Annotated[str | None, FOLDER]
    films: Annotated[int, Min(0), Hint("films=0 for none", "how many configurations to film")]
    embed_mb: Annotated[float, Min(0), Hint("embed_mb=0 links all videos")]


@dataclass(frozen=True)
class Doctor:
    """Of ``configs/doctor.yaml`` what is not the run's own."""

    seconds: Seconds
    picture: Annotated[str | None, Hint("leave it out or give FILE.png", "a file, or null")]
