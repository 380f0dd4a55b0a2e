import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32
from jax.sharding import PartitionSpec as P
from scipy import stats

from mi_contrast import estimators as mi
from mi_contrast.estimators.draws import _bits

B, K, DRAWS = 6, 40, 16
RNG = np.random.default_rng(51)
POSITIVE = RNG.normal(size=B).astype(np.float32)
POOL = RNG.normal(size=(B, K)).astype(np.float32)
RING = mi.rank_weights(np.round(POOL, 1), 0.3, 0.9)  # with ties, hence fractions
IDS = np.arange(K)
KEY = jax.random.key(7)

multinomial = jax.jit(lambda key, weights: mi.multinomial_counts(key, weights, DRAWS))
poisson = jax.jit(mi.poisson_counts)


def repeated(row, counts):
    return np.repeat(row, np.asarray(counts).astype(int))


@pytest.mark.parametrize("draw", [multinomial, lambda key, weights: poisson(key, weights, DRAWS, IDS)])
def test_counts_as_weights_are_the_draws_gathered(draw):
    counts = draw(KEY, RING)
    assert counts.shape == (B, K) and counts.dtype == jnp.float32
    assert (np.asarray(counts) == np.round(counts)).all() and (np.asarray(counts)[np.asarray(RING) == 0] == 0).all()
    found = mi.info_nce(POSITIVE, POOL, where=counts)
    tilted = mi.binary_nce(POSITIVE, POOL, 3.0, 500, where=counts)
    for b in range(B):
        drawn = repeated(POOL[b].astype(np.float64), counts[b])
        value = POSITIVE[b] - np.log((np.exp(POSITIVE[b]) + np.exp(drawn).sum()) / (1 + len(drawn)))
        assert found[b] == pytest.approx(value, rel=1e-5, abs=1e-6)
        one = mi.binary_nce(POSITIVE[b : b + 1], drawn[None].astype(np.float32), 3.0, 500)
        assert tilted[b] == pytest.approx(float(one[0]), rel=1e-5)


def fits(counts, probabilities, total):
    """Chi-square of observed against expected counts."""
    return stats.chisquare(counts, np.asarray(probabilities) * total).pvalue > 1e-3


def test_multinomial_draws_are_k_in_proportion_to_weight():
    weights = np.array([1.0, 0.5, 0.0, 3.0, 0.25, 0.0, 1.0, 0.0])
    counts = np.asarray(multinomial(KEY, np.tile(weights, (4_000, 1))))
    assert (counts.sum(axis=1) == DRAWS).all()
    some = weights > 0
    assert fits(counts.sum(axis=0)[some], weights[some] / weights.sum(), counts.sum())
    of_first = np.bincount(counts[:, 3].astype(int), minlength=DRAWS + 1)
    pmf = stats.binom.pmf(np.arange(DRAWS + 1), DRAWS, 3.0 / weights.sum())
    pooled = lambda x: np.append(x[4:13], [x[:4].sum(), x[13:].sum()])  # noqa: E731
    assert fits(pooled(of_first), pooled(pmf), 4_000)
    correlation = np.corrcoef(counts[1:, 3], counts[:-1, 3])[0, 1]
    assert abs(correlation) < 4 / np.sqrt(4_000)  # rows draw independently


@pytest.mark.parametrize("rate", [0.004, 0.25, 1.0, 9.1])
def test_poisson_counts_have_their_distribution(rate):
    rows, columns = 400, 500
    counts = np.asarray(poisson(KEY, np.ones((rows, columns)), np.float32(rate * columns), np.arange(columns)))
    seen = np.bincount(counts.astype(int).ravel(), minlength=60)
    pmf = stats.poisson.pmf(np.arange(60), rate)
    some = pmf * counts.size > 10
    expected = np.append(pmf[some], 1 - pmf[some].sum())
    assert fits(np.append(seen[some], seen[~some].sum()), expected, counts.size)
    for along in (0, 1):  # neither anchors nor candidates share their draws
        sums = counts.sum(axis=along)
        assert sums.var() == pytest.approx(rate * counts.shape[along], rel=0.3)


def test_poisson_counts_depend_on_no_cut_of_pool_or_batch():
    @jax.jit
    def counts(key, part, ids, anchors):
        return mi.poisson_counts(key, part, DRAWS, ids, anchors=anchors, size=RING.sum(axis=1)[anchors])

    whole, rows, order = np.asarray(poisson(KEY, RING, DRAWS, IDS)), np.arange(B), RNG.permutation(K)
    for part in (slice(0, 20), slice(20, K), order):
        np.testing.assert_array_equal(counts(KEY, RING[:, part], IDS[part], rows), whole[:, part])
    np.testing.assert_array_equal(counts(KEY, RING[::-1], IDS, rows[::-1]), whole[::-1])
    controls = [(jax.random.key(8), IDS[20:], rows), (KEY, IDS[:20], rows), (KEY, IDS[20:], rows + 1)]
    for key, ids, anchors in controls:  # another key, and indices of candidates or anchors that start anew
        assert (np.asarray(counts(key, RING[:, 20:], ids, anchors)) != whole[:, 20:]).any()


def test_poisson_counts_within_a_sharded_pool_and_with_a_key_an_anchor():
    keys = jax.random.split(KEY, B)
    each = jax.vmap(lambda key, row, n: mi.poisson_counts(key, row, DRAWS, IDS, size=n))
    plain = jax.jit(each)(keys, RING, RING.sum(axis=1))
    assert len({tuple(row) for row in np.asarray(poisson(KEY, np.ones((B, K)), DRAWS, IDS))}) == B
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))

    @jax.jit
    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(None, "data"), P("data")), out_specs=P(None, "data"))
    def sharded(keys, weights, ids):
        size = jax.lax.psum(weights.sum(axis=1), "data")
        return jax.vmap(lambda key, row, n: mi.poisson_counts(key, row, DRAWS, ids, size=n))(keys, weights, size)

    np.testing.assert_array_equal(sharded(keys, RING, jnp.asarray(IDS)), plain)


def test_the_value_over_poisson_counts_divides_by_their_sum():
    """200 candidates, 16 draws: Poisson counts given their sum are draws; divided by 1 + k they read too much."""
    pool, positive, rows = RNG.normal(size=200).astype(np.float32), np.float32(0.2), 20_000
    positives, pools = np.full(rows, positive), np.broadcast_to(pool, (rows, 200))

    @jax.jit
    def means(key):
        fixed = mi.multinomial_counts(key, pools[:, :] * 0 + 1.0, DRAWS)
        counts = mi.poisson_counts(key, pools * 0 + 1.0, DRAWS, jnp.arange(200))
        values = mi.info_nce(positives, pools, where=counts)
        wrong = values - jnp.log1p(counts.sum(axis=1)) + jnp.log1p(float(DRAWS))
        same = counts.sum(axis=1) == DRAWS
        given = (values * same).sum() / same.sum()
        return mi.info_nce(positives, pools, where=fixed).mean(), given, values.mean(), wrong.mean()

    draws, given, over_sum, over_k = (float(x) for x in means(KEY))
    assert given == pytest.approx(draws, abs=0.02)
    assert 0 < over_sum - draws < 0.02 and 0.025 < over_k - draws < 0.06


def test_nothing_to_draw_and_not_a_number():
    weights = np.ones((B, K), np.float32)
    weights[0] = 0
    weights[1, 3] = np.nan
    weights[2, 4] = np.inf
    for counts in (multinomial(KEY, weights), poisson(KEY, weights, DRAWS, IDS)):
        counts = np.asarray(counts)
        assert (counts[0] == 0).all() and np.isnan(counts[1:3]).any(axis=1).all() and np.isfinite(counts[3:]).all()
        assert mi.info_nce(POSITIVE, POOL, where=counts)[0] == 0
        assert np.isnan(mi.info_nce(POSITIVE, POOL, where=counts)[1:3]).all()
    assert float(mi.poisson_counts(KEY, jnp.ones(3), 6, jnp.arange(3)).sum()) >= 0  # one anchor, no leading axis
    slope = jax.grad(lambda w: (mi.poisson_counts(KEY, w, DRAWS, IDS) * POOL).sum())(RING)
    assert (np.asarray(slope) == 0).all()


def test_the_counters_are_hashed_as_jax_does():
    high, low = (RNG.integers(0, 2**32, size=9, dtype=np.uint32) for _ in range(2))
    ours = _bits(KEY, high, low)
    words = jax.random.bits(KEY, (2,), jnp.uint32)
    theirs = [threefry_2x32(words, jnp.stack(pair))[0] for pair in zip(high, low, strict=True)]
    np.testing.assert_array_equal(ours, theirs)
