"""`scripts/setup.sh`: which `.venv` it keeps, and which it makes anew."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: An interpreter whose `.venv` is a copy of itself, and that installs nothing.
INTERPRETER = f"""#!/bin/sh
case "$*" in
--version) echo 'Python {{version}}' ;;
'-c import pip') exit {{no_pip}} ;;
'-m venv '*) rm -rf .venv && mkdir -p .venv/bin && cp '{{made}}' .venv/bin/python ;;
'-m pip '*) ;;
*) exec '{sys.executable}' "$@" ;;
esac
"""
PRESENT = "#!/bin/sh\necho installed\n"  # dpkg-query: no package is missing


def program(path, text, **said):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.format(**said) if said else text)
    path.chmod(0o755)
    return path


@pytest.fixture
def set_up(tmp_path):
    """Run the script, with a `PYTHON`, in a copy of what it reads; no system library is missing."""
    for name in ("scripts/setup.sh", "requirements.lock", "pyproject.toml"):
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    system = program(tmp_path / "bin" / "dpkg-query", PRESENT).parent

    def run(python: object = "") -> subprocess.CompletedProcess[str]:
        path = f"{system}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", tmp_path / "copy" / "scripts" / "setup.sh"],
            env={**os.environ, "PATH": path, "PYTHON": str(python)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_venv_without_pip_or_of_another_version_than_asked_for_is_made_anew(set_up, tmp_path):
    new = tmp_path / "new"
    program(new, INTERPRETER, version="3.12.1", no_pip=0, made=new)
    for version, no_pip in (("3.12.1", 1), ("3.11.2", 0)):
        there = tmp_path / "copy" / ".venv" / "bin" / "python"
        program(there, INTERPRETER, version=version, no_pip=no_pip, made=new)
        done = set_up(new)
        assert done.returncode == 0, done.stderr
        assert f"set-up: making .venv with {new} (Python 3.12.1)" in done.stdout
        assert done.stdout.endswith("set-up: .venv is ready\n")
    for python in (new, ""):
        again = set_up(python)
        assert again.stdout.endswith("set-up: .venv is up to date\n")
        assert "making" not in again.stdout
        assert again.stderr == ""


def test_a_python_that_is_not_there_is_refused_in_one_line_whatever_there_is(set_up, tmp_path):
    there = tmp_path / "copy" / ".venv" / "bin" / "python"
    program(there, INTERPRETER, version="3.11.2", no_pip=0, made=there)
    done = set_up(tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr == (
        f"set-up: error: PYTHON={tmp_path}/none is not a Python of 3.11 to 3.13\n"
    )
    assert there.exists()
