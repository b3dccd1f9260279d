"""Curves as SVG text, for a page and for print: told apart by colour, by dash and by a label.

Colours are Okabe and Ito's, which colour-blind readers tell apart; each curve carries its name at
its end. The same runs give the same text.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    PercentFormatter,
)

from fetchlab.report.groups import Group
from fetchlab.report.runs import LOSS, STEPS, StoredRun

#: Okabe and Ito 2008, without the yellow that white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))
INK, FAINT = "#222222", "#d9d9d9"
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and is a tenth of the bytes
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.edgecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a name may have dollars
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 2.2,
}
WIDTH, HEIGHT = 11.0, 3.2  # inches, of one row of curves
COMPARED_HEIGHT = 2.2
LABEL_GAP = 0.09  # of the axes' height, between two labels
HOURS_FROM_S = 2 * 3600.0
THOUSANDS, PERCENT = EngFormatter(sep=""), PercentFormatter(1.0, symbol=" %")
PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
MANY = 12  # curves: beyond, labels would cover each other
UNSAID = ("Date", "Creator", "Format", "Type")  # of a file, not of an element in a page
COMPARED = (
    ("success of evaluations", None),
    ("critic loss", LOSS),
    ("actor loss", "train/actor_loss"),
    ("mean Q", "train/q_mean"),
    ("entropy", "train/entropy"),
)


def colour(index: int) -> str:
    """Of the curve with this number."""
    return COLOURS[index % len(COLOURS)]


def curves(groups: Sequence[Group]) -> str:
    """Success over env steps and over wall time, and below it the critics' loss."""
    with plt.rc_context({**STYLE, "svg.hashsalt": "curves"}):
        # Names at the curves' ends take the room of a second column.
        places: Any = [["steps"], ["time"], ["loss"]]
        if len(groups) == 1:
            places = [["steps", "time"], ["loss", "loss"]]
        size = (WIDTH, HEIGHT * len(places))
        figure, axes = plt.subplot_mosaic(places, figsize=size)
        taken = max((r.seconds[-1] for g in groups for r in g.runs if len(r.seconds)), default=0.0)
        unit, name = (3600.0, "hours") if taken > HOURS_FROM_S else (60.0, "minutes")
        _success(axes["steps"], groups, lambda run: run.steps, lambda curve: curve.steps)
        _success(
            axes["time"],
            groups,
            lambda run: run.seconds_at(run.steps) / unit,
            lambda curve: curve.seconds / unit,
        )
        axes["steps"].set(title="Success over env steps", xlabel="env steps")
        axes["steps"].xaxis.set_major_formatter(THOUSANDS)
        axes["time"].set(title="Success over wall time", xlabel=f"{name}, evaluations included")
        _loss(axes["loss"], groups)
        return _svg(figure)


def _loss(axes: Axes, groups: Sequence[Group]) -> None:
    """With flat success a falling loss is no progress: always failing is easy to predict."""
    ends = []
    for index, group in enumerate(groups):
        for run in group.runs:
            x, y = logged(run, LOSS)
            if len(x):
                axes.plot(x, y, **_line(index), lw=1.3, alpha=0.85)
                ends.append((x[-1], y[-1], group.label, index))
    axes.set(title="Critic loss over env steps, each seed", xlabel="env steps", yscale="log")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.yaxis.set_major_formatter(PLAIN)
    axes.yaxis.set_minor_formatter(NullFormatter())
    _label(axes, list({one[2]: one for one in sorted(ends)}.values()))  # of a group the longest


def compare_figure(groups: Sequence[Group]) -> str:
    """Two runs' curves, one run a column, on the same axes."""
    with plt.rc_context({**STYLE, "svg.hashsalt": "compare"}):
        shown = [one for one in COMPARED if one[1] is None or any(_has(g, one[1]) for g in groups)]
        size = (WIDTH, COMPARED_HEIGHT * len(shown))
        figure, axes = plt.subplots(
            len(shown), len(groups), figsize=size, sharex=True, sharey="row", squeeze=False
        )
        for row, (title, metric) in zip(axes, shown, strict=True):
            for index, (one, group) in enumerate(zip(row, groups, strict=True)):
                (run,) = group.runs
                x, y = (run.steps, run.success) if metric is None else logged(run, metric)
                one.plot(x, y, **_line(index), lw=1.5)
                one.set_title(title if index == 0 else "")
                one.xaxis.set_major_formatter(THOUSANDS)
        for index, group in enumerate(groups):
            axes[0][index].set_title(f"{group.label}: {shown[0][0]}")
            axes[-1][index].set_xlabel("env steps")
        axes[0][0].yaxis.set_major_formatter(PERCENT)
        return _svg(figure)


def best_so_far(values: Sequence[tuple[int, float]], sought: str, higher: bool) -> str:
    """A search: what each trial came to, by its number, and the best until then."""
    with plt.rc_context({**STYLE, "svg.hashsalt": "search"}):
        figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
        numbers, found = zip(*values, strict=True)
        best = (np.maximum if higher else np.minimum).accumulate(found)
        axes.plot(numbers, found, "o", color=colour(0), ms=5)
        axes.step(numbers, best, where="post", color=colour(1))
        axes.set(title="Each trial, and the best so far", xlabel="trial", ylabel=sought)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return _svg(figure)


def logged(run: StoredRun, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Env steps and values of the rows that have a metric."""
    if metric not in run.metrics:
        return np.empty(0), np.empty(0)
    values = run.metrics[metric]
    there = np.isfinite(values)
    return run.metrics[STEPS][there], values[there]


def _has(group: Group, metric: str) -> bool:
    return any(len(logged(run, metric)[0]) for run in group.runs)


def _success(axes: Axes, groups: Sequence[Group], of_run: Callable, of_curve: Callable) -> None:
    ends = []
    for index, group in enumerate(groups):
        several = len(group.evaluated) > 1
        for run in group.evaluated if several else ():
            axes.plot(of_run(run), run.success, color=colour(index), lw=0.8, alpha=0.55)
        curve = group.curve()
        x = of_curve(curve)
        if len(x) and np.isfinite(x).all():
            axes.fill_between(x, curve.low, curve.high, color=colour(index), alpha=0.16, lw=0)
            marker = "o" if len(x) < 30 else ""
            axes.plot(x, curve.centre, **_line(index), marker=marker, ms=3.5)
            ends.append((x[-1], curve.centre[-1], group.label, index))
    axes.set_xlim(left=0)
    axes.set_ylim(-0.02, 1.04)
    axes.yaxis.set_major_formatter(PERCENT)
    _label(axes, ends)


def _line(index: int) -> dict[str, Any]:
    return {"color": colour(index), "ls": DASHES[index // len(COLOURS) % len(DASHES)]}


def _label(axes: Axes, ends: Sequence[tuple[float, float, str, int]]) -> None:
    """Names at the right edge, at their curves' heights, moved apart where they would overlap."""
    if len({label for _, _, label, _ in ends}) < 2:
        return
    gap, size = (LABEL_GAP, 9.5) if len(ends) <= MANY else (LABEL_GAP / 2, 6.5)
    to_axes = axes.transAxes.inverted()
    wanted = [to_axes.transform(axes.transData.transform((x, y)))[1] for x, y, _, _ in ends]
    for place, height in zip(np.argsort(wanted), _apart(np.sort(wanted), gap), strict=True):
        x, y, label, index = ends[place]
        axes.annotate(
            label,
            xy=(x, y),
            xytext=(1.02, height),
            textcoords="axes fraction",
            color=colour(index),
            va="center",
            fontsize=size,
            arrowprops={"arrowstyle": "-", "color": colour(index), "lw": 0.6, "alpha": 0.6},
            annotation_clip=False,
        )


def _apart(heights: np.ndarray, gap: float) -> np.ndarray:
    """Sorted heights in [0, 1] with a gap between two; what the top has no room for moves down."""
    spread = heights.copy()
    for index in range(1, len(spread)):
        spread[index] = max(spread[index], spread[index - 1] + gap)
    ceiling = 1.0
    for index in reversed(range(len(spread))):
        spread[index] = min(spread[index], ceiling)
        ceiling = spread[index] - gap
    return spread


def _svg(figure: Figure) -> str:
    """The figure as an element of a page, without what would tell when it was drawn."""
    figure.tight_layout()
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata=dict.fromkeys(UNSAID))
    plt.close(figure)
    text = stream.getvalue()
    return text[text.index("<svg") :]
