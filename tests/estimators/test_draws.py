import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from scipy import stats

from mi_contrast import estimators as mi
from mi_contrast.estimators.draws import LOW_RATE, LOW_TERMS, RATE, TERMS, _bits, _mix, _tails, draw_poisson

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


@pytest.mark.nightly
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


# --- the generator ---


def mixed(x):
    """The finaliser of MurmurHash3 in Python's whole numbers."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
    return x ^ (x >> 16)


def literal_bits(seed, stream, counter):
    first, second = (mixed((int(word) + 0x9E3779B9 * stream) % 2**32) for word in seed)
    return mixed((mixed(counter ^ first) + second) % 2**32)


def test_bits_are_two_rounds_of_the_finaliser():
    seeds, counters = (RNG.integers(0, 2**32, size=n, dtype=np.uint32) for n in ((3, 2), 5))
    ours = np.asarray(_bits(seeds, np.uint32(7), counters))
    theirs = [[literal_bits(seed, 7, int(counter)) for counter in counters] for seed in seeds]
    np.testing.assert_array_equal(ours, theirs)


ROWS, COLUMNS = 128, 4096
SEEDS = np.random.default_rng(5).integers(0, 2**32, size=(ROWS, 2), dtype=np.uint32)
# Related seeds are the hard case: they differ in one low bit of one word, or by a step of the counter.
NEAR = SEEDS[:1] + np.stack([np.arange(ROWS), np.zeros(ROWS)], axis=1).astype(np.uint32)
GENERATORS = {
    "ours": lambda seeds: _bits(seeds, np.uint32(0), np.arange(COLUMNS, dtype=np.uint32)),
    "one round": lambda seeds: _mix(np.arange(COLUMNS, dtype=np.uint32) + seeds[:, :1]),
    "a line": lambda seeds: np.arange(COLUMNS, dtype=np.uint32) * np.uint32(2654435761) + seeds[:, :1],
}


def deviation(bits):
    """The largest deviation of a set of sums of independent bits or products, in standard deviations.

    Each bit is set half the time; bytes are uniform; neighbours in a row, rows at any distance up to 8, also shifted
    against one another, and pairs of bits of a number agree half the time.
    """
    bits = np.asarray(bits).astype(np.uint32)
    planes = ((bits[..., None] >> np.arange(32, dtype=np.uint32)) & 1).astype(np.float32) * 2 - 1
    n = bits.size
    worst = [np.abs(planes.sum(axis=(0, 1))).max() / np.sqrt(n)]
    for part in range(4):
        seen = np.bincount(((bits >> (8 * part)) & 255).ravel(), minlength=256)
        worst.append(abs(stats.norm.isf(np.clip(stats.chisquare(seen).pvalue, 1e-300, 1 - 1e-16))))
    agree = lambda x, y: np.abs(np.sum(x * y, axis=(0, 1))).max() / np.sqrt(x[..., 0].size)  # noqa: E731
    for step in (1, 2, 3, 8):
        worst.append(agree(planes[:, step:], planes[:, :-step]))
        worst.append(agree(planes[step:], planes[:-step]))
        worst.append(agree(planes[step:, :-step], planes[:-step, step:]))
        worst.append(agree(planes, np.roll(planes, step, axis=-1)))
    uniform = stats.kstest((bits.ravel() + 0.5) / 2.0**32, "uniform").pvalue
    return max(*worst, abs(stats.norm.isf(np.clip(uniform, 1e-300, 1 - 1e-16))))


@pytest.mark.parametrize("seeds", [SEEDS, NEAR, NEAR[:, ::-1]], ids=["seeds", "first word near", "second word near"])
def test_bits_are_uniform_and_independent(seeds):
    assert deviation(GENERATORS["ours"](seeds)) < 5.5  # of some 700 sums


@pytest.mark.parametrize("name", ["one round", "a line"])
def test_a_weaker_generator_is_caught(name):
    assert deviation(GENERATORS[name](NEAR)) > 30


def test_streams_of_a_row_and_rows_of_a_seed_share_no_numbers():
    streams = [np.asarray(_bits(SEEDS[:4], np.uint32(at), np.arange(COLUMNS, dtype=np.uint32))) for at in (0, 1, 2**31)]
    numbers = np.concatenate([x.ravel() for x in streams])
    assert deviation(np.concatenate(streams)) < 5.5
    expected = len(numbers) ** 2 / 2**33  # pairs that are equal by chance
    assert len(numbers) - len(np.unique(numbers)) < expected + 5 * np.sqrt(expected) + 1


def test_each_bit_of_seed_and_counter_flips_each_bit_half_the_time():
    counters = np.arange(0, 4096 * 7, 7, dtype=np.uint32)
    seed = SEEDS[:1]
    before = np.asarray(_bits(seed, np.uint32(0), counters))
    flips = []
    for bit in np.uint32(1) << np.arange(32, dtype=np.uint32):
        after = [_bits(seed, np.uint32(0), counters ^ bit)]
        after += [
            _bits(seed ^ np.array([word * bit for word in at]), np.uint32(0), counters) for at in ((1, 0), (0, 1))
        ]
        for x in after:
            changed = before ^ np.asarray(x)
            flips.append(((changed[..., None] >> np.arange(32, dtype=np.uint32)) & 1).mean(axis=(0, 1)))
    # Flips of a difference that is the same for many counters are not independent: 8 standard deviations.
    assert np.abs(np.array(flips) - 0.5).max() < 8 * 0.5 / np.sqrt(len(counters))


# --- exact draws and thresholds ---


@pytest.mark.parametrize("rate", [0.17, 1.85, 2.0])
def test_thresholds_are_the_tails_of_the_distribution(rate):
    """P(count >= c) in float64, c = 1 to 16: within 2^-33 and float32's rounding; what lies beyond is below 2^-34."""
    tails = np.array([float(x) for x in _tails(jnp.float32(rate))][::-1])
    exact = stats.poisson.sf(np.arange(TERMS), np.float64(np.float32(rate)))
    np.testing.assert_allclose(tails, exact, rtol=2e-6, atol=2.0**-33)
    assert stats.poisson.sf(TERMS, RATE) < 2.0**-34


def test_few_terms_give_the_same_counts_at_low_rates():
    ids, rate = np.arange(200_000), jnp.array([1e-4, 0.17, LOW_RATE], jnp.float32)
    mask = np.ones((3, 200_000), bool)
    draw = jax.jit(lambda rate, low: draw_poisson(SEEDS[:3], mask, rate, ids, is_low_rate=low), static_argnums=1)
    few, many = (np.asarray(draw(rate, low)) for low in (True, False))
    np.testing.assert_array_equal(few, many)
    np.testing.assert_allclose(few.mean(axis=1), rate, atol=0.007)
    assert stats.poisson.sf(LOW_TERMS, LOW_RATE) < 2.0**-33  # which rounds to a threshold of 0
    higher = [np.asarray(draw(2 + rate, low)) for low in (True, False)]
    assert (higher[0] != higher[1]).any()  # the control: at higher rates they differ


@pytest.mark.parametrize("share", [1.0, 0.4])
def test_weights_of_one_and_other_weights_are_drawn_alike(share):
    """A weight of 1 takes its row's thresholds, others their own: the same counts where the means are the same."""
    weights = np.ones((8, 4000), np.float32)
    whole = np.asarray(poisson(KEY, weights, 5000.0, np.arange(4000)))
    part = np.asarray(poisson(KEY, weights * share, 5000.0, np.arange(4000), size=weights.sum(axis=1) * share))
    assert (whole != part).mean() < 1e-3 and whole.sum() > 0


def test_fractions_have_their_distribution_beside_ones():
    weights = np.tile([1.0, 0.25, 0.0, 2.5], (40_000, 1)).astype(np.float32)
    counts = np.asarray(poisson(KEY, weights, 6.0, np.arange(4), size=np.full(40_000, 2.0, np.float32)))
    assert (counts[:, 2] == 0).all()
    for column, mean in ((0, 3.0), (1, 0.75), (3, 7.5)):
        seen = np.bincount(counts[:, column].astype(int), minlength=40)
        pmf = stats.poisson.pmf(np.arange(len(seen)), mean)
        some = pmf * len(counts) > 10
        assert fits(np.append(seen[some], seen[~some].sum()), np.append(pmf[some], 1 - pmf[some].sum()), len(counts))


@pytest.mark.parametrize("k", [1, 40, 900])
def test_many_draws_at_once_and_one_by_one_are_one_distribution(k):
    """Of 900 draws most are Poisson counts, of 40 few, of 1 none: counts are binomial, pairs covary as -k p q."""
    weights = np.tile([1.0, 0.5, 0.0, 1.0, 0.25], (1500, 50)).astype(np.float32)
    counts = np.asarray(mi.multinomial_counts(KEY, weights, k))
    shares = weights[0] / weights[0].sum()
    assert (counts.sum(axis=1) == k).all() and (counts[:, shares == 0] == 0).all()
    groups = np.stack([counts[:, weights[0] == w].sum(axis=1) for w in (1.0, 0.5, 0.25)], axis=1)
    p = np.array([shares[weights[0] == w].sum() for w in (1.0, 0.5, 0.25)])
    covariance = k * (np.diag(p) - np.outer(p, p))
    error = np.sqrt((covariance**2 + np.outer(np.diag(covariance), np.diag(covariance))) / len(counts))
    assert (np.abs(np.cov(groups.T) - covariance) < 5 * error + 1e-9).all()
    for column in (0, 1, 3, 4, 200):
        seen = np.bincount(counts[:, column].astype(int), minlength=3)
        pmf = stats.binom.pmf(np.arange(len(seen)), k, shares[column])
        some = pmf * len(counts) > 5
        assert fits(np.append(seen[some], seen[~some].sum()), np.append(pmf[some], 1 - pmf[some].sum()), len(counts))


def test_few_candidates_are_drawn_one_by_one():
    weights = np.zeros((4, 300), np.float32)
    weights[:, 7], weights[:, 290] = 1, 3
    counts = np.asarray(mi.multinomial_counts(KEY, weights, 5000))
    assert (counts.sum(axis=1) == 5000).all() and (counts[:, 7] + counts[:, 290] == 5000).all()
    assert (np.abs(counts[:, 7] - 1250) < 5 * np.sqrt(5000 * 0.25 * 0.75)).all()
