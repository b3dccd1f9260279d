"""What the benchmarks share: measure in turn, print a row. Everything else goes to stderr.

A row is one JSON line on stdout, ``{name, value, reference, ratio, target, ok}``. ``value`` is ours
and ``reference`` the peer's or the physical limit's, both medians over repetitions; ``ratio`` is
the median of the ratios of neighbouring repetitions, in which a machine's drift cancels. ``target``
bounds the ratio, or the value in a row that has a unit in its name. ``ok`` and
``target`` are null where nothing is asked for; ``value`` is null where it could not be measured. A
row may have more entries, which say what it was measured on.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / "logs"  # runs live here, so their disk is the one to measure
sys.path.insert(0, str(ROOT / "src"))


def main(doc: str, bench: Callable[..., None], **options: str | dict[str, Any]) -> None:
    """Parse the command line and run ``bench(quick)``, its prints on stderr.

    Args:
        doc: the benchmark's docstring.
        bench: prints its rows; takes ``quick`` and the other options.
        options: name -> help of each switch beside ``--quick``, or what `add_argument` takes.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    for name, given in {"quick": "under 60 s", **options}.items():
        switch = {"action": "store_true", "help": given}
        parser.add_argument(f"--{name}", **(switch if isinstance(given, str) else given))
    with contextlib.redirect_stdout(sys.stderr):
        bench(**vars(parser.parse_args()))


def say(text: str) -> None:
    """Progress, for a person."""
    print(text, file=sys.stderr, flush=True)


def alternate(
    measures: Mapping[str, Callable[[], float]],
    repetitions: int,
    unit: str,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Measure each in turn, A B A B ...; the first turn warms up and is left out.

    Args:
        measures: name -> what returns one figure.
        repetitions: turns that count.
        unit: of the figures, for the progress.
        warm_up: whether there is such a first turn.

    Returns:
        name -> ``repetitions`` figures.
    """
    results: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(0 if warm_up else 1, repetitions + 1):
        for name, measure in measures.items():
            results[name].append(measure())
        say_turn(turn, repetitions, {name: values[-1] for name, values in results.items()}, unit)
    return {name: values[-repetitions:] for name, values in results.items()}


def say_turn(turn: int, repetitions: int, figures: Mapping[str, float], unit: str) -> None:
    """Progress after one turn; turn 0 is the warm-up."""
    nth = f"{turn}/{repetitions}" if turn else "warm-up"
    say(
        f"{nth}: "
        + ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        + f" {unit}"
    )


def ratios(ours: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Ours over reference, pair by pair."""
    return [a / b for a, b in zip(ours, reference, strict=True)]


def ratio_row(
    name: str,
    ours: Sequence[float],
    reference: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Print the row of alternating measurements; without a bound it is for information."""
    ratio = statistics.median(ratios(ours, reference))
    target, ok = None, None
    if at_least is not None:
        target, ok = at_least, ratio >= at_least
    elif at_most is not None:
        target, ok = at_most, ratio <= at_most
    print_row(name, statistics.median(ours), statistics.median(reference), ratio, target, ok)


def missing_row(name: str, target: float | None, reason: str, **details: Any) -> None:
    """Print the row of what could not be measured here, and say why."""
    say(f"{name}: not measured: {reason}")
    ok = None if target is None else False
    print_row(name, None, None, None, target, ok, reason=reason, **details)


def print_row(
    name: str,
    value: float | None,
    reference: float | None,
    ratio: float | None,
    target: float | None,
    ok: bool | None,
    **details: Any,
) -> None:
    """Print one line of the table, with what else there is to know about it."""
    figures = {"value": value, "reference": reference, "ratio": ratio, "target": target}
    row = {key: None if x is None else float(f"{x:.6g}") for key, x in figures.items()}
    line = json.dumps({"name": name, **row, "ok": ok, **details})
    print(line, file=sys.__stdout__, flush=True)
