"""TensorBoard files: read back with TensorBoard itself, exact across kill and resume."""

import json
import os
import signal

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from fetchlab.errors import ConfigError
from fetchlab.loggers.tensorboard import RunTensorBoardLogger


def make(run_dir):
    return RunTensorBoardLogger(save_dir=str(run_dir))


def files(run_dir):
    return sorted((run_dir / "tensorboard").glob("*"))


def raw_steps(run_dir):
    """All steps of all event files, in order, with their number of metrics; headers left out."""
    steps = []
    for path in files(run_dir):
        events = [Event.FromString(raw) for raw in RawEventFileLoader(str(path)).Load()]
        assert events[0].file_version == "brain.Event:2"
        steps += [(event.step, len(event.summary.value)) for event in events[1:]]
    return steps


def test_tensorboard_reads_back_steps_and_values(tmp_path):
    logger = make(tmp_path)
    logger.log_metrics({"train/q_mean": -1.5, "eval/return": -50}, step=1000)
    logger.log_metrics({"train/q_mean": float("nan")}, step=2000)
    logger.log_metrics({"train/q_mean": 0.25}, step=3_000_000_000)  # beyond 32 bits
    read = EventAccumulator(str(tmp_path / "tensorboard")).Reload()  # not closed: flushed already
    q_mean = [(e.step, e.value) for e in read.Scalars("train/q_mean")]
    assert q_mean[0] == (1000, -1.5)
    assert q_mean[1][0] == 2000
    assert q_mean[1][1] != q_mean[1][1]
    assert q_mean[2] == (3_000_000_000, 0.25)
    assert [(e.step, e.value) for e in read.Scalars("eval/return")] == [(1000, -50.0)]


def test_nothing_is_created_before_the_first_point(tmp_path):
    logger = make(tmp_path)
    logger.log_hyperparams({"a": 1})
    assert logger.state_dict() == {}
    logger.finalize("success")
    assert list(tmp_path.iterdir()) == []


def test_state_is_the_size_of_each_file(tmp_path):
    logger = make(tmp_path)
    logger.log_metrics({"m": 1.0}, step=10)
    state = logger.state_dict()
    assert state == {path.name: path.stat().st_size for path in files(tmp_path)}
    logger.log_metrics({"m": 1.0}, step=20)
    assert logger.state_dict()[files(tmp_path)[0].name] > state[files(tmp_path)[0].name]


def test_killed_twice_and_resumed_every_point_occurs_once(tmp_path):
    state_file = tmp_path / "state"
    run = tmp_path / "run"

    def life(resume, first, checkpoint, last):
        """One process: logs first..last, takes a state at ``checkpoint``, then is killed."""
        child = os.fork()
        if child == 0:
            try:
                logger = make(run)
                if resume:
                    logger.load_state_dict(json.loads(state_file.read_text()))
                for step in range(first, last + 1):
                    logger.log_metrics({"m": float(step), "n": 0.0}, step=step)
                    if step == checkpoint:
                        state_file.write_text(json.dumps(logger.state_dict()))
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)

    life(resume=False, first=1, checkpoint=3, last=5)
    assert raw_steps(run) == [(step, 2) for step in range(1, 6)]  # all had reached the system
    life(resume=True, first=4, checkpoint=6, last=9)
    assert raw_steps(run) == [(step, 2) for step in range(1, 10)]
    life(resume=True, first=7, checkpoint=None, last=8)  # no checkpoint: forgotten
    assert raw_steps(run) == [(step, 2) for step in range(1, 9)]
    with files(run)[-1].open("ab") as stream:
        stream.write(b"torn")

    resumed = make(run)
    resumed.load_state_dict(json.loads(state_file.read_text()))
    for step in range(7, 11):
        resumed.log_metrics({"m": float(step), "n": 0.0}, step=step)
    assert raw_steps(run) == [(step, 2) for step in range(1, 11)]
    read = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in read.Scalars("m")] == [(s, float(s)) for s in range(1, 11)]


def test_resume_from_before_the_first_point_deletes_all_event_files(tmp_path):
    make(tmp_path).log_metrics({"m": 1.0}, step=1)
    (tmp_path / "tensorboard" / "notes.txt").write_text("mine")
    resumed = make(tmp_path)
    resumed.load_state_dict({})
    assert [path.name for path in files(tmp_path)] == ["notes.txt"]


def test_existing_events_are_refused_without_resume(tmp_path):
    make(tmp_path).log_metrics({"m": 1.0}, step=1)
    with pytest.raises(ConfigError, match="resume=RUN_DIR"):
        make(tmp_path).log_metrics({"m": 1.0}, step=2)
    assert raw_steps(tmp_path) == [(1, 1)]


@pytest.mark.parametrize("step", [None, -1])
def test_a_point_needs_its_env_steps(tmp_path, step):
    with pytest.raises(ConfigError, match="env_steps"):
        make(tmp_path).log_metrics({"m": 1.0}, step=step)


@pytest.mark.parametrize("name", ["../victim", "victim", "events.out.tfevents.../../../victim"])
def test_names_outside_the_folder_are_refused_and_nothing_is_touched(tmp_path, name):
    make(tmp_path).log_metrics({"m": 1.0}, step=1)
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    before = {path: path.read_bytes() for path in files(tmp_path)}
    with pytest.raises(ConfigError, match="event file"):
        make(tmp_path).load_state_dict({name: 0})
    assert victim.read_text() == "keep me"
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


def test_links_are_refused_and_their_targets_kept(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    victim = tmp_path / "elsewhere" / "events.out.tfevents.000000000001"
    victim.write_bytes(b"keep me")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="no link"):
        make(tmp_path / "a").load_state_dict({})
    (tmp_path / "b" / "tensorboard").mkdir(parents=True)
    (tmp_path / "b" / "tensorboard" / victim.name).symlink_to(victim)
    with pytest.raises(ConfigError, match="no link"):
        make(tmp_path / "b").load_state_dict({victim.name: 0})
    assert victim.read_bytes() == b"keep me"


def test_a_missing_or_shorter_file_is_refused_before_any_file_changes(tmp_path):
    logger = make(tmp_path)
    logger.log_metrics({"m": 1.0}, step=1)
    state = logger.state_dict()
    logger.log_metrics({"m": 1.0}, step=2)
    path = files(tmp_path)[0]
    before = path.read_bytes()
    resumed = make(tmp_path)
    for bad in ({**state, "events.out.tfevents.9": 8}, {path.name: len(before) + 1}):
        with pytest.raises(ConfigError, match="restore the file"):
            resumed.load_state_dict(bad)
    assert path.read_bytes() == before
