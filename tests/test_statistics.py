"""The Wilson interval, against numbers worked out by hand and against its definition."""

import math

import pytest

from fetchlab.errors import ConfigError
from fetchlab.statistics import wilson_interval


def test_no_success_in_ten():
    # low = 0; high = z^2 / (n + z^2) = 3.841459 / 13.841459
    low, high = wilson_interval(0, 10)
    assert low == 0.0
    assert high == pytest.approx(0.277533, abs=1e-6)


def test_ten_of_ten():
    # low = n / (n + z^2) = 10 / 13.841459; high = 1
    low, high = wilson_interval(10, 10)
    assert low == pytest.approx(0.722467, abs=1e-6)
    assert high == 1.0


def test_five_of_ten():
    # centre 1/2; half = z sqrt(1/40 + z^2/400) / (1 + z^2/10)
    #   = 1.959964 * sqrt(0.025 + 0.00960365) / 1.3841459 = 1.959964 * 0.1860206 / 1.3841459
    low, high = wilson_interval(5, 10)
    assert low == pytest.approx(0.236593, abs=1e-6)
    assert high == pytest.approx(0.763407, abs=1e-6)


def test_ninety_five_of_a_hundred():
    # centre = (0.95 + 0.01920729) / 1.03841459 = 0.9333530
    # half = 1.959964 * sqrt(0.000475 + 0.0000960365) / 1.03841459 = 0.0451036
    low, high = wilson_interval(95, 100)
    assert low == pytest.approx(0.888249, abs=1e-5)
    assert high == pytest.approx(0.978457, abs=1e-5)


@pytest.mark.parametrize("episodes", [1, 2, 7, 20])
def test_ends_are_where_the_definition_holds_with_equality(episodes):
    z = 1.959963984540054
    for successes in range(episodes + 1):
        rate = successes / episodes
        low, high = wilson_interval(successes, episodes)
        assert 0 <= low <= rate <= high <= 1
        for end in (low, high):
            distance = abs(rate - end)
            assert distance == pytest.approx(z * math.sqrt(end * (1 - end) / episodes), abs=1e-12)


@pytest.mark.parametrize(("successes", "episodes"), [(0, 0), (-1, 5), (6, 5)])
def test_counts_that_are_no_evaluation_are_refused(successes, episodes):
    with pytest.raises(ConfigError):
        wilson_interval(successes, episodes)
