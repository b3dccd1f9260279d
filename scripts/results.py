"""Draw the table of docs/results.md from the published runs' files: `make results`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fetchlab.config import ROOT, config_hash
from fetchlab.durable import read_json
from fetchlab.durations import format_duration
from fetchlab.errors import require
from fetchlab.report.differences import ABSENT
from fetchlab.report.levels import LEVELS, RULE, cell
from fetchlab.report.runs import StoredRun, evaluations, is_own, read_run
from fetchlab.report.verdict import percent_with_interval, success

BEGIN = "<!-- drawn by `make results` from docs/results: edit those files, not this table -->"
END = "<!-- end of what `make results` draws -->"
#: Beside a published run's own files, what only the publisher knows: commit, hardware.
PUBLISHED = "published.json"
UNUSED = "used neither by training nor by its evaluations"


def published(folder: Path) -> list[Path]:
    """The folders of published runs, ``<experiment>/seed<N>``."""
    found = {path.parent for path in folder.glob("*/seed*/config.yaml")}
    return sorted(found, key=lambda path: (path.parent.name, len(path.name), path.name))


def table(runs: Sequence[StoredRun]) -> str:
    """One row a run, as Markdown."""
    header = ["run", "seed", "commit", "hardware", *(f"{100 * one:.0f} %" for one in LEVELS)]
    header += ["env steps", "time", "last evaluation (95 % interval)", "on unused episodes"]
    lines = [header, ["---"] * len(header), *map(_row, runs)]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{drawn}\n\nColumns 50 % to 95 %: env steps and time to that success. {RULE}"


def redrawn(text: str, runs: Sequence[StoredRun]) -> str:
    """A document with the table between its two marks drawn anew.

    Raises:
        ConfigError: the marks are not there, each once and in order.
    """
    whole = text.count(BEGIN) == text.count(END) == 1 and text.index(BEGIN) < text.index(END)
    require(whole, "docs/results.md", "its marks", f"{BEGIN} before {END}", "restore them")
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{table(runs)}\n\n{END}{rest.partition(END)[2]}"


def _row(run: StoredRun) -> list[str]:
    known = read_json(run.folder / PUBLISHED, dict)
    time = run.summary.get("wall_time_s")
    return [
        f"`{run.folder.parent.name}`",
        str(run.seed),
        str(known.get("commit", ABSENT)),
        str(known.get("hardware", run.summary.get("device", ABSENT))),
        *(cell([run], level) for level in LEVELS),
        f"{run.env_steps:,}",
        format_duration(time) if isinstance(time, int | float) else ABSENT,
        success(run),
        _on_unused_episodes(run.folder),
    ]


def _on_unused_episodes(folder: Path) -> str:
    """The newest evaluation of the run's own task on episodes that nothing else uses."""
    told = [one for one in evaluations(folder) if one.get("seeds_are") == UNUSED and is_own(one)]
    if not told:
        return ABSENT
    newest: Mapping[str, Any] = told[-1]
    interval = percent_with_interval(newest["success_rate"], *newest["success_rate_95"])
    return f"{interval}, {newest['episodes']} at {newest['env_steps']:,}"


def main() -> None:
    """Write the document."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    path = ROOT / "docs" / "results.md"
    folders = [folder.relative_to(ROOT) for folder in published(ROOT / "docs" / "results")]
    runs = [read_run(ROOT / folder, config_hash) for folder in folders]
    path.write_text(redrawn(path.read_text(), runs))
    print(f"{path.relative_to(ROOT)}: {len(runs)} runs")


if __name__ == "__main__":
    main()
