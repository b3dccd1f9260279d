"""The gate: lint, format, types and spelling, and a lock that keeps what the project declares."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
CHECKS = ("ruff check .", "ruff format --check .", "mypy", "codespell_lib")


@pytest.mark.parametrize("check", CHECKS)
def test_check(check):
    module, *arguments = check.split()
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed on this host")
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


def test_make_check_runs_the_same_checks():
    recipe = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    assert re.findall(r"-m (.+)", recipe) == list(CHECKS)


def test_pre_commit_runs_the_same_tools():
    entries = re.findall(r"entry: .* -m (\w+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert set(entries) == {check.split()[0] for check in CHECKS}


def _lock() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def test_the_lock_holds_exact_public_versions():
    for name, version in _lock().items():
        assert str(Version(version).public) == str(Version(version)), f"{name}=={version}"


def _declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    return [Requirement(line) for line in lines + project["build-system"]["requires"]]


@pytest.mark.parametrize("requirement", _declared(), ids=lambda requirement: requirement.name)
def test_the_lock_keeps_what_is_declared(requirement):
    locked = _lock()[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(locked), f"{requirement} is locked at {locked}"
