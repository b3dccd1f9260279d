"""See what runs show: `python src/report.py runs=logs/state_reach`; `--help` lists the rest."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from fetchlab import config, entry, schema
from fetchlab.errors import ConfigError, RunFailedError, require
from fetchlab.run_folder import quoted, require_writable

HELP = """\
Draw a page on stored runs, finished or not: verdict, curves, videos, tables.

  python src/report.py runs=RUNS [KEY=VALUE ...]
  python src/report.py compare=[RUN_A,RUN_B]

Nothing is written into a run's folder. The keys of configs/report.yaml:
  runs=RUNS             a run's folder, a folder with runs below it, a glob, or a list of these;
                        runs of one configuration are its seeds,
                        of several with the same seed the one that went furthest
  compare=[RUN_A,RUN_B] two runs instead: configuration, versions and curves, side by side
  out=DIR               the folder of report.html and report.md; by default logs/reports/NAME
  films=2               so many configurations that have no video are filmed; 0 films none
  embed_mb=16           videos inside of the page; what is beyond is linked

Examples:
  python src/report.py runs=logs/state_reach
  python src/report.py 'runs=logs/pixel_push*/2026-11-*' out=/tmp/pushes
  python src/report.py runs=[docs/results/pixel_push_laptop,logs/pixel_push_laptop]
"""
LONGEST_NAME = 60


def report(plain: dict[str, Any]) -> None:
    """Read the runs, draw, and say where."""
    asked, _ = entry.asked(plain, schema.Report)
    expected, remedy = "one of runs and compare", "e.g. runs=logs/state_reach; --help has more"
    given = (asked.runs, asked.compare)
    require(given.count(None) == 1, "runs", asked.runs, expected, remedy)
    from fetchlab.report import groups, media, page
    from fetchlab.report.runs import find_runs, read_runs, recorded

    two = asked.compare is not None
    folders = find_two(asked.compare) if two else find_runs("runs", asked.runs)
    runs, notes = read_runs(folders, config.config_hash)
    if not two:
        runs, copies = groups.one_of_each_seed(runs)
        notes += copies
    for line in [*notes, *(note for run in runs for note in run.notes)]:
        print(f"warning: {line}", file=sys.stderr)
    enough = len(runs) == 2 if two else bool(runs)
    if not enough:
        raise RunFailedError("nothing to draw: the configurations above cannot be read")
    found = groups.each_alone(runs) if two else groups.group_runs(runs)
    out = Path(asked.out) if asked.out is not None else default_out(found, two)
    require_writable("out", out, "choose another")
    films, unfilmed = filmed(found, out, asked.films)
    videos = media.videos(films, out, int(asked.embed_mb * 1e6))
    if two:
        records = [recorded(run.folder) for run in runs]
        drawn = page.of_two(found, records, notes + unfilmed, videos)
    else:
        from fetchlab.report.search import of_searches

        searches, unread = of_searches(folders)
        drawn = page.of_runs(found, [*notes, *unfilmed, *unread], videos, searches)
    html, markdown = page.write(out, drawn)
    for one in drawn["verdicts"]:
        print(f"{one['label']}: {one['text']}")
    print(f"report: {html} (and {markdown.name})")


def find_two(asked: Sequence[str]) -> list[Path]:
    """The folders of two different runs.

    Raises:
        ConfigError: they are not.
    """
    from fetchlab.report.runs import find_runs

    key, example = "compare", "compare=[RUN_A,RUN_B]"
    require(len(asked) == 2, key, asked, "two runs' folders", example)
    folders = []
    for one in asked:
        runs = find_runs(key, one)
        says = f"one run's folder, and it holds {len(runs)}"
        require(len(runs) == 1, key, one, says, f"e.g. {quoted(runs[0])}")
        folders += runs
    same = folders[0].resolve() == folders[1].resolve()
    require(not same, key, asked, "two runs' folders", "give two different runs")
    return folders


def default_out(found: Sequence[Any], two: bool) -> Path:
    """A folder of its own for each set of configurations, so that drawing again replaces it.

    It has the names of the experiments, and a hash where these alone do not say all.
    """
    runs = [group.runs[0] for group in found]
    names = dict.fromkeys(group.label if two else group.runs[0].experiment for group in found)
    name = re.sub(r"[^\w.+-]+", "_", "+".join(names))
    if len(name) > LONGEST_NAME or not all(map(_as_its_experiment, runs)):
        of = config.config_hash({"of": [run.identity for run in runs]})
        name = f"{name[:LONGEST_NAME]}_{of}"
    return config.ROOT / "logs" / "reports" / name


def _as_its_experiment(run: Any) -> bool:
    """Whether a run's configuration is what its experiment's file says today."""
    from fetchlab.report.differences import decisive

    if run.experiment not in config.names("experiment"):
        return False
    try:
        own = config.compose(run.experiment)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError):
        return False
    return bool(run.identity == config.config_hash(decisive(own)))


def filmed(
    found: Sequence[Any], out: Path, at_most: int
) -> tuple[list[tuple[str, Path]], list[str]]:
    """Videos of the first run of each configuration that has any: captions, files, and notes."""
    from fetchlab.report.media import newest_videos

    films, notes, made = [], [], 0
    for group in found:
        stored = [(run, newest_videos(run.folder)) for run in group.runs]
        run, paths = next((one for one in stored if one[1]), stored[0])
        if not paths and made < at_most and (run.folder / "checkpoints").is_dir():
            from fetchlab.play import film

            made += 1
            print(f"filming {quoted(run.folder)} ...", flush=True)
            try:
                paths = film(run.folder, out / "videos", f"{run.identity}_s{run.seed}")
            except (ConfigError, RunFailedError) as error:
                notes.append(f"no video of {group.label}: {str(error).partition(chr(10))[0]}")
        films += [(f"{group.label}, seed {run.seed}", path) for path in paths]
    return films, notes


def main() -> None:
    """Run the command line."""
    lists = {arg.partition("=")[0] for arg in sys.argv[1:] if "=[" in arg}
    paths = [key for key in ("runs", "out") if key not in lists]
    entry.command("report", report, HELP, paths)


if __name__ == "__main__":
    main()
