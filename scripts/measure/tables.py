"""Plain tables on stdout, and the same numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_TEXT, _CELL = 56, 15


def heading(text: str, *columns: str) -> None:
    """A blank line, then a section's name and the names of its columns."""
    print()
    print(text.ljust(_TEXT) + "".join(column.rjust(_CELL) for column in columns))


def row(text: str, *cells: float | str | None) -> None:
    """One line of a section: numbers to three digits, texts as they are, nothing for None."""
    print(f"  {text}".ljust(_TEXT) + "".join(_cell(cell).rjust(_CELL) for cell in cells))


def percent(share: float | None) -> str:
    """A share as text, to two digits."""
    if share is None:
        return ""
    return f"{share:.0%}" if share >= 0.0995 else f"{100 * share:.2g}%"


def over(part: float, whole: float | None) -> float | None:
    """``part / whole``, None where there is no whole."""
    return part / whole if whole else None


def each(found: Mapping[str, Mapping[str, Any]], *keys: str | int) -> list[Any]:
    """The same entry of every column: ``found[name][key]...`` for each name."""
    values: Sequence[Any] = list(found.values())
    for key in keys:
        values = [value[key] for value in values]
    return list(values)


def write_json(path: Path | None, report: Mapping[str, Any]) -> None:
    """Write the report where a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


def _cell(cell: float | str | None) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else f"{cell:.3g}"
