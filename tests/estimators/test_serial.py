import itertools
import math

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from mi_contrast.estimators.serial import correlate_rows


def draw_series(coefficient, count, rows, seed):
    """Autoregressive series of order 1, [count, rows, 1], from their stationary distribution."""
    noise = np.random.default_rng(seed).normal(size=(count, rows + 2000))
    return lfilter([1.0], [1.0, -coefficient], noise, axis=1)[:, 2000:, None]


def share_of_strong(xs, ys):
    return np.mean([correlate_rows(x, y).is_strong for x, y in zip(xs, ys, strict=True)])


def test_the_correlation_is_that_of_ranks_with_the_next_row():
    x = draw_series(0.8, 1, 400, 0)[0, :, 0].round(1)
    ranks = stats.rankdata(x) - 200.5
    expected = sum(a * b for a, b in itertools.pairwise(ranks)) / sum(a * a for a in ranks)
    correlation = correlate_rows(np.stack([x[::-1], np.zeros(400)], axis=1), np.exp(x)[:, None])
    assert correlation.x == pytest.approx(expected) and correlation.y == pytest.approx(expected)


@pytest.mark.parametrize("rows", [60, 200, 1000])
@pytest.mark.parametrize("width", [1, 4])
def test_independent_and_shuffled_rows_are_no_series(rows, width):
    rng = np.random.default_rng(rows)
    x, y = rng.normal(size=(2, 500, rows, width))
    assert share_of_strong(x, y) == 0
    assert share_of_strong(np.sort(x, axis=1), y) == 0, "one side that is sorted makes no dependence"
    series = draw_series(0.99, 100, rows, 1), draw_series(0.99, 100, rows, 2)
    assert share_of_strong(*series) > 0.95
    assert share_of_strong(*(rng.permuted(z, axis=1) for z in series)) == 0


@pytest.mark.parametrize(("coefficient", "rows"), [(0.5, 300), (0.9, 100), (0.99, 100), (-0.9, 100)])
def test_series_are_found(coefficient, rows):
    assert share_of_strong(*(draw_series(coefficient, 200, rows, seed) for seed in (1, 2))) > 0.98


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.9])
def test_effective_rows_are_those_whose_correlation_by_chance_is_as_large(coefficient):
    """Against the variance of the correlation of two series that share nothing, over many of them."""
    xs, ys = (draw_series(coefficient, 1000, 2000, seed)[:, :, 0] for seed in (3, 4))
    chance = [np.corrcoef(x, y)[0, 1] for x, y in zip(xs, ys, strict=True)]
    effective = np.median([correlate_rows(x[:, None], y[:, None]).effective_rows for x, y in zip(xs, ys, strict=True)])
    assert effective == pytest.approx(1 / np.var(chance), rel=0.2)


def test_thinning_leaves_rows_that_pass():
    x, y = (draw_series(0.9, 1, 20_000, seed)[0] for seed in (5, 6))
    step = correlate_rows(x, y).thinning
    assert step == pytest.approx(math.log(0.02) / math.log(0.81), abs=2)
    assert not correlate_rows(x[::step], y[::step]).is_strong and correlate_rows(x[::3], y[::3]).is_strong


def test_sorted_rows_and_groups_are_found_and_constants_are_not():
    x = np.sort(np.random.default_rng(0).normal(size=(300, 1)), axis=0)
    assert correlate_rows(x, x**2 * np.sign(x)).is_strong
    groups = np.repeat(np.arange(3.0), 100)[:, None]
    assert correlate_rows(groups, x).is_strong
    assert correlate_rows(np.ones((300, 1)), x).x == 0 and correlate_rows(-x, x).is_strong
    assert correlate_rows(x[:1], x[:1]).is_strong is False
