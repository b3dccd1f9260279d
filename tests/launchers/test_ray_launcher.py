"""What a sweep asks of Ray and refuses there, without Ray: a stand-in for its module."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from types import ModuleType, SimpleNamespace

import pytest

from fetchlab.checkpoint.run_lock import RunLock
from fetchlab.checkpoint.signals import StopFlag
from fetchlab.errors import ConfigError
from fetchlab.launchers import OUTPUT, Job
from fetchlab.launchers.process import work
from fetchlab.launchers.ray import LOSSES_WITHOUT_PROGRESS, Ray
from fetchlab.preflight.sizes import usable_cores

NODE = {"CPU": 4.0, "memory": 8e9, "GPU": 1.0}


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        self.cause = cause


class Stand(ModuleType):
    """Ray's module as far as the launcher uses it; a task's outcome is the next of ``outcomes``."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)
    _private = SimpleNamespace(worker=SimpleNamespace())

    def __init__(self, nodes, outcomes=()):
        super().__init__("ray")
        self.found, self.outcomes, self.asked, self.given = nodes, list(outcomes), [], {}

    def init(self, **given):
        self.given = given
        if given["address"] == "auto" and not self.found:
            raise ConnectionError("no answer\nat all")

    def nodes(self):
        return [{"Alive": True, "Resources": one} for one in self.found]

    def remote(self, **asked):
        self.asked.append(asked)
        return lambda work: SimpleNamespace(remote=lambda job: f"task {len(self.asked)}")

    def wait(self, tasks, timeout):
        return tasks[:1], tasks[1:]

    def get(self, task):
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def shutdown(self):
        pass


@pytest.fixture
def cluster(monkeypatch):
    def make(*nodes, outcomes=()):
        stand = Stand(nodes, outcomes)
        monkeypatch.setitem(sys.modules, "ray", stand)
        return stand

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "0")  # and back
    return make


def job(folder, code="pass", cores=3, gpu=True):
    return Job(folder, (sys.executable, "-S", "-c", code, str(folder)), cores, 2 * 10**9, gpu)


def launched(one):
    return [code for _, code in Ray(None, 2, 4).launch([one], StopFlag())]


def test_a_run_asks_for_what_the_preflight_says(cluster, tmp_path):
    ray = cluster(NODE, outcomes=[0])
    assert launched(job(tmp_path / "run")) == [0]
    needs = {"num_cpus": 3, "num_gpus": 0.25, "memory": 2 * 10**9}
    assert ray.asked == [{"max_retries": 0, "name": "run", **needs}]
    assert ray.given["address"] == "auto" and "num_cpus" not in ray.given  # the cluster's own


def test_without_an_address_the_cluster_has_the_cores_that_are_free(cluster, monkeypatch):
    ray = cluster(NODE)
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setenv("FETCHLAB_CORES", "1")
    assert usable_cores() == 1
    Ray(None, 2, 1)
    assert ray.given["address"] == "local" and ray.given["num_cpus"] == 1


def test_what_cannot_work_is_refused_in_a_line(cluster, monkeypatch, tmp_path):
    cluster({"CPU": 2.0, "memory": 8e9}, {"CPU": 64.0, "memory": 1e9})
    says = r"launcher='ray': expected a node with 3 cores, 2.0 GB, 0.25 GPU for run, and there are"
    with pytest.raises(ConfigError, match=says + " 2 cores, 8.0 GB and 64 cores, 1.0 GB; lower"):
        launched(job(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"launcher.address='127.0.0.1:1': .* refused\)$"):
        Ray("127.0.0.1:1", 2, 1)
    cluster()
    with pytest.raises(ConfigError, match=r"launcher.address='auto': .*\(no answer at all\)$"):
        Ray(None, 2, 1)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"launcher='ray': .*pip install -e '\.\[ray\]'"):
        Ray(None, 2, 1)


def test_a_lost_run_is_given_again_until_it_gets_nowhere(cluster, tmp_path, capsys):
    lost = RayError("the worker\ndied")
    ray = cluster(NODE, outcomes=[lost, lost, 0])
    assert launched(job(tmp_path / "run")) == [0]
    assert len(ray.asked) == 3
    assert capsys.readouterr().out.count("lost      run at 0 env steps") == 2
    ray = cluster(NODE, outcomes=[lost] * 9)
    assert launched(job(tmp_path / "run")) == [None]
    assert len(ray.asked) == LOSSES_WITHOUT_PROGRESS + 1
    said = (tmp_path / "run" / OUTPUT).read_text()
    assert said == "error: lost 3 times at 0 env steps: the worker died\n"
    cluster(NODE, outcomes=[RayTaskError(FileNotFoundError("no python"))])
    assert launched(job(tmp_path / "other")) == [None]
    assert "FileNotFoundError: no python" in (tmp_path / "other" / OUTPUT).read_text()


@pytest.fixture
def background():
    """Ctrl-C is ignored, as where a shell has started Ray in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_task_waits_for_what_a_dead_node_has_left(background, tmp_path):
    lock, began = RunLock(tmp_path), time.monotonic()
    lock.acquire()
    threading.Timer(0.5, lock.release).start()
    code = (
        "import os, sys, time; print(os.environ['FETCHLAB_CORES'], time.monotonic())\nsys.exit(5)"
    )
    assert work(job(tmp_path, code)) == 5
    cores, started = (tmp_path / OUTPUT).read_text().split()
    assert cores == "3" and float(started) > began + 0.5


def test_a_task_that_is_cancelled_lets_its_run_commit(background, tmp_path):
    code = """
import signal, sys, time
from pathlib import Path
def stop(*_):
    (Path(sys.argv[1]) / "seen").write_text("committed")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
(Path(sys.argv[1]) / "seen").write_text("ready")
time.sleep(60)
"""

    def cancel():  # as Ray does: KeyboardInterrupt in the main thread
        while not (tmp_path / "seen").exists() or not (tmp_path / "seen").read_text():
            time.sleep(0.01)
        _thread.interrupt_main()

    threading.Thread(target=cancel).start()
    with pytest.raises(KeyboardInterrupt):
        work(job(tmp_path, code))
    assert (tmp_path / "seen").read_text() == "committed"
