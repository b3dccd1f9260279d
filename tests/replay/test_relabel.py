"""Relabelling strategies by themselves."""

from __future__ import annotations

import pytest
import torch

from fetchlab.replay.relabel.future import FutureRelabel
from fetchlab.replay.relabel.none import NoRelabel
from fetchlab.types import ConfigError


@pytest.mark.parametrize("k", [0, -1, float("inf"), float("nan"), "4", None, True])
def test_k_must_be_a_positive_number(k):
    with pytest.raises(ConfigError, match=r"relabel.k=.*: expected a positive number"):
        FutureRelabel(k)


def test_the_last_transition_has_only_the_final_goal():
    length = torch.randint(1, 50, (10_000,), generator=torch.Generator().manual_seed(0))
    chosen = FutureRelabel(4)(length - 1, length, torch.Generator().manual_seed(1))
    assert chosen.dtype == torch.int64
    assert ((chosen == length) | (chosen == -1)).all()
    assert 0.78 < (chosen == length).double().mean() < 0.82


def test_the_randomness_used_does_not_depend_on_the_data():
    states = []
    for t, length in ((0, 50), (49, 50)):
        generator = torch.Generator().manual_seed(3)
        FutureRelabel(4)(torch.full((7,), t), torch.full((7,), length), generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_none_keeps_the_goal():
    t = torch.arange(5)
    assert NoRelabel()(t, t + 1, torch.Generator()).tolist() == [-1] * 5
