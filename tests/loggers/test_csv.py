"""metrics.csv: exact text, refusals, and exactness across kill and resume."""

import os
import signal

import pytest

from fetchlab.errors import ConfigError
from fetchlab.loggers.csv import RunCSVLogger

NAMES = ["train/critic_loss", "eval/success_rate"]
HEADER = "env_steps,train/critic_loss,eval/success_rate\n"


def make(run_dir, names=NAMES):
    logger = RunCSVLogger(save_dir=str(run_dir))
    logger.expect(names)
    return logger


def resumed_from(run_dir, rows):
    logger = RunCSVLogger(save_dir=str(run_dir))
    logger.load_state_dict({"rows": rows})
    return logger


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


def test_a_column_that_nobody_knew_appears_behind_the_others(tmp_path):
    logger = make(tmp_path)
    logger.log_metrics({"train/critic_loss": 1.0}, step=1)
    logger.log_metrics({"mine/x": 2.0, "train/critic_loss": 0.5}, step=2)
    logger.log_metrics({"eval/success_rate": 1}, step=3)
    assert text(tmp_path) == HEADER[:-1] + ",mine/x\n1,1.0,,\n2,0.5,,2.0\n3,,1,\n"
    assert logger.state_dict() == {"rows": 3}


def test_the_same_step_sets_cells_of_the_newest_row(tmp_path):
    logger = make(tmp_path)
    logger.log_metrics({"train/critic_loss": 1.0}, step=1)
    logger.log_metrics({"train/critic_loss": 2.0}, step=2)
    logger.log_metrics({"eval/success_rate": 0.5}, step=2)
    logger.log_metrics({}, step=2)
    logger.log_metrics({}, step=3)
    assert text(tmp_path) == HEADER + "1,1.0,\n2,2.0,0.5\n3,,\n"


def test_a_table_that_grew_after_the_checkpoint_is_cut_back_to_its_rows(tmp_path):
    logger = make(tmp_path)
    for step in (1, 2):
        logger.log_metrics({"train/critic_loss": 1.0 / step}, step=step)
    state = logger.state_dict()
    logger.log_metrics({"mine/x": 3.0}, step=3)
    resumed = resumed_from(tmp_path, **state)
    assert text(tmp_path) == HEADER[:-1] + ",mine/x\n1,1.0,,\n2,0.5,,\n"
    resumed.expect(NAMES)
    resumed.log_metrics({"mine/x": 3.0}, step=3)
    assert text(tmp_path).endswith("2,0.5,,\n3,,,3.0\n")


def test_a_failed_replacement_leaves_the_file(tmp_path, monkeypatch):
    logger = make(tmp_path)
    logger.log_metrics({"train/critic_loss": 1.0}, step=1)
    before = text(tmp_path)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("fetchlab.loggers.csv.write_text", full)
    with pytest.raises(OSError, match=r"metrics\.csv"):
        logger.log_metrics({"mine/x": 1.0}, step=2)
    assert text(tmp_path) == before


@pytest.mark.parametrize("step", [9, -1, None])
def test_a_row_before_the_newest_one_is_refused(tmp_path, step):
    logger = make(tmp_path)
    logger.log_metrics({}, step=10)
    with pytest.raises(ConfigError, match=r"the newest row's 10"):
        logger.log_metrics({}, step=step)
    assert text(tmp_path) == HEADER + "10,,\n"


def test_existing_rows_are_refused_without_resume_and_kept(tmp_path):
    make(tmp_path).log_metrics({}, step=1)
    before = text(tmp_path)
    with pytest.raises(ConfigError, match="resume=RUN_DIR"):
        make(tmp_path)
    assert text(tmp_path) == before


def test_state_counts_rows(tmp_path):
    logger = make(tmp_path)
    assert logger.state_dict() == {"rows": 0}
    logger.log_metrics({"eval/success_rate": 0.5}, step=5)
    assert logger.state_dict() == {"rows": 1}


def test_killed_and_resumed_equals_uninterrupted(tmp_path):
    points = [(step, {"train/critic_loss": 1.0 / step}) for step in range(1, 8)]
    whole = make(tmp_path / "whole")
    for step, metrics in points:
        whole.log_metrics(metrics, step=step)

    run, state_file = tmp_path / "run", tmp_path / "rows"
    child = os.fork()
    if child == 0:  # logs points 1..5, remembers its state after 3, and is killed without a close
        try:
            logger = make(run)
            for step, metrics in points[:5]:
                logger.log_metrics(metrics, step=step)
                if step == 3:
                    state_file.write_text(str(logger.state_dict()["rows"]))
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert text(run).count("\n") == 1 + 5  # every row had reached the system
    with (run / "metrics.csv").open("a") as stream:
        stream.write("6,0.1")  # and a torn one

    for _ in range(2):  # the second time after a "kill while resuming"
        resumed = resumed_from(run, int(state_file.read_text()))
    with pytest.raises(ConfigError, match=r"newest row's 3"):
        resumed.log_metrics({}, step=2)
    for step, metrics in points[3:]:
        resumed.log_metrics(metrics, step=step)
    assert text(run) == text(tmp_path / "whole")


def test_resume_from_before_the_first_row(tmp_path):
    logger = make(tmp_path)
    state = logger.state_dict()
    logger.log_metrics({}, step=1)
    resumed_from(tmp_path, **state).log_metrics({}, step=1)
    assert text(tmp_path) == HEADER + "1,,\n"


def test_logging_continues_after_finalize(tmp_path):
    logger = make(tmp_path)
    logger.log_metrics({}, step=1)
    logger.finalize("success")
    logger.log_metrics({}, step=2)
    assert text(tmp_path) == HEADER + "1,,\n2,,\n"


@pytest.mark.parametrize("rows", [2, -1, "1", None])
def test_an_impossible_count_is_refused_and_changes_nothing(tmp_path, rows):
    make(tmp_path).log_metrics({"train/critic_loss": 0.125}, step=1)
    before = text(tmp_path)
    with pytest.raises(ConfigError, match=r"metrics\.csv"):
        resumed_from(tmp_path, rows)
    assert text(tmp_path) == before


def test_a_link_is_refused_and_its_target_kept(tmp_path):
    outside = tmp_path / "outside.csv"
    outside.write_text(HEADER + "1,,\n2,,\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").symlink_to(outside)
    with pytest.raises(ConfigError, match="no link"):
        resumed_from(tmp_path / "run", 1)
    assert outside.read_text() == HEADER + "1,,\n2,,\n"


@pytest.mark.parametrize("names", [["a,b"], [""], ["a\n"]])
def test_unusable_column_names_are_refused(tmp_path, names):
    with pytest.raises(ConfigError, match="without commas"):
        make(tmp_path, names=names)
