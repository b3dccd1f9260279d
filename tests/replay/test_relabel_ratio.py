"""k of HER: a number, or a straight line over env steps."""

from __future__ import annotations

import pytest
from hydra.utils import instantiate

from fetchlab.errors import ConfigError
from fetchlab.replay.relabel import FutureRelabel

LINE = {"from": 8, "to": 1, "over_env_steps": 700}


def test_a_number_is_the_same_share_for_ever():
    for k in (1, 4, 8, 0.25):
        for env_steps in (0, 1, 10**12):
            assert FutureRelabel(k).share(env_steps) == k / (k + 1)


def test_a_line_by_hand():
    ratio = FutureRelabel(LINE)
    # k = 8 - 7 * env_steps / 700
    expected = {0: 8 / 9, 100: 7 / 8, 350: 4.5 / 5.5, 699: 1.01 / 2.01, 700: 0.5, 10**9: 0.5}
    for env_steps, share in expected.items():
        assert ratio.share(env_steps) == pytest.approx(share, rel=1e-12)


def test_a_line_may_rise_and_begin_or_end_without_hindsight():
    rising = FutureRelabel({"from": 0, "to": 3.0, "over_env_steps": 10})
    assert [rising.share(n) for n in (0, 5, 10, 11)] == [0.0, 0.6, 0.75, 0.75]


@pytest.mark.parametrize("k", [0, -1, float("inf"), float("nan"), "4", None, True, [8, 1]])
def test_k_must_be_a_positive_number(k):
    with pytest.raises(ConfigError, match=r"relabel.k=.*: expected a (positive )?number"):
        FutureRelabel(k)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"from": -1}, r"relabel.k.from=-1: expected a number from 0"),
        ({"to": "1"}, r"relabel.k.to='1': expected a number from 0"),
        ({"to": float("nan")}, r"relabel.k.to=nan: expected a number from 0"),
        ({"to": 8}, r"relabel.k.to=8: expected another number than from; give the number alone"),
        ({"over_env_steps": 0}, r"relabel.k.over_env_steps=0: expected a positive whole number"),
        ({"over_env_steps": 1e5}, r"relabel.k.over_env_steps=100000.0: .* whole number"),
        ({"over_env_steps": None}, r"relabel.k.over_env_steps=None: .* whole number"),
        ({"over_rounds": 3}, r"relabel.k=.*: expected exactly the keys from, to, over_env_steps"),
    ],
)
def test_a_line_that_cannot_work_is_refused(change, message):
    with pytest.raises(ConfigError, match=message) as error:
        FutureRelabel({**LINE, **change})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["future", "final", "episode"])
def test_number_and_line_from_the_command_line(compose_run, name):
    for value, shares in (
        ("2", (2 / 3, 2 / 3)),
        ("{from:8,to:1,over_env_steps:700}", (8 / 9, 1 / 2)),
    ):
        config = compose_run("state_push", f"relabel={name}", f"algo.her_k={value}")
        ratio = instantiate(config["relabel"])
        assert (ratio.share(0), ratio.share(700)) == shares
