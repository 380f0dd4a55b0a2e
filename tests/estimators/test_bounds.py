"""What bounds what: the statements that may be made of an estimate, and the counter-examples to those that may not."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast import estimators as mi

N = 12
examples = settings(deadline=None, max_examples=60)


def expected_infimum(positive, pool, size):
    """J_n = f+ - log( (e^{f+} + n meanexp(pool)) / (n + 1) ), float64: at most InfoNCE with n draws, in the mean."""
    return positive - np.log((np.exp(positive) + size * np.exp(pool).mean(axis=-1)) / (size + 1))


@jax.jit
def read(positive, pool, weights):
    weak, strict = (mi.bound_holds(pool, weights, strict=s) for s in (False, True))
    return mi.info_nce(positive, pool, where=weights), weak, strict


@examples
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 5.0, 30.0]))
def test_info_nce_is_at_most_its_ceiling(seed, scale):
    rng = np.random.default_rng(seed)
    positive, pool = (scale * rng.normal(size=s).astype(np.float32) for s in (40, (40, N)))
    weights = rng.choice([0.0, 0.3, 1.0, 4.0], size=(40, N))
    value = np.asarray(read(positive, pool, weights)[0])
    assert (value <= np.asarray(mi.ceiling(weights.sum(axis=1) + 1)) + 1e-5).all()


@jax.jit
def over_draws(positive, pool, lower, upper):
    """Of every 3 draws with replacement, the value, and its mean weighted by the draws' probability in the band."""
    chosen = jnp.asarray(list(itertools.product(range(6), repeat=3)))
    band = mi.rank_weights(pool, lower, upper)
    size = band.sum(axis=1)
    chance = jnp.prod(band[:, chosen] / size[:, None, None], axis=-1)
    values = mi.info_nce(jnp.broadcast_to(positive[:, None], chance.shape), pool[:, chosen])
    weak = mi.bound_holds(pool, band)
    return (chance * values).sum(axis=1), values.mean(axis=1), mi.info_nce(positive, pool, where=band), size, weak


@examples
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.3, 1.0, 3.0]))
def test_a_ball_is_at_most_info_nce_and_a_band_is_where_the_weak_condition_holds(seed, scale):
    """With as many draws, counted out in full; over whole supports, at most J_n. Nothing is asked of the critic."""
    rng = np.random.default_rng(seed)
    positive, pool = scale * rng.normal(size=50) + 1, scale * rng.normal(size=(50, 6))
    edges = np.sort(rng.choice(7, size=2, replace=False) / 6)
    for lower, upper in ((edges[0] * 5 / 6, 1.0), edges):
        drawn, nce, whole, size, weak = (
            np.asarray(x) for x in over_draws(*map(np.float32, (positive, pool, lower, upper)))
        )
        asked = size > 0
        assert weak.all() or upper < 1  # a ball always holds
        assert (drawn <= nce + 1e-5)[asked & weak].all()
        assert (whole <= expected_infimum(positive, pool, size) + 1e-5)[asked & weak].all()
        assert (expected_infimum(positive, pool, 3) <= nce + 1e-5).all()


def test_the_whole_support_is_at_most_j_exactly_where_the_weak_condition_holds():
    """Any support, fractional too, any critic, the positive outside the pool; both directions, and the reason."""
    rng = np.random.default_rng(2)
    rows = 20_000
    scale = rng.choice([0.3, 1.0, 3.0], size=(rows, 1))
    pool = scale * rng.normal(size=(rows, N))
    positive = scale[:, 0] * rng.normal(size=rows) + 1
    weights = rng.choice([0.0, 1.0], size=(rows, N)) * np.where(rng.random((rows, 1)) < 0.5, 1, rng.random((rows, N)))
    value, weak, strict = (np.asarray(x) for x in read(*map(np.float32, (positive, pool, weights))))
    size, total = weights.sum(axis=1), np.exp(pool).mean(axis=1)
    support = (weights * np.exp(pool)).sum(axis=1) / np.maximum(size, 1e-9)
    clear = (size > 0) & (np.abs(np.log(np.maximum(support, 1e-30)) - np.log(total)) > 1e-4)
    gap = value - expected_infimum(positive, pool, size)
    away = clear & (np.abs(gap) > 2e-6)  # float32 cannot tell smaller gaps
    assert away.mean() > 0.9
    assert ((gap <= 0) == weak)[away].all()
    assert (weak == (support >= total))[clear].all() and weak[strict].all() and not strict[weak].all()
    # the control: with the positive in the pool the condition no longer tells
    inside = np.concatenate([pool, positive[:, None]], axis=1)
    one = np.concatenate([weights, np.ones((rows, 1))], axis=1)
    support = (one * np.exp(inside)).sum(axis=1) / one.sum(axis=1)
    both = positive - np.log(support)
    size = one.sum(axis=1) - 1
    wrong = (both <= expected_infimum(positive, pool, size)) != (support >= np.exp(inside).mean(axis=1))
    assert wrong.mean() > 0.05


def mean_over(values, k, positive, draws):
    """Mean of log w - log( (w + sum of k) / (k + 1) ) over all equally likely draws, w and e^f given."""
    found = [np.log(positive) - np.log((positive + sum(drawn)) / (k + 1)) for drawn in draws(values, k)]
    return np.mean(found)


def test_supports_that_are_no_band_need_the_strict_condition():
    """The weak condition holds, and k draws still read above InfoNCE with k draws from the pool."""
    with_replacement = lambda values, k: itertools.product(values, repeat=k)  # noqa: E731
    cases = [
        ([0.01, 2.0], [0.01] + 8 * [1.0] + [2.0], 1, with_replacement, 0.66),
        ([0.01, 0.01, 3.0], 2 * [0.01] + 6 * [1.0] + [3.0], 2, itertools.combinations, 0.53),
    ]
    for support, pool, k, draws, excess in cases:
        gap = mean_over(support, k, 0.1, draws) - mean_over(pool, k, 0.1, draws)
        assert gap == pytest.approx(excess, abs=0.005)
        f = jnp.log(jnp.array([pool]))
        weights = np.array([[1.0 if e in support else 0.0 for e in pool]])
        assert bool(mi.bound_holds(f, weights)[0]) and not bool(mi.bound_holds(f, weights, strict=True)[0])


def gaussians(rho, d, anchors, size, seed=0):
    """Scores log p(y|x) / p(y) of pairs correlated rho in each of d dimensions: the optimal critic. Float64."""
    rng = np.random.default_rng(seed)
    x, others = rng.normal(size=(anchors, d)), rng.normal(size=(size, d))
    y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=(anchors, d))
    constant, slope, curve = -0.5 * d * np.log(1 - rho**2), rho / (1 - rho**2), -0.5 * rho**2 / (1 - rho**2)
    of = lambda product, y: constant + slope * product + curve * ((x**2).sum(axis=1)[:, None] + (y**2).sum(axis=-1))  # noqa: E731
    return of((x * y).sum(axis=1)[:, None], y[:, None])[:, 0], of(x @ others.T, others)


TRUTH = -2 * np.log(1 - 0.95**2)


@functools.cache
def correlated():
    """Rho .95 in 4 dimensions, truth 4.656, with the anchors' luck in f+ taken out: its mean is the truth."""
    positive, pool = gaussians(0.95, 4, 300, 20_000, seed=3)
    return np.float32(positive - positive.mean() + TRUTH), np.float32(pool)


RINGS = [
    # lower, upper, at n 63, 255, 1,023, 4,095 draws, over the whole ring of a large pool
    (0.0, 1.0, (3.528, 4.143, 4.446, 4.582), 4.66),
    (0.5, 1.0, (3.199, 3.638, 3.829, 3.913), 3.97),
    (0.5, 0.99, (3.674, 4.553, 5.198, 5.661), 6.76),
    (0.9, 0.99, (3.027, 3.629, 4.053, 4.349), 5.07),
    (0.98, 0.99, (2.046, 2.411, 2.664, 2.839), 3.26),
]


@pytest.mark.nightly
@pytest.mark.parametrize(("lower", "upper", "readings", "limit"), RINGS)
def test_rings_with_an_upper_cut_can_read_above_the_truth(lower, upper, readings, limit):
    """The 50-99 % ring reads 5.2 at n 1,023 and 5.66 at 4,095 where the truth is 4.66; the released 90-99 % tends to
    5.07. What the cut removes carries the mean of e^f, so that the ring's mean falls short of the pool's: the gate sees
    it at any n, also where few negatives keep the ceiling low and the reading looks honest.
    """
    positive, pool = correlated()
    band = mi.rank_weights(pool, lower, upper)
    for n, expected in zip((63, 255, 1_023, 4_095), readings, strict=True):
        counts = mi.multinomial_counts(jax.random.key(n), band, n)
        value = float(mi.info_nce(positive, pool, where=counts).mean())
        assert value == pytest.approx(expected, abs=0.12)
        assert value <= mi.ceiling(n + 1)
    mean = np.log((np.asarray(band, np.float64) * np.exp(np.float64(pool))).sum(axis=1) / np.asarray(band).sum(axis=1))
    assert positive.mean() - mean.mean() == pytest.approx(limit, abs=0.12)
    size = np.asarray(band).sum(axis=1)
    gap = np.asarray(mi.info_nce(positive, pool, where=band)) - expected_infimum(positive, np.float64(pool), size)
    honest = (lower, upper) != (0.5, 0.99)
    assert bool(gap.mean() <= 1e-3) == honest
    share = np.asarray(mi.bound_holds(pool, band)).mean()
    assert share < 0.05 if not honest else share > 0.5
    if (lower, upper) == (0.9, 0.99):  # why a share of anchors is no gate: most hold, and the limit is above the truth
        assert limit > TRUTH and mean.mean() < 0


def test_positives_picked_by_score_read_above_zero_on_independent_data():
    """Cave(.9, .99) of independent scores: .38, or .31 with the mean, though the weak condition holds everywhere."""
    rng = np.random.default_rng(4)
    positive, pool = (0.5 * rng.normal(size=s).astype(np.float32) for s in (500, (500, 1_000)))

    @jax.jit
    def read(positive, pool):
        caves = [mi.cave(positive, pool, 0.9, 0.99, reduce=r).mean() for r in ("logsumexp", "mean")]
        holds = mi.bound_holds(pool, mi.rank_weights(pool, 0.9, 0.99))
        return *caves, mi.ring(positive, pool, 0.9, 0.99).mean(), mi.info_nce(positive, pool).mean(), holds.all()

    logsumexp, mean, ring, nce, holds = read(positive, pool)
    assert logsumexp == pytest.approx(0.38, abs=0.03) and mean == pytest.approx(0.31, abs=0.03)
    assert holds and ring < 0 and abs(nce) < 0.2  # the controls: with one positive nothing is read


TOYS = [  # rho, dimensions, terms; variance over draws of InfoNCE, of the ball and of the ring, of 10 % and 1-10 %
    (0.5, 1, 64, 0.0049, 0.0003, 0.0001),
    (0.8, 1, 64, 0.0147, 0.0004, 0.0002),
    (0.8, 4, 64, 0.1416, 0.0265, 0.0059),
    (0.9, 8, 64, 0.2096, 0.2940, 0.0053),
    (0.5, 8, 256, 0.0284, 0.0041, 0.0008),
]


@pytest.mark.nightly
@pytest.mark.parametrize(("rho", "d", "terms", "nce", "ball", "ring"), TOYS)
def test_a_ring_varies_less_over_its_negatives_than_info_nce_and_a_ball_need_not(rho, d, terms, nce, ball, ring):
    """Wu et al. 2021's variance, over the draw of negatives with the pair fixed, the mean over pairs."""
    positive, pool = gaussians(rho, d, 200, 20_000, seed=5)
    pool = np.sort(pool, axis=1)
    rng = np.random.default_rng(6)
    found = []
    for lower, upper in ((0.0, 1.0), (0.9, 1.0), (0.9, 0.99)):
        held = np.asarray(mi.rank_weights(np.float32(pool[:1]), lower, upper))[0]
        start, stop = np.flatnonzero(held)[[0, -1]]
        drawn = rng.integers(start, stop + 1, size=(200, 200, terms - 1))
        mass = np.exp(np.take_along_axis(pool[:, None, :], drawn, axis=2)).sum(axis=2)
        values = positive[:, None] - np.log((np.exp(positive)[:, None] + mass) / terms)
        found.append(values.var(axis=1).mean())
    for value, expected in zip(found, (nce, ball, ring), strict=True):
        assert value == pytest.approx(expected, rel=0.35, abs=2e-4)  # the tails are long
    assert found[2] < found[0]
    assert (found[1] > found[0]) == (ball > nce)  # only at rho .9 in 8 dimensions
