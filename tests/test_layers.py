"""Imports point one way, siblings do not meet, and simulator workers stay free of torch."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
PROJECT = "fetchlab"

#: From the bottom up: a part may import itself and any layer below its own, nothing beside it.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors", "patience", "durable", "random_states", "fields", "durations"}),
    frozenset({"entries", "schedule", "statistics"}),
    frozenset({"schema"}),
    frozenset({"envs", "networks", "replay", "augment", "preflight"}),
    frozenset({"collect", "checkpoint"}),
    frozenset({"report"}),  # which reads curves, for callbacks too
    frozenset({"algos", "callbacks", "loggers", "export", "launchers"}),
)
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
#: The entries (src/*.py), and the modules beside the packages that put the parts together.
TOP = len(LAYERS)

#: Modules that worker processes import; torch there costs seconds and hundreds of MB a worker.
WORKERS = ("envs.fetch", "envs.goal_env", "envs.rendering", "envs.worker", "envs.pool")
HEAVY = frozenset({"torch", "torchrl", "tensordict", "lightning"})


class Tree:
    """The modules below a source folder, by dotted name, and what each imports."""

    def __init__(self, src: Path) -> None:
        self.files = {_name(path.relative_to(src)): path for path in sorted(src.rglob("*.py"))}

    def imports(self, module: str, *, at_run_time: bool = False) -> set[str]:
        """Dotted names that ``module`` imports, the project's own ones resolved to modules."""
        path = self.files[module]
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        found = set()
        for node in _nodes(ast.parse(path.read_text()), at_run_time):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found |= self._from(node, package)
        return found

    def _from(self, node: ast.ImportFrom, package: str) -> set[str]:
        base = node.module or ""
        if node.level:
            parents = package.split(".")
            base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [base])])
        names = {f"{base}.{alias.name}" for alias in node.names}
        return {name if name in self.files else base for name in names}

    def violations(self) -> list[str]:
        """One line for each import that goes up, or sideways to another part."""
        lines = []
        for module in self.files:
            part = _part(module)
            for target in self.imports(module):
                if target.split(".")[0] != PROJECT or target == PROJECT:
                    continue
                other = _part(target)
                rank, other_rank = RANK.get(part, TOP), RANK.get(other, TOP)
                both_on_top = rank == other_rank == TOP
                if part != other and other_rank >= rank and not both_on_top:
                    lines.append(f"{module} imports {target}")
        return lines

    def reached(self, module: str) -> set[str]:
        """All that importing ``module`` imports, through the project's own modules."""
        seen: set[str] = set()
        todo = [module]
        while todo:
            name = todo.pop()
            if name not in seen:
                seen.add(name)
                if name in self.files:
                    todo += self.imports(name, at_run_time=True)
                    todo += [p for p in _parents(name) if p in self.files]
        return seen


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def _part(module: str) -> str:
    """The part of the house a module belongs to: ``fetchlab.envs.pool`` is in ``envs``."""
    names = module.split(".")
    return names[1] if names[0] == PROJECT and len(names) > 1 else "main"


def _nodes(tree: ast.AST, at_run_time: bool) -> Iterator[ast.AST]:
    """All nodes; without the body of ``if TYPE_CHECKING:`` where only run time counts."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if at_run_time and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            children = child.orelse
        else:
            children = [child]
        for node in children:
            yield from _nodes(node, at_run_time)


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(SRC)


def test_every_package_has_a_layer():
    packages = {path.parent.name for path in (SRC / PROJECT).glob("*/__init__.py")}
    assert "envs" in packages
    assert packages <= RANK.keys(), f"give a layer in this file: {sorted(packages - RANK.keys())}"


def test_imports_point_one_way(tree):
    assert tree.violations() == []


@pytest.mark.parametrize("worker", WORKERS)
def test_workers_reach_no_torch(tree, worker):
    module = f"{PROJECT}.{worker}"
    assert module in tree.files
    roots = {name.split(".")[0] for name in tree.reached(module)}
    assert not roots & HEAVY, f"{module} imports {sorted(roots & HEAVY)}"


def test_a_worker_process_has_no_torch():
    # third-party packages count too, which the source of the project cannot tell
    code = "import importlib, sys\n"
    code += "".join(f"importlib.import_module('{PROJECT}.{w}')\n" for w in WORKERS)
    code += f"print(sorted({set(HEAVY)!r} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("algos/a.py", "from fetchlab.replay.ring import Ring", True),
        ("algos/a.py", "from .b import c", True),
        ("run.py", "import fetchlab.config", True),
        ("replay/a.py", "from fetchlab import __version__", True),
        ("replay/a.py", "from fetchlab.algos import x", False),
        ("replay/a.py", "from fetchlab.envs import x", False),
        ("replay/a.py", "from fetchlab import envs", False),
        ("networks/encoders/a.py", "from ...envs import x", False),
        ("callbacks/a.py", "from ..algos.b import c", False),
        ("algos/a.py", "def f():\n    import fetchlab.callbacks.video", False),
        ("algos/a.py", "if TYPE_CHECKING:\n    from fetchlab.callbacks import x", False),
        ("preflight/a.py", "import fetchlab.envs.fetch", False),
        ("algos/a.py", "from fetchlab import run", False),
        ("errors.py", "import fetchlab.envs", False),
    ],
)
def test_the_rule_itself(tmp_path, module, source, allowed):
    for name in ("", "envs", "replay", "algos", "callbacks", "run.py", "config.py"):
        path = tmp_path / PROJECT / name
        path = path if path.suffix else path / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    path = tmp_path / PROJECT / module
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert (Tree(tmp_path).violations() == []) is allowed


@pytest.mark.parametrize(
    ("source", "heavy"),
    [
        ("import numpy", False),
        ("if TYPE_CHECKING:\n    import torch", False),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import torch", True),
        ("def f():\n    from torch import nn", True),
        ("from fetchlab.envs.helper import x", True),
    ],
)
def test_the_worker_rule_itself(tmp_path, source, heavy):
    package = tmp_path / PROJECT / "envs"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "helper.py").write_text("import torch.nn")
    (package / "worker.py").write_text(source)
    roots = {name.split(".")[0] for name in Tree(tmp_path).reached(f"{PROJECT}.envs.worker")}
    assert bool(roots & HEAVY) is heavy
