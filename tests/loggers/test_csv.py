"""metrics.csv: exact text, refusals, and exactness across kill and resume."""

import os
import signal

import pytest

from fetchlab.errors import ConfigError
from fetchlab.loggers.csv import RunCSVLogger

NAMES = ["train/critic_loss", "eval/success_rate"]
HEADER = "env_steps,train/critic_loss,eval/success_rate\n"


def make(run_dir, resume=False, names=NAMES):
    return RunCSVLogger(run_dir=str(run_dir), metric_names=names, resume=resume)


def text(run_dir):
    return (run_dir / "metrics.csv").read_text()


def test_rows_are_on_disk_at_once_with_repr_precision_and_empty_cells(tmp_path):
    logger = make(tmp_path / "run")
    logger.log_metrics({"train/critic_loss": 0.1 + 0.2}, step=100)
    logger.log_metrics({"eval/success_rate": 1, "train/critic_loss": float("nan")}, step=200)
    assert text(tmp_path / "run") == HEADER + "100,0.30000000000000004,\n200,nan,1\n"


def test_numpy_and_tensor_scalars_are_written_as_plain_floats(tmp_path):
    import numpy as np
    import torch

    logger = make(tmp_path)
    logger.log_metrics(
        {"train/critic_loss": torch.tensor(0.5), "eval/success_rate": np.float64(0.25)}, step=1
    )
    assert text(tmp_path) == HEADER + "1,0.5,0.25\n"


def test_unknown_metric_is_named_and_leaves_no_row(tmp_path):
    logger = make(tmp_path)
    logger.log_metrics({"train/critic_loss": 1.0}, step=1)
    with pytest.raises(KeyError, match="train/typo"):
        logger.log_metrics({"train/critic_loss": 1.0, "train/typo": 2.0}, step=2)
    assert text(tmp_path) == HEADER + "1,1.0,\n"


@pytest.mark.parametrize("step", [10, 9, -1, None])
def test_a_row_that_does_not_advance_env_steps_is_refused(tmp_path, step):
    logger = make(tmp_path)
    logger.log_metrics({}, step=10)
    with pytest.raises(ConfigError, match=r"last row's \(10\)"):
        logger.log_metrics({}, step=step)
    assert text(tmp_path) == HEADER + "10,,\n"


def test_existing_rows_are_refused_without_resume_and_kept(tmp_path):
    make(tmp_path).log_metrics({}, step=1)
    before = text(tmp_path)
    with pytest.raises(ConfigError, match="resume=RUN_DIR"):
        make(tmp_path)
    assert text(tmp_path) == before


def test_a_resumed_logger_writes_nothing_before_its_state_is_loaded(tmp_path):
    make(tmp_path).log_metrics({}, step=1)
    before = text(tmp_path)
    resumed = make(tmp_path, resume=True)
    with pytest.raises(RuntimeError, match="load_state_dict"):
        resumed.log_metrics({}, step=2)
    assert text(tmp_path) == before


def test_state_counts_bytes_of_header_and_rows(tmp_path):
    logger = make(tmp_path)
    assert logger.state_dict() == {"bytes": len(HEADER)}
    logger.log_metrics({"eval/success_rate": 0.5}, step=5)
    assert logger.state_dict() == {"bytes": len(HEADER) + len("5,,0.5\n")}


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    points = [(step, {"train/critic_loss": 1.0 / step}) for step in range(1, 8)]
    whole = make(tmp_path / "whole")
    for step, metrics in points:
        whole.log_metrics(metrics, step=step)

    run, state_file = tmp_path / "run", tmp_path / "bytes"
    child = os.fork()
    if child == 0:  # logs points 1..5, remembers its state after 3, and is killed without a close
        try:
            logger = make(run)
            for step, metrics in points[:5]:
                logger.log_metrics(metrics, step=step)
                if step == 3:
                    state_file.write_text(str(logger.state_dict()["bytes"]))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert text(run).count("\n") == 1 + 5  # every row had reached the system
    with (run / "metrics.csv").open("a") as stream:
        stream.write("6,0.1")  # and a torn one

    for _ in range(2):  # the second time after a "kill while resuming"
        resumed = make(run, resume=True)
        resumed.load_state_dict({"bytes": int(state_file.read_text())})
    with pytest.raises(ConfigError, match=r"last row's \(3\)"):
        resumed.log_metrics({}, step=3)
    for step, metrics in points[3:]:
        resumed.log_metrics(metrics, step=step)
    assert text(run) == text(tmp_path / "whole")


def test_resume_from_before_the_first_row(tmp_path):
    logger = make(tmp_path)
    state = logger.state_dict()
    logger.log_metrics({}, step=1)
    resumed = make(tmp_path, resume=True)
    resumed.load_state_dict(state)
    resumed.log_metrics({}, step=1)
    assert text(tmp_path) == HEADER + "1,,\n"


def test_logging_continues_after_finalize(tmp_path):
    logger = make(tmp_path)
    logger.log_metrics({}, step=1)
    logger.finalize("success")
    logger.log_metrics({}, step=2)
    assert text(tmp_path) == HEADER + "1,,\n2,,\n"


@pytest.mark.parametrize("size", [10_000, -1, True, "5", len(HEADER) + 2])
def test_an_impossible_size_is_refused_and_changes_nothing(tmp_path, size):
    make(tmp_path).log_metrics({"train/critic_loss": 0.125}, step=1)
    before = text(tmp_path)
    with pytest.raises(ConfigError, match=r"metrics\.csv"):
        make(tmp_path, resume=True).load_state_dict({"bytes": size})
    assert text(tmp_path) == before


def test_other_columns_are_refused_on_resume(tmp_path):
    logger = make(tmp_path)
    logger.log_metrics({}, step=1)
    resumed = make(tmp_path, resume=True, names=["train/critic_loss"])
    with pytest.raises(ConfigError, match="header"):
        resumed.load_state_dict(logger.state_dict())


def test_a_link_is_refused_and_its_target_kept(tmp_path):
    outside = tmp_path / "outside.csv"
    outside.write_text(HEADER + "1,,\n2,,\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").symlink_to(outside)
    with pytest.raises(ConfigError, match="no link"):
        make(tmp_path / "run", resume=True).load_state_dict({"bytes": len(HEADER)})
    assert outside.read_text() == HEADER + "1,,\n2,,\n"


@pytest.mark.parametrize("names", [["a", "a"], ["a,b"], ["env_steps"], [""]])
def test_unusable_column_names_are_refused(tmp_path, names):
    with pytest.raises(ConfigError, match="metric_names"):
        make(tmp_path, names=names)
