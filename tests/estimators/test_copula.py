import jax
import numpy as np
import pytest
from scipy.stats import norm, rankdata

from mi_contrast import estimators as mi
from mi_contrast.benchmarks import coverage
from mi_contrast.estimators import copula


def pairs(rho, seed, n=500, d=1):
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=(2, n, d))
    return x, rho * x + np.sqrt(1 - rho**2) * noise


def read(x, y, seed=0, **settings):
    return mi.estimate(x, y, key=jax.random.key(seed), steps=50, batch=128, **settings)


def test_scores_are_those_of_mid_ranks():
    values = np.round(np.random.default_rng(0).standard_cauchy(size=(200, 2)), 1)  # with ties
    expected = norm.ppf((rankdata(values, axis=0) - 0.5) / len(values))
    expected = (expected - expected.mean(axis=0)) / expected.std(axis=0)
    np.testing.assert_allclose(copula._normal_scores(values), expected, atol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_copula_s_error_is_its_spread_and_its_bias_is_small(rho):
    found = np.array(
        [copula.gaussian_copula(*pairs(rho, s, d=3), np.random.default_rng(s), draws=25) for s in range(80)]
    )
    truth = -1.5 * np.log1p(-(rho**2))
    assert abs(found[:, 0].mean() - truth) < 3.5 * found[:, 0].std() / np.sqrt(80)
    assert 0.75 < found[:, 1].mean() / found[:, 0].std() < 1.35


def test_rising_maps_of_a_coordinate_change_nothing():
    x, y = pairs(0.8, 1)
    plain, mapped = (copula.gaussian_copula(*p, np.random.default_rng(0)) for p in ((x, y), (np.exp(5 * x), y**3)))
    assert mapped == pytest.approx(plain)


def test_identical_samples_have_infinite_information():
    x, _ = pairs(0.0, 2)
    assert copula.gaussian_copula(x, x, np.random.default_rng(0)).nats == np.inf


@pytest.mark.parametrize(("rho", "d"), [(0.0, 1), (0.6, 5), (0.9, 1)])
def test_an_interval_holds_the_truth_of_gaussians(rho, d):
    """Five draws, one miss allowed: at 95 % coverage two misses come once in forty."""
    truth = -d / 2 * np.log1p(-(rho**2))
    held = 0
    for seed in range(5):
        found = read(*pairs(rho, seed + 20, d=d), seed)
        assert float(found.standard_error) > 1e-4
        assert np.isfinite(float(found.high))
        held += float(found.low) <= truth <= float(found.high)
    assert held >= 4


def test_the_bound_itself_misses_the_truth_of_the_same_draws():
    """The control: without the correction the reading is low by more than its interval."""
    truth = -2.5 * np.log1p(-(0.6**2))
    found = [read(*pairs(0.6, seed + 20, d=5), seed, corrected=False) for seed in range(5)]
    assert sum(float(f.low) <= truth <= float(f.high) for f in found) <= 3


@pytest.mark.nightly
def test_where_a_critic_sees_more_than_the_copula_it_is_the_answer():
    rng = np.random.default_rng(8)
    x = rng.normal(size=(1500, 1))
    y = np.abs(x) + 0.3 * rng.normal(size=(1500, 1))
    found = mi.estimate(x, y, key=jax.random.key(0), steps=200)
    bound = mi.estimate(x, y, key=jax.random.key(0), steps=200, corrected=False)
    assert float(found.nats) == float(bound.nats) > 0.35
    assert float(found.low) > 0.2


@pytest.mark.parametrize(("rho", "d"), [(0.6, 10), (0.99999, 2)])
def test_what_cannot_be_had_is_a_lower_limit(rho, d):
    found = read(*pairs(rho, 3, d=d))
    assert float(found.high) == np.inf
    assert float(found.low) <= -d / 2 * np.log1p(-(rho**2))


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("name", "draws", "least"),
    [
        ("N 500, d 5, rho 0.6, none", 30, 26),
        ("N 500, d 1, rho 0.9, exp", 15, 12),
        ("N 500, d 2, rho 0.3, cube", 15, 12),
    ],
)
def test_a_cell_of_the_coverage_table(name, draws, least):
    """At the nominal 97.5 %, fewer than `least` draws hold the truth less than once in 500 tables."""
    (cell,) = [cell for cell in coverage.CELLS if cell.name == name]
    found = coverage.summarise(cell, [coverage.measure(cell, draw) for draw in range(draws)])
    assert found["hits"] >= least
    assert found["lower_limits"] == 0
    assert found["width"] <= coverage.MAX_WIDTH
