"""A search as its study's file tells it, which `fetchlab.search` writes beside its runs."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fetchlab.report.differences import ABSENT
from fetchlab.report.plots import best_so_far
from fetchlab.report.runs import attempt
from fetchlab.report.tables import Table

#: In the folder of a study.
STUDY = "study.json"


def of_searches(folders: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """A section of the page for each study that some runs belong to, and what cannot be read."""
    notes: list[str] = []
    roots = dict.fromkeys(folder.parent for folder in folders)
    sections = [attempt(_section, root / STUDY, None, notes) for root in roots]
    return [one for one in sections if one], notes


def _section(path: Path) -> dict[str, Any]:
    root, study = path.parent, json.loads(path.read_text())
    trials, best, shares = study["trials"], study["best"], study["importances"]
    keys = list(dict.fromkeys(key for one in trials for key in one["params"]))
    ended = [one for one in trials if one["state"] == "complete"]
    sought = f"{study['of']} {study['metric']}"
    lines = ["No trial has ended with a value yet."]
    if best is not None:
        lines = [
            f"The best of {len(ended)} whole trials is number {best['number']}: {sought} "
            f"{best['value']:.4g} with {', '.join(best['overrides'])}.",
            f"To train it at full length: {best['command']}",
            "To go on with that run itself: python src/train.py "
            f"resume={shlex.quote(str(root / best['run']))} total_env_steps=M",
        ]
    tables = [
        Table(
            "Trials",
            ["trial", "state", sought, "return", *keys, "folder"],
            [_row(one, keys) for one in trials],
            f"Each a run of {study['total_env_steps']:,} env steps. A pruned one was below the "
            "median of those before it, and has the value of that moment.",
        )
    ]
    if shares:
        note = (
            "How much of what tells the best tenth of the trials from all of them is this "
            "parameter's; PED-ANOVA (arXiv 2304.10255). Few trials say little."
        )
        rows = [[key, f"{100 * share:.0f} %"] for key, share in shares.items()]
        tables.append(Table("Importance of the parameters", ["parameter", "share"], rows, note))
    values = [(int(one["number"]), float(one["value"])) for one in ended]
    return {
        "title": f"Search: {study['direction']} {sought} of {study['experiment']}",
        "lines": lines,
        "figure": best_so_far(values, sought, study["direction"] == "maximize") if values else "",
        "tables": tables,
    }


def _row(one: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    state = f"failed: {one['cause']}" if one["state"] == "fail" else str(one["state"])
    numbers = [one["value"], one["return"], *(one["params"].get(key) for key in keys)]
    return [str(one["number"]), state, *map(_shown, numbers), str(one["run"] or ABSENT)]


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    return f"{value:.4g}" if isinstance(value, float) else str(value)
