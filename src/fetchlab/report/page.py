"""One page of everything: `report.html`, which needs nothing else, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from fetchlab import __version__
from fetchlab.durable import write_text
from fetchlab.report import factorial, plots, study, tables, verdict
from fetchlab.report.groups import Group
from fetchlab.report.media import Video

HTML, MARKDOWN = "report.html", "report.md"


def of_runs(
    groups: Sequence[Group],
    notes: Sequence[str],
    videos: Sequence[Video],
    searches: Sequence[Mapping[str, Any]] = (),
) -> dict:
    """What a report on any number of runs shows; the notes are lines on what cannot be read."""
    differences = tables.of_differences(groups)
    shown = [tables.of_groups(groups), tables.of_levels(groups)]
    shown += [differences] if differences else []
    names = list(dict.fromkeys(group.runs[0].experiment for group in groups))
    return {
        "title": ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else ""),
        "figures": [plots.curves(groups)],
        "factorial": _factorial(groups),
        "searches": searches,
        "tables": [*shown, tables.of_runs(groups)],
        **_common(groups, notes, videos),
    }


def of_two(
    groups: Sequence[Group],
    records: Sequence[Mapping[str, Any]],
    notes: Sequence[str],
    videos: Sequence[Video],
) -> dict:
    """What a comparison of runs shows; a record is empty where no checkpoint has one."""
    configs = [group.runs[0].config for group in groups]
    configuration = tables.of_keys(
        "Configuration", groups, tables.differing(configs, ("run_dir", "trusted_modules"))
    )
    versions = tables.of_keys(
        "Versions and machine", groups, tables.differing(records) if all(records) else []
    )
    alike = "The configurations are the same." if configuration is None else ""
    unknown = [group.label for group, one in zip(groups, records, strict=True) if not one]
    if unknown:
        same = f"Versions are not known of {', '.join(unknown)}: no checkpoint to resume from."
    else:
        same = "Versions and machine are the same." if versions is None else ""
    found = [one for one in (configuration, versions) if one]
    return {
        "title": " against ".join(group.label for group in groups),
        "figures": [plots.curves(groups), plots.compare_figure(groups)],
        "factorial": None,
        "searches": (),
        "tables": [*found, tables.of_levels(groups), tables.of_runs(groups)],
        **_common(groups, [*notes, *filter(None, [alike, same])], videos),
    }


def write(out: Path, shown: Mapping[str, Any]) -> list[Path]:
    """Write both files into a folder, whole or not at all; their paths."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fetchlab.report"),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["cell"] = _markdown_cell
    paths = []
    for name in (HTML, MARKDOWN):
        path = out / name
        write_text(path, environment.get_template(f"{name}.j2").render(shown))
        paths.append(path)
    return paths


def _common(groups: Sequence[Group], notes: Sequence[str], videos: Sequence[Video]) -> dict:
    runs = [run for group in groups for run in group.runs]
    return {
        "verdicts": [
            {
                "label": group.label,
                "text": verdict.of_group(group),
                "colour": plots.colour(index),
                "watch": tables.watch_command(group.runs[0]),
            }
            for index, group in enumerate(groups)
        ],
        "notes": [*notes, *(note for run in runs for note in run.notes)],
        "videos": videos,
        "counts": (
            f"{len(runs)} run{'s' * (len(runs) != 1)} of {len(groups)} "
            f"configuration{'s' * (len(groups) != 1)}"
        ),
        "version": __version__,
    }


def _factorial(groups: Sequence[Group]) -> dict[str, Any] | None:
    """The effects of a factorial and what they mean; None where the runs are no factorial."""
    design = factorial.find_factorial(groups)
    if design is None:
        return None
    title = " x ".join(str(factor) for factor in design.factors)
    if (lacks := design.lacks()) is not None:
        return {"title": title, "lines": [f"The data do not suffice yet: {lacks}."], "tables": []}
    letters = study.lettered(design) or {}
    shared, end = design.common_steps, factorial.at_the_end(design)
    last = shared[-factorial.LAST :]
    at_the_end = (
        f"Mean of the last {len(last)} evaluations that all seeds share, {int(last[0]):,} to "
        f"{int(last[-1]):,} env steps. An effect is the difference that a choice makes, averaged "
        "over the other choices; an interaction is how much one's effect changes with the other. "
        "Intervals: bootstrap over the seeds of each cell."
    )
    on_the_way = f"Mean of all {len(shared)} shared evaluations: who learned sooner."
    sooner = factorial.effects(design, factorial.at_the_end(design, len(shared)))
    return {
        "title": title,
        "lines": study.judged(design, letters, end) if letters else [],
        "tables": [
            tables.of_cells(design, end, letters),
            tables.of_effects("Effects at the end", factorial.effects(design, end), at_the_end),
            tables.of_effects("Effects on the way", sooner, on_the_way),
        ],
    }


def _markdown_cell(text: str) -> str:
    return " ".join(str(text).replace("|", "\\|").split())
