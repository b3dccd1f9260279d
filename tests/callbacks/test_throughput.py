"""Rates and the one-time estimate, on a clock the tests turn by hand."""

import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from fetchlab.callbacks.throughput import RateMeter, TimeEstimate, format_duration


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


def test_rates_by_hand():
    clock = Clock()
    meter = RateMeter(1000, 10, clock)
    clock.now += 4.0
    assert meter.read(1200, 60) == {"time/env_steps_per_s": 50.0, "time/grad_updates_per_s": 12.5}
    clock.now += 2.0  # since the previous reading, not since the start
    assert meter.read(1210, 60) == {"time/env_steps_per_s": 5.0, "time/grad_updates_per_s": 0.0}


class Run:
    """Drives a `TimeEstimate`: rounds of 8 env steps and 2 updates, 0.1 s each."""

    def __init__(self, total=100_000, after_updates=100, instead="try state_reach", done=0):
        self.clock, self.out, self.index = Clock(), io.StringIO(), 0
        self.callback = TimeEstimate(
            after_updates=after_updates,
            after_s=20.0,
            long_run_h=24.0,
            instead=instead,
            console=Console(file=self.out, width=40, _environ={}),
            clock=self.clock,
        )
        self.trainer = SimpleNamespace(
            datamodule=SimpleNamespace(env_steps=done, total_env_steps=total)
        )
        self.module = SimpleNamespace(grad_updates=done)
        self.callback.on_train_start(self.trainer, self.module)
        self.callback.on_train_epoch_start(self.trainer, self.module)

    def rounds(self, n, updates=2, seconds=0.1):
        for _ in range(n):
            self.clock.now += seconds
            self.trainer.datamodule.env_steps += 8
            self.module.grad_updates += updates
            self.index += 1
            self.callback.on_train_batch_end(self.trainer, self.module, None, None, self.index)

    @property
    def said(self):
        return self.out.getvalue()


@pytest.mark.parametrize("done", [0, 4000])
def test_speaks_once_about_the_rate_with_updates(done):
    run = Run(total=100_000 + done, done=done)
    run.rounds(100, updates=0, seconds=0.001)  # fast steps before learning starts: not counted
    run.rounds(50)
    assert run.said == ""  # the first round with updates is warm-up; 49 x 2 = 98 after it
    run.rounds(1)
    # 80 env steps/s; 100,000 - 151 x 8 = 98,792 left; 1234.9 s = 20.6 min
    assert run.said == (
        "This machine runs 80 env steps/s: the remaining 98,792 take about 21 min, "
        "plus evaluations.\n"
    )
    run.rounds(1000)
    assert run.said.count("\n") == 1


def test_slow_updates_are_judged_by_time_and_long_runs_get_an_alternative():
    run = Run(total=1_000_000)
    run.rounds(3, seconds=12.0)  # after the first: 2 rounds, 24 s
    # 16 steps in 24 s; 999,976 left at 2/3 per second: 1,499,964 s = 416.7 h = 17 d 9 h
    assert run.said == (
        "This machine runs 0.67 env steps/s: the remaining 999,976 take about 17 d 9 h, "
        "plus evaluations. For a shorter run: try state_reach\n"
    )


def test_no_alternative_no_advice():
    run = Run(total=1_000_000, instead="")
    run.rounds(3, seconds=12.0)
    assert run.said.endswith("plus evaluations.\n")


def test_an_evaluation_between_epochs_does_not_distort_the_rate():
    run = Run()
    run.rounds(20)
    run.clock.now += 300.0
    run.callback.on_train_epoch_start(run.trainer, run.module)
    run.rounds(31)
    assert "runs 80 env steps/s" in run.said


def test_silent_while_nothing_learns():
    run = Run()
    run.rounds(10_000, updates=0)
    assert run.said == ""


def test_a_resumed_run_is_measured_anew():
    run = Run()
    run.rounds(51)
    run.callback.on_train_start(run.trainer, run.module)
    run.rounds(51, seconds=0.2)
    assert "runs 40 env steps/s" in run.said.splitlines()[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (42.4, "42 s"),
        (59.6, "1 min"),
        (3569, "59 min"),
        (3571, "1 h 00 min"),
        (11_100, "3 h 05 min"),
        (86_399, "1 d 0 h"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_what_is_advised_instead_exists_and_is_made_for_its_device(compose_run):
    advice = compose_run("pixel_push")["callbacks"]["time_estimate"]["instead"]
    advised = re.findall(r"experiment=(\w+)([^,]*)", advice)
    assert len(advised) == 2
    for name, where in advised:
        cfg = compose_run(name)
        # Without graphs, and without the replay in its memory, a GPU mostly waits.
        on_gpu = cfg["trainer"]["cuda_graphs"] and cfg["replay"]["device"] == "auto"
        assert on_gpu == ("CUDA GPU" in where)
