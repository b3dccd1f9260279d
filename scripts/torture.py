"""The fault table against real short runs: `python scripts/torture.py --short | --full`.

Each row breaks a run of `src/train.py` in its own way, resumes it where that is the promise, and
compares H (`scripts/run_hash.py`) with the run that nothing disturbed. Prints one line per row:
number, fault, what must happen, what was seen, pass. Exit code 0 if none failed.
"""

from __future__ import annotations

import argparse
import os
import pickle
import platform
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from torture.bench import Bench, Result, prepare  # noqa: E402
from torture.table import ROWS, Row  # noqa: E402
from torture.victims import die_with_parent  # noqa: E402

RANDOM_KILLS = 2  # the row that `--kills` counts


@dataclass
class Case:
    """One part of one row for one kind of run."""

    row: Row
    kind: str
    part: int


def main() -> int:
    """Run the command line."""
    options = arguments()
    began = time.monotonic()
    import_everything()
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    try:
        cases = planned(options)
        kinds = sorted({case.kind for case in cases})
        benches = dict(
            zip(kinds, in_parallel(kinds, lambda kind: made(kind, folder, options), 2), strict=True)
        )
        print(f"prepared in {time.monotonic() - began:.0f} s", file=sys.stderr)
        results = in_parallel(cases, lambda case: tried(case, benches, folder), options.jobs)
        lines = table(cases, results)
        report(lines, options.markdown)
        print(f"{time.monotonic() - began:.0f} s in all", file=sys.stderr)
        return int(any(line[-1] == "FAIL" for line in lines))
    finally:
        if options.keep:
            print(f"kept: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--short", action="store_true", help="about a minute; the default")
    size.add_argument("--full", action="store_true", help="every row thoroughly, pixels too")
    parser.add_argument("--rows", help="numbers such as 1,2,17; default: all")
    parser.add_argument("--kills", type=int, help="of each kind of run in row 2")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--markdown", type=Path, help="also write the table to this file")
    parser.add_argument("--keep", action="store_true", help="keep the runs' folders")
    return parser.parse_args()


def import_everything() -> None:
    """What a run imports, once, before any fork; and the renderer, which is probed once."""
    import fetchlab.run
    from fetchlab.preflight.renderer import choose_renderer

    assert fetchlab.run
    choose_renderer()


def made(kind: str, folder: Path, options: argparse.Namespace) -> Bench:
    """The runs of one kind that everything is compared with."""
    return prepare(kind, folder / kind, options.full)


def planned(options: argparse.Namespace) -> list[Case]:
    """What will be tried, the slowest first."""
    numbers = {int(number) for number in options.rows.split(",")} if options.rows else None
    cases = []
    for row in ROWS:
        if numbers is None or row.number in numbers:
            for kind, parts in (("state", row.state), ("pixel", row.pixel)):
                count = parts[options.full]
                if row.number == RANDOM_KILLS and options.kills is not None:
                    count = options.kills
                cases += [Case(row, kind, part) for part in range(count)]
    return sorted(cases, key=lambda case: (case.row.number != 3, case.kind != "pixel"))


def tried(case: Case, benches: dict[str, Bench], folder: Path) -> Result:
    """Do it; whatever goes wrong in doing so is a failure of the row."""
    name = f"{case.row.number}-{case.kind}-{case.part}"
    bench = replace(benches[case.kind], folder=folder / name, rng=random.Random(name))
    began = time.monotonic()
    try:
        result = case.row.check(bench, case.part)
    except Exception:
        result = Result(False, traceback.format_exc())
    took = time.monotonic() - began
    used = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    took_text = f"{took:.1f} s, {used:.1f} s of CPU"
    print(f"row {name}: {result.ok}, {took_text}: {result.seen}", file=sys.stderr)
    return result


def in_parallel(items: Iterable[Any], job: Callable[[Any], Any], at_once: int) -> list[Any]:
    """``[job(item) for item in items]``, each in a forked process of its own."""
    todo = list(enumerate(items))[::-1]
    results: dict[int, Any] = {}
    running: dict[int, tuple[int, Any]] = {}
    while todo or running:
        while todo and len(running) < at_once:
            index, item = todo.pop()
            output = tempfile.TemporaryFile()  # noqa: SIM115
            pid = os.fork()
            if pid == 0:
                _child(lambda item=item: job(item), output)
            running[pid] = index, output
        pid, _ = os.wait()
        index, output = running.pop(pid)
        output.seek(0)
        results[index] = pickle.load(output)  # our own process wrote it
    return [results[index] for index in sorted(results)]


def _child(job: Callable[[], Any], output: Any) -> None:
    try:
        die_with_parent()
        pickle.dump(job(), output)
        output.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(0)


def table(cases: list[Case], results: list[Result]) -> list[tuple[str, ...]]:
    """One line per row and kind: number, run, fault, expected, seen, pass."""
    lines = []
    for row in ROWS:
        for kind in ("state", "pixel"):
            mine = [
                result
                for case, result in zip(cases, results, strict=True)
                if case.row is row and case.kind == kind
            ]
            if mine:
                lines.append((str(row.number), kind, row.fault, row.expected, *summed(mine)))
    return lines


def summed(results: list[Result]) -> tuple[str, str]:
    """What the parts of a row saw together, and the verdict."""
    bad = [result.seen for result in results if result.ok is False]
    if bad:
        return f"{len(results) - len(bad)}/{len(results)}; {bad[0]}", "FAIL"
    seen = list(dict.fromkeys(result.seen for result in results))
    count = f"{len(results)}/{len(results)}: " if len(results) > 1 else ""
    verdict = "not tried" if any(result.ok is None for result in results) else "pass"
    return count + "; ".join(seen), verdict


HEADING = """# The fault table

`{command}` breaks real short runs of `src/train.py` in the ways below,
resumes them where that is the promise, and compares H (`scripts/run_hash.py`: weights, targets,
optimizers, random states, simulators, every replay row that can be sampled, metrics, evaluations)
with the run that nothing disturbed.
The ring holds 110 rows per environment and wraps 3.9 times in a run. {date}: {versions}.

"""


def heading() -> str:
    """What was run, when, on what."""
    names = ("torch", "lightning", "torchrl", "mujoco", "gymnasium-robotics")
    found = [f"{name} {metadata.version(name)}" for name in names]
    cores = f"{len(os.sched_getaffinity(0))} cores of {platform.machine()}"
    versions = ", ".join([f"Python {platform.python_version()}", *found, cores])
    command = " ".join(["python", "scripts/torture.py", *sys.argv[1:]])
    return HEADING.format(command=command, date=datetime.now(UTC).date(), versions=versions)


def report(lines: list[tuple[str, ...]], markdown: Path | None) -> None:
    """Print the table; write it to a file as well if asked."""
    head = ("row", "run", "fault", "must happen", "seen", "pass")
    rows = [" | ".join(" ".join(cell.split()).replace("|", "/") for cell in line) for line in lines]
    text = "\n".join([" | ".join(head), *rows])
    print(text, flush=True)
    if markdown is not None:
        rule = "|".join("---" for _ in head)
        body = "\n".join(f"| {row} |" for row in rows)
        markdown.write_text(f"{heading()}| {' | '.join(head)} |\n|{rule}|\n{body}\n")


if __name__ == "__main__":
    sys.exit(main())
