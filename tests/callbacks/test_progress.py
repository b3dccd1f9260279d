"""Progress: one line per logging point without a terminal, a bar with one, nothing per round."""

import io
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from fetchlab.callbacks.log_points import LogPoints
from fetchlab.callbacks.progress import EnvStepProgress, metrics_text, plain_line


def make(terminal=False, refresh_s=0.25):
    out = io.StringIO()
    # legacy_windows, width: fixed, so that the text does not depend on where the tests run.
    console = Console(
        file=out, force_terminal=terminal, force_interactive=terminal, width=100, _environ={}
    )
    return EnvStepProgress(refresh_s=refresh_s, console=console), out


def run_parts(env_steps=0):
    data = SimpleNamespace(env_steps=env_steps, total_env_steps=1000)
    points = LogPoints(every_env_steps=10)
    return SimpleNamespace(datamodule=data, callbacks=[points]), points


def log(points, **metrics):
    points.latest.update({name.replace("__", "/"): value for name, value in metrics.items()})
    points.rows += 1


def rounds(callback, trainer, points, n, steps_each=10):
    for index in range(n):
        trainer.datamodule.env_steps += steps_each
        callback.on_train_batch_end(trainer, points, None, None, index)


def test_plain_line_by_hand():
    metrics = {
        "train/success_rate": 0.125,
        "train/critic_loss": 0.03125,
        "train/actor_loss": -12.34567,
        "eval/success_rate": 1.0,
        "time/env_steps_per_s": 200.4,
        "train/entropy": 3.0,
    }
    # 80,000 left at 200.4 per second: 399.2 s = 6.65 min
    assert plain_line(20_000, 100_000, metrics) == (
        "env_steps 20,000 of 100,000 (20.0%) | success train 12.5% | eval 100.0% | "
        "critic loss 0.03125 | actor loss -12.35 | 200 env steps/s | 7 min left"
    )


def test_plain_line_before_anything_was_measured():
    assert plain_line(0, 100, {}) == "env_steps 0 of 100 (0.0%)"
    assert metrics_text({"train/success_rate": float("nan")}) == "success train nan%"


def test_without_a_terminal_one_line_per_logging_point():
    callback, out = make()
    trainer, points = run_parts()
    callback.on_train_start(trainer, points)
    rounds(callback, trainer, points, 5)
    assert out.getvalue() == ""
    log(points, train__critic_loss=0.5)
    rounds(callback, trainer, points, 3)
    log(points, train__critic_loss=0.25)  # the same dict, changed
    rounds(callback, trainer, points, 1)
    callback.on_train_epoch_end(trainer, points)
    callback.on_train_end(trainer, points)
    assert out.getvalue().splitlines() == [
        "env_steps 60 of 1,000 (6.0%) | critic loss 0.5",
        "env_steps 90 of 1,000 (9.0%) | critic loss 0.25",
    ]


def test_the_last_evaluation_stays_while_newer_points_have_none():
    callback, out = make()
    trainer, points = run_parts()
    callback.on_train_start(trainer, points)
    log(points, eval__success_rate=0.5, train__success_rate=0.1)
    rounds(callback, trainer, points, 1)
    log(points, train__success_rate=0.2)
    rounds(callback, trainer, points, 1)
    assert out.getvalue().splitlines()[1].endswith("success train 20.0% | eval 50.0%")


def test_evaluation_at_the_end_of_an_epoch_is_a_line_at_once():
    callback, out = make()
    trainer, points = run_parts()
    callback.on_train_start(trainer, points)
    rounds(callback, trainer, points, 2)
    log(points, eval__success_rate=0.5)
    callback.on_train_epoch_end(trainer, points)
    assert out.getvalue() == "env_steps 20 of 1,000 (2.0%) | eval 50.0%\n"


def test_a_resumed_run_does_not_repeat_the_line_of_its_checkpoint():
    callback, out = make()
    trainer, points = run_parts(env_steps=500)
    log(points, train__critic_loss=0.5)
    callback.on_train_start(trainer, points)
    rounds(callback, trainer, points, 2)
    callback.on_train_end(trainer, points)
    assert out.getvalue() == ""


def test_a_long_line_is_not_wrapped():
    callback, out = make()
    trainer, points = run_parts()
    callback.on_train_start(trainer, points)
    log(
        points,
        train__success_rate=0.1,
        eval__success_rate=0.1,
        train__critic_loss=1.23456e-9,
        train__actor_loss=-1.23456e-9,
        time__env_steps_per_s=1e-3,
    )
    rounds(callback, trainer, points, 1)
    assert len(out.getvalue()) > 130
    assert out.getvalue().count("\n") == 1


def test_on_a_terminal_steps_metrics_and_rate_are_drawn_and_the_cursor_comes_back():
    callback, out = make(terminal=True, refresh_s=1e-9)
    trainer, points = run_parts(env_steps=400)
    callback.on_train_start(trainer, points)
    log(points, train__success_rate=0.125)
    rounds(callback, trainer, points, 3)
    callback.on_train_end(trainer, points)
    drawn = out.getvalue()
    assert "430/1000" in drawn
    assert "success train 12.5%" in drawn
    assert "/s" in drawn
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # cursor shown after hidden


def test_between_drawings_nothing_is_written_but_logging_points_are_drawn():
    callback, out = make(terminal=True, refresh_s=3600.0)
    trainer, points = run_parts()
    callback.on_train_start(trainer, points)
    before = out.getvalue()
    rounds(callback, trainer, points, 50)
    assert out.getvalue() == before
    log(points, train__success_rate=0.5)
    rounds(callback, trainer, points, 1)
    assert "success train 50.0%" in out.getvalue()
    callback.teardown(trainer, points, "fit")


def test_drawings_are_rationed_by_time(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("fetchlab.callbacks.progress.time.monotonic", lambda: now[0])
    callback, _ = make(terminal=True, refresh_s=0.25)
    trainer, points = run_parts()
    callback.on_train_start(trainer, points)
    drawn = []
    callback._bar.draw = lambda env_steps, text: drawn.append(env_steps)
    for _ in range(100):  # a second in rounds of 10 ms
        now[0] += 0.01
        rounds(callback, trainer, points, 1, steps_each=1)
    assert len(drawn) in (3, 4)
    callback.teardown(trainer, points, "fit")


@pytest.mark.parametrize("hook", ["on_exception", "teardown"])
def test_the_terminal_is_given_back_after_an_error(hook):
    callback, out = make(terminal=True)
    trainer, points = run_parts()
    callback.on_train_start(trainer, points)
    assert "\x1b[?25h" not in out.getvalue()
    getattr(callback, hook)(trainer, points, KeyboardInterrupt())
    assert out.getvalue().count("\x1b[?25h") == 1
    callback.teardown(trainer, points, "fit")  # a second time is harmless
    assert out.getvalue().count("\x1b[?25h") == 1


@pytest.mark.parametrize("terminal", [False, True])
def test_a_round_that_is_not_due_costs_less_than_20_us(terminal):
    callback, _ = make(terminal=terminal, refresh_s=3600.0)
    trainer, points = run_parts()
    callback.on_train_start(trainer, points)
    seconds = []
    for _ in range(10):
        begin = time.perf_counter()
        for index in range(1000):
            callback.on_train_batch_end(trainer, points, None, None, index)
        seconds.append((time.perf_counter() - begin) / 1000)
    callback.teardown(trainer, points, "fit")
    assert min(seconds) < 20e-6
