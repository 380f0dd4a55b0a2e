"""The interval of `estimate` on made-up cross-fits: the variation between critics, and the bias from half samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.estimators import intervals, learned
from mi_contrast.estimators.intervals import CrossFit, combine_parts, estimate_with_interval

PARTS, SIZE = 3, 400


def draw_bounds(rng, spread):
    """Bounds and effects of parts whose critics are worth more or less by `spread` nats."""
    samples = 0.6 * rng.normal(size=(PARTS, SIZE))
    bounds = 1.0 + samples.mean(axis=1) + spread * rng.normal(size=PARTS)
    return bounds, samples - samples.mean(axis=1, keepdims=True)


@pytest.mark.parametrize(("spread", "most"), [(0.0, 1.5), (0.05, 1.35), (0.3, 1.1)])
def test_the_error_is_the_spread_over_draws_of_pairs_and_critics(spread, most):
    rng = np.random.default_rng(0)
    found = [combine_parts(*draws, draws[1]) for draws in (draw_bounds(rng, spread) for _ in range(4000))]
    variance = np.var([fit.nats for fit in found])
    assert 0.94 < np.mean([fit.error**2 for fit in found]) / variance < most
    assert min(fit.error for fit in found) >= 0.9 * 0.6 / np.sqrt(PARTS * SIZE), "never below that of the draw of pairs"
    assert all(fit.gain_error == 0 for fit in found)


def test_critics_that_differ_widen_the_answer_of_a_critic_and_not_that_of_the_copula(monkeypatch):
    """The same effects everywhere; only the bounds of the parts move apart."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(PARTS * SIZE, 1))
    effects = 0.6 * rng.normal(size=(PARTS, SIZE))
    effects -= effects.mean(axis=1, keepdims=True)
    answers = {}
    for level in (0.0, 1.0):  # below and above what the copula reads, which is about 0
        for apart in (0.0, 0.1):
            bounds = jnp.array([level - apart, level, level + apart])
            monkeypatch.setattr(learned, "_train_critics", lambda *_, b=bounds: (b, effects, effects))
            found = mi.estimate(x, np.roll(x, 1), key=jax.random.key(0), steps=1)
            answers[level, apart] = [float(v) for v in (found.nats, found.standard_error, found.low, found.high)]
    assert answers[0.0, 0.0] == answers[0.0, 0.1], "the copula's answer"
    sampling = np.mean(np.var(effects, axis=1)) / SIZE
    assert answers[1.0, 0.0][1] == pytest.approx(np.sqrt(sampling / PARTS), rel=1e-5)
    assert answers[1.0, 0.1][1] == pytest.approx(np.sqrt((sampling + (0.01 - sampling)) / PARTS), rel=1e-5)
    assert answers[1.0, 0.1][2] < answers[1.0, 0.0][2] < answers[1.0, 0.0][3] < answers[1.0, 0.1][3]


@pytest.mark.parametrize(("half", "bias"), [(0.6, 0.4), (0.9, 0.1), (1.0, 0.0), (1.3, 0.0)])
def test_a_bound_that_falls_on_half_of_the_samples_raises_the_upper_end(half, bias):
    """A bias that falls as 1 / N doubles on half of the samples, so the difference is what is left."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 600, 1))
    seen = []

    def refit(indices, number):
        seen.append((set(indices.tolist()), number))
        return half

    cross_fit = CrossFit(1.0, 0.02, 0.02)
    with_halves = estimate_with_interval(x, y, cross_fit, np.inf, np.random.default_rng(0), 200, refit)
    without = estimate_with_interval(x, y, cross_fit, np.inf, np.random.default_rng(0), 200, None)
    assert float(with_halves.high - with_halves.nats) == pytest.approx(intervals.WIDTH * 0.02 + bias, abs=1e-6)
    assert float(with_halves.high) - float(without.high) == pytest.approx(bias, abs=1e-6)
    assert float(with_halves.low) == float(without.low) == pytest.approx(1 - intervals.WIDTH * 0.02, abs=1e-6)
    (first, one), (second, two) = seen
    assert len(first) == len(second) == 300 and not first & second and one != two
