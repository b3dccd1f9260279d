"""How many updates a round is due, in which pieces they are drawn, and both after a resume."""

from __future__ import annotations

import shutil

import pytest
import torch

from fetchlab.algos.steps import AT_ONCE
from fetchlab.build import build_parts
from fetchlab.config import typed

N_ENVS, EPISODE = 32, 5
#: 8.5 updates a round, a number that floats hold exactly.
SIZES = (
    "debug=default",
    f"collect.n_envs={N_ENVS}",
    "collect.workers=1",
    f"task.max_episode_steps={EPISODE}",
    "algo.utd_ratio=0.265625",
    "algo.batch_size=2",
    "total_env_steps=800",
    "obs.normalize=none",
)


class Run:
    """A run's data module without a Trainer: rounds whose batches are drawn and thrown away."""

    def __init__(self, compose_run, run_dir, learning_starts):
        starts = f"collect.learning_starts={learning_starts}"
        self.cfg = compose_run("state_reach", *SIZES, starts, f"run_dir={run_dir}")
        self.parts = build_parts(typed(self.cfg), run_dir)
        self.data = self.parts.data
        self.data.setup("fit")

    def rounds(self, n):
        """Updates of each piece of the next ``n`` rounds, and the transitions drawn for them."""
        sizes, drawn = [], []
        for _ in range(n):
            pieces = [list(piece) for piece in self.data.round().split(AT_ONCE)]
            sizes.append([len(piece) for piece in pieces])
            drawn += [batch["index"] for piece in pieces for batch in piece]
        return sizes, drawn

    def close(self):
        self.parts.env.close()


@pytest.mark.parametrize(
    ("learning_starts", "expected", "left"),
    [
        # Round r has received 32 (r - 1) env steps; the first episodes end at 160, in round 6.
        # 96 are there in round 4, but credit for rounds 4 and 5 (17 updates) is never given.
        (96, [[], [], [], [], [], [8], [8, 1], [8], [8, 1], [8]], 0.5),
        (160, [[], [], [], [], [], [8], [8, 1], [8], [8, 1], [8]], 0.5),
        # 192 are there in round 7, when a first episode has ended.
        (192, [[], [], [], [], [], [], [8], [8, 1], [8], [8, 1]], 0.0),
    ],
)
def test_credit_starts_when_something_can_be_sampled(
    compose_run, tmp_path, learning_starts, expected, left
):
    run = Run(compose_run, tmp_path, learning_starts)
    try:
        assert run.rounds(10)[0] == expected
        run.data.settle()  # receives the eleventh round's 32 env steps, worth 8.5 updates
        assert run.data.state_dict()["credit"] == left + 8.5
    finally:
        run.close()


def test_a_resumed_run_is_due_the_same_updates(compose_run, tmp_path):
    first = Run(compose_run, tmp_path / "first", 96)
    try:
        first.rounds(6)  # half an update is in hand
        first.data.settle()
        state = first.data.state_dict()
        first.data.replay.storage.flush()
        shutil.copytree(tmp_path / "first", tmp_path / "second")
        whole = first.rounds(4)
    finally:
        first.close()
    second = Run(compose_run, tmp_path / "second", 96)
    try:
        second.data.load_state_dict(state)
        sizes, drawn = second.rounds(4)
    finally:
        second.close()
    assert sizes == whole[0] == [[8, 1], [8], [8, 1], [8]]
    assert all(torch.equal(a, b) for a, b in zip(drawn, whole[1], strict=True))
