"""The Wilson interval, by hand and against its definition; means over seeds, against rliable."""

import math

import numpy as np
import pytest

from fetchlab import statistics
from fetchlab.errors import ConfigError
from fetchlab.statistics import bootstrap_interval, iqm, wilson_interval

#: Recorded from rliable 1.2.0 (`metrics.aggregate_iqm` and `library.get_interval_estimates` with
#: 50,000 draws; arch 7.2.0, pandas 2.3.3), where seeds are rows and there is one task.
SEEDS = [0.75, 0.18, 0.75, 0.76, 0.49, 0.6, 0.21]
RLIABLE_IQM = {
    (0.64, 0.74, 0.09): 0.49,
    (0.54, 0.51, 0.87, 0.36): 0.525,
    (0.6, 0.06, 0.39, 0.32, 0.15): 0.2866666666666667,
    (0.82, 0.38, 0.98, 0.59, 0.61, 0.64, 0.68, 0.15): 0.63,
    (0.44, 0.24, 0.4, 0.1, 0.97, 0.22, 0.67, 0.3, 0.87, 0.66): 0.45166666666666666,
}
RLIABLE_IQM_INTERVAL, RLIABLE_MEAN_INTERVAL = (0.314, 0.75), (0.35428571, 0.69428571)
#: Of three tasks, the strata, with five seeds each; the mean over all.
TASKS = [[0.13, 0.85, 0.94], [0.9, 0.57, 0.15], [0.19, 0.93, 0.55], [0.18, 0.88, 0.64]]
TASKS += [[0.57, 0.38, 0.41]]
RLIABLE_STRATIFIED = (0.42333333, 0.686)


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


def test_iqm_by_hand():
    # Of 8 the lowest two (1, 2) and the highest two (9, 100) go: (3 + 4 + 5 + 6) / 4.
    assert iqm(np.array([100.0, 3, 1, 5, 2, 6, 9, 4]), axis=0) == 4.5
    # Of 3 a quarter is none.
    assert iqm(np.array([0.0, 0.3, 0.9]), axis=0) == pytest.approx(0.4)


def test_iqm_along_an_axis():
    table = np.array([[1.0, 2, 3, 100], [5, 5, 5, 5]])
    assert iqm(table, axis=1).tolist() == [2.5, 5]


@pytest.mark.parametrize("seeds", RLIABLE_IQM)
def test_iqm_is_rliables(seeds):
    assert iqm(np.array(seeds), axis=0) == pytest.approx(RLIABLE_IQM[seeds], abs=1e-12)


@pytest.mark.parametrize(
    ("statistic", "recorded"),
    [
        (lambda drawn: iqm(drawn[0], axis=1), RLIABLE_IQM_INTERVAL),
        (lambda drawn: drawn[0].mean(axis=1), RLIABLE_MEAN_INTERVAL),
    ],
)
def test_intervals_are_rliables(statistic, recorded, monkeypatch):
    monkeypatch.setattr(statistics, "REPETITIONS", 50_000)
    ends = bootstrap_interval([np.array(SEEDS)], statistic)
    assert ends == pytest.approx(recorded, abs=0.006)  # rliable's own draws move as much


def test_strata_are_drawn_apart_from_each_other(monkeypatch):
    monkeypatch.setattr(statistics, "REPETITIONS", 50_000)

    def mean(drawn):
        return np.mean([one.mean(axis=1) for one in drawn], axis=0)

    ends = bootstrap_interval(list(np.array(TASKS).T), mean)
    assert ends == pytest.approx(RLIABLE_STRATIFIED, abs=0.006)


def test_two_seeds_by_hand():
    # Means of two draws of {0, 1}: 0, 1/2, 1 with 1/4, 1/2, 1/4: the quantiles 2.5 and 97.5 %.
    assert bootstrap_interval([np.array([0.0, 1.0])], lambda drawn: drawn[0].mean(axis=1)) == (0, 1)


def test_the_same_seeds_give_the_same_interval():
    def ends():
        return bootstrap_interval([np.array(SEEDS)], lambda drawn: drawn[0].mean(axis=1))

    assert ends() == ends()
