"""The command and its page, opened in a real browser; the committed table and its files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stored import climb, store

import report
from fetchlab.config import ROOT, config_hash
from fetchlab.report.groups import each_alone, group_runs
from fetchlab.report.media import newest_videos
from fetchlab.report.runs import read_run

sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from results import BEGIN, END, published, redrawn

PUBLISHED = ROOT / "docs" / "results" / "pixel_push_laptop_without_symmetry"
GIF = ROOT / "docs" / "pixel_push_laptop.gif"
BROWSER = shutil.which("chromium")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-background-networking --hide-scrollbars"

#: Where a page from a file asked for something, in Chromium's log of its network.
ASKED_BY_A_PAGE = '"network_isolation_key":"file:'


def command(monkeypatch, capsys, *args):
    """The exit code of `python src/report.py <args>`, and what it says."""
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, args)])
    try:
        report.main()
        code = 0
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr()
    return code, said.out, said.err


def files(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def runs(tmp_path):
    """The published seeds, and a video of an evaluation of one of them."""
    folder = Path(shutil.copytree(PUBLISHED, tmp_path / "runs"))
    (folder / "seed0" / "videos").mkdir()
    evaluated(folder / "seed0", "000160000_0")
    return folder


def evaluated(run_dir, stem, **told):
    """Add an evaluation at 160,000 env steps, and its video."""
    name = f"{stem}_best.gif"
    shutil.copy(GIF, run_dir / "videos" / name)
    file = run_dir / "evaluations" / f"{stem}.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"env_steps": 160_000, "videos": [name], **told}))


def browse(tmp_path, page, *flags):
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    done = subprocess.run(
        [BROWSER, *FLAGS.split(), profile, *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_the_page_in_a_browser(runs, tmp_path, monkeypatch, capsys):
    before, out, log = files(runs), tmp_path / "out", tmp_path / "net.json"
    assert command(monkeypatch, capsys, f"runs={runs}", f"out={out}")[0] == 0
    assert files(runs) == before
    dom = browse(tmp_path, out / "report.html", f"--log-net-log={log}", "--dump-dom")
    sections = {one: dom.index(f'id="{one}"') for one in ("verdicts", "curves", "videos", "tables")}
    assert [*sections] == sorted(sections, key=sections.get)
    verdict = dom[sections["verdicts"] : sections["curves"]]
    assert "94 % at 160,000 env steps" in verdict
    curves = dom[sections["curves"] : sections["videos"]]
    assert curves.count("<svg") == 1 and "Success over wall time" in curves
    assert len(re.findall(r"<path[^>]*stroke: #0072b2", curves)) >= 8  # three seeds, a mean, twice
    videos = dom[sections["videos"] : sections["tables"]]
    assert 'src="data:image/gif;base64,' in videos and "pixel_push_laptop, seed 0" in videos
    tables = dom[sections["tables"] :]
    assert tables.count("<table>") == 3 and "130,000 (25 min) to 150,000 (36 min)" in tables
    assert "http:" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", dom) and "https:" not in dom
    said = log.read_text()
    assert '"constants"' in said and ASKED_BY_A_PAGE not in said


def test_the_same_runs_give_the_same_files(runs, tmp_path, monkeypatch, capsys):
    out, made = tmp_path / "out", []
    for _ in range(2):
        assert (
            command(monkeypatch, capsys, f"runs=[{runs}/seed1,{runs}/seed0]", f"out={out}")[0] == 0
        )
        made.append([(out / name).read_bytes() for name in ("report.html", "report.md")])
    assert made[0] == made[1]
    text = made[0][1].decode()
    assert "| pixel_push_laptop | 110,000 (35 min) to 130,000 (32 min) |" in text
    assert "- **pixel_push_laptop**: " in text


def test_large_videos_are_linked_and_links_are_not_followed(runs, tmp_path, monkeypatch, capsys):
    names = ["000160000_0_best.gif", "000160000_0_median.gif"]
    evaluated(runs / "seed0", "000160000_0", videos=names)
    (runs / "seed0" / "videos" / names[1]).symlink_to(GIF)
    args = [f"runs={runs}", f"out={tmp_path / 'out'}", "embed_mb=0.1"]
    assert command(monkeypatch, capsys, *args)[0] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "base64" not in page and page.count("<img") == 1
    assert '<img src="../runs/seed0/videos/000160000_0_best.gif"' in page


def test_each_set_of_configurations_has_a_folder_of_its_own(compose_run, tmp_path):
    folders = [
        store(tmp_path / "own", compose_run("state_push"), [0.1]),
        store(tmp_path / "arm", compose_run("state_push", "algo.tau=0.1"), [0.1]),
        store(tmp_path / "mine", {**compose_run("state_push"), "experiment": "mine"}, [0.1]),
    ]
    own, arm, mine = (read_run(folder, config_hash) for folder in folders)
    sets = ([own], [arm], [own, arm], [mine])
    names = [report.default_out(group_runs(one), two=False).name for one in sets]
    assert names[0] == "state_push" and len({*names}) == len(names)
    assert re.fullmatch(r"state_push_[0-9a-f]{8}", names[1])
    pairs = ([own, own], [own, arm], [arm, own])
    assert len({report.default_out(each_alone(pair), two=True) for pair in pairs}) == 3
    long = [replace(own, config={"experiment": f"{'x' * 60}{end}"}, identity=end) for end in "ab"]
    (one, other) = (report.default_out(group_runs([run]), two=False).name for run in long)
    assert one != other and one[:60] == other[:60] and len(one) == 69


def test_only_videos_of_the_run_as_it_is_are_its_own(runs):
    run_dir = runs / "seed0"
    evaluated(run_dir, "000160000_1", stochastic=True)
    evaluated(run_dir, "000160000_2", changes={"task.max_episode_steps": 4})
    evaluated(run_dir, "000160000_3", checkpoint="/other/checkpoints/best_000160000")
    shutil.copy(GIF, run_dir / "videos" / "999999999_of_nobody.gif")
    assert [path.name for path in newest_videos(run_dir)] == ["000160000_0_best.gif"]
    # As it once was: a later evaluation has written over the video of the same env steps.
    evaluated(run_dir, "000160000_4", stochastic=True, videos=["000160000_0_best.gif"])
    assert newest_videos(run_dir) == []


def test_a_run_that_is_given_twice_counts_once_and_is_named(runs, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(PUBLISHED / "seed0", tmp_path / "copy")
    args = [f"runs=[{runs},{copy}]", f"out={tmp_path / 'out'}", "films=0"]
    code, said, warned = command(monkeypatch, capsys, *args)
    assert (code, warned.count("\n")) == (0, 1) and "of 3 seeds" in said
    assert f"left out: {copy}" in warned
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"left out: {copy}" in text and "3 runs of 1 configuration" in text


def test_a_sweep_that_is_half_done_and_half_broken(cells, tmp_path, monkeypatch, capsys):
    for letter, level in {"A": 0.9, "B": 0.06, "C": 0.06}.items():
        name = "$evil$ <b>" if letter == "C" else cells[letter]["experiment"]
        cfg = {**cells[letter], "experiment": name}
        store(
            tmp_path / "runs" / letter, cfg, climb(4, level), None if letter == "A" else "finished"
        )
    (tmp_path / "runs" / "B" / "metrics.csv").write_text("env_steps\n?\n")
    shutil.copytree(tmp_path / "runs" / "C", tmp_path / "runs" / "broken")
    (tmp_path / "runs" / "broken" / "config.yaml").write_text("[")
    args = [f"runs={tmp_path / 'runs'}", f"out={tmp_path / 'out'}"]
    code, said, warned = command(monkeypatch, capsys, *args)
    assert code == 0 and len(warned.splitlines()) == 2 and said.count("\n") == 4
    page = (tmp_path / "out" / "report.html").read_text()
    text = (tmp_path / "out" / "report.md").read_text()
    assert "$evil$ &lt;b&gt;" in page and "<b>" not in page.partition('id="curves"')[2]
    for shown in (page, text):
        assert "The data do not suffice yet: no evaluation of" in shown
        assert "metrics.csv cannot be read" in shown and "left out: config=" in shown


def test_two_runs_are_compared(runs, tmp_path, monkeypatch, capsys):
    changed = runs / "seed1" / "config.yaml"
    changed.write_text(changed.read_text().replace("tau: 0.005", "tau: 0.05"))
    args = [f"compare=[{runs}/seed0,{runs}/seed1]", f"out={tmp_path / 'out'}", "films=0"]
    assert command(monkeypatch, capsys, *args)[0] == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "# pixel_push_laptop seed 0 against pixel_push_laptop seed 1" in text
    assert "| algo.tau | 0.005 | 0.05 |" in text and "| seed | 0 | 1 |" in text
    assert "Versions are not known of" in text  # published without what they record
    assert (tmp_path / "out" / "report.html").read_text().count("<svg") == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "runs=None: expected one of runs and compare; e.g. runs=logs/state_reach"),
        (["runs=a", "compare=[a,b]"], "runs='a': expected one of runs and compare"),
        (["runs=/nothing/here"], "runs='/nothing/here': expected a run's folder"),
        (["runs=3x[y"], "runs='3x[y': expected a run's folder"),
        ([f"compare=[{PUBLISHED}/seed0]"], "expected two runs' folders"),
        ([f"compare=[{PUBLISHED},{PUBLISHED}/seed0]"], "expected one run's folder, and it holds 3"),
        ([f"compare=[{PUBLISHED}/seed0,{PUBLISHED}/seed0]"], "give two different runs"),
        (["run=a"], "run='a': expected only"),
        (["runs=a", "films=many"], "films='many': expected how many configurations to film"),
        ([f"runs={PUBLISHED}", "films=0", "out=/proc/x"], "out='/proc/x': expected a folder"),
    ],
)
def test_slips_are_one_line(monkeypatch, capsys, args, words):
    code, said, warned = command(monkeypatch, capsys, *args)
    assert (code, said, warned.count("\n")) == (2, "", 1) and words in warned


def test_help(monkeypatch, capsys):
    code, said, _ = command(monkeypatch, capsys, "--help")
    assert code == 0 and "python src/report.py runs=RUNS" in said


def test_the_published_table_is_what_its_files_say():
    document = (ROOT / "docs" / "results.md").read_text()
    folders = published(ROOT / "docs" / "results")
    drawn = redrawn(document, [read_run(folder, config_hash) for folder in folders])
    assert drawn == document, "run: make results"
    assert len(folders) == drawn.count("\n| `")


def test_a_published_row_has_what_the_publisher_records(tmp_path, compose_run):
    folder = store(tmp_path / "mine" / "seed3", compose_run("state_push"), [0.5, 0.6])
    (folder / "published.json").write_text(json.dumps({"commit": "abc1234", "hardware": "2 cores"}))
    (folder / "evaluations").mkdir()
    told = {"seeds_are": "used neither by training nor by its evaluations", "changes": {}}
    told |= {"success_rate": 0.7, "success_rate_95": [0.6, 0.78], "episodes": 100, "env_steps": 7}
    for name, other in {
        "000000007_10": {},  # the newest: 10 comes after 2
        "000000007_2": {"success_rate": 0.1},
        "000000006_11": {"success_rate": 0.1, "env_steps": 6},
        "000000008_0": {"success_rate": 0.1, "env_steps": 8, "stochastic": True},
        "000000008_1": {"success_rate": 0.1, "env_steps": 8, "changes": {"task": {}}},
        "000000008_2": {"success_rate": 0.1, "env_steps": 8, "checkpoint": "/b/step_000000008"},
    }.items():
        (folder / "evaluations" / f"{name}.json").write_text(json.dumps({**told, **other}))
    (folder / "evaluations" / "curve_0.json").write_text(json.dumps([told, told]))
    (found,) = published(tmp_path)
    row = redrawn_rows([read_run(found, config_hash)])[-1]
    assert row.startswith(
        "| `mine` | 0 | abc1234 | 2 cores | 10,000 (3 min) | - | - | - | 20,000 |"
    )
    assert row.endswith("| 7 min | 60 % (50 to 69 %) | 70 % (60 to 78 %), 100 at 7 |")


def redrawn_rows(runs):
    drawn = redrawn(f"{BEGIN}{END}", runs)
    return [line for line in drawn.splitlines() if line.startswith("| `")]
