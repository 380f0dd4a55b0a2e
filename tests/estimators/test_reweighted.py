import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from mi_contrast.estimators.mass import mass
from mi_contrast.estimators.reweighted import reweighted_nats
from tests.estimators import reference

B, K = 5, 23
RNG = np.random.default_rng(31)
POSITIVE = RNG.normal(size=B).astype(np.float32)
POOL = (2 * RNG.normal(size=(B, K))).astype(np.float32)
WEIGHTS = RNG.choice([0.0, 0.5, 1.0, 3.0], size=(B, K))
CASES = {"real": POOL, "ties": np.round(POOL), "-inf": np.where(POOL < -2, -np.inf, POOL).astype(np.float32)}
SETTINGS = [(0.0, 0.0, -np.inf), (1.0, 0.1, -np.inf), (0.0, 0.1, -2.0), (2.0, 0.3, -5.0), (0.5, 0.05, 4.0)]


@jax.jit
def read(positive, pool, beta, prior, floor):
    form = lambda f, g: mi.hard_negatives(f, g, beta, prior, where=WEIGHTS, floor=floor)  # noqa: E731
    return form(positive, pool), *jax.grad(lambda f, g: form(f, g).sum(), argnums=(0, 1))(positive, pool)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_equations(case):
    pool = CASES[case]
    for beta, prior, floor in SETTINGS:
        values, to_positive, to_pool = read(POSITIVE, pool, beta, prior, floor)
        loop = lambda f, row, b: reference.hard_negatives(f, row, WEIGHTS[b], beta, prior, floor)  # noqa: B023, E731
        for b in range(B):
            here = np.isfinite(pool[b])
            assert values[b] == pytest.approx(loop(np.float64(POSITIVE[b]), pool[b], b), rel=1e-5, abs=1e-5)

            def of_all(moved, b=b, here=here):
                row = pool[b].astype(np.float64)
                row[here] = moved[1:]
                return loop(moved[0], row, b)  # noqa: B023

            slopes = reference.slopes(of_all, np.append(POSITIVE[b], pool[b][here]))
            np.testing.assert_allclose(np.append(to_positive[b], to_pool[b][here]), slopes, atol=2e-5)
            assert (np.asarray(to_pool[b])[~here] == 0).all()


def test_limits():
    nce = mi.info_nce(POSITIVE, POOL, where=WEIGHTS)
    np.testing.assert_allclose(mi.hard_negatives(POSITIVE, POOL, 0.0, 0.0, where=WEIGHTS), nce, rtol=1e-5, atol=1e-6)
    band = mi.rank_weights(POOL, 0.5, 0.9)
    ring = mi.ring(POSITIVE, POOL, 0.5, 0.9)
    np.testing.assert_allclose(mi.hard_negatives(POSITIVE, POOL, 0.0, 0.0, where=band), ring, rtol=1e-5, atol=1e-6)
    harder = [mi.hard_negatives(POSITIVE, POOL, beta, 0.0, where=WEIGHTS) for beta in (0.0, 0.5, 2.0)]
    assert (np.diff(np.stack(harder), axis=0) < 0).all()  # never above InfoNCE


def released(embeddings, temperature, beta, prior):
    """Robinson et al.'s released loss on 2B embeddings, each anchor's value, in float64."""
    n = len(embeddings) // 2
    everything = np.exp(embeddings @ embeddings.T / temperature)
    mask = ~np.tile(np.eye(n, dtype=bool), (2, 2))
    negative = everything[mask].reshape(2 * n, -1)
    positive = np.exp((embeddings[:n] * embeddings[n:]).sum(axis=1) / temperature)
    positive = np.concatenate([positive, positive])
    size = 2 * n - 2
    importance = np.exp(beta * np.log(negative))
    reweighted = (importance * negative).sum(axis=1) / importance.mean(axis=1)
    mass = np.clip((-prior * size * positive + reweighted) / (1 - prior), size * np.exp(-1 / temperature), None)
    return -np.log(positive / (positive + mass)), np.log(positive), np.log(negative), mass


def test_the_released_loss_and_its_floor():
    embeddings = RNG.normal(size=(12, 4))
    embeddings[6:] = embeddings[:6] + 0.5 * RNG.normal(size=(6, 4))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    clamped = 0
    for temperature, beta, prior in ((0.5, 1.0, 0.1), (0.2, 0.5, 0.3), (0.5, 0.0, 0.1)):
        loss, positive, negative, mass = released(embeddings, temperature, beta, prior)
        found = mi.hard_negatives(np.float32(positive), np.float32(negative), beta, prior, floor=-1 / temperature)
        np.testing.assert_allclose(np.log(11) - loss, found, rtol=1e-5, atol=1e-5)
        clamped += (mass == 10 * np.exp(-1 / temperature)).sum()
    assert clamped > 0  # both sides of the clamp were met


def test_beta_zero_is_the_debiased_form():
    """Chuang et al.: Ng = max( (sum e^f - prior N e^{f+}) / (1 - prior), N e^{-1/t} )."""
    scores = POOL.astype(np.float64)
    for prior in (0.0, 0.1, 0.5):
        mass = (np.exp(scores).sum(axis=1) - prior * K * np.exp(np.float64(POSITIVE))) / (1 - prior)
        mass = np.maximum(mass, K * np.exp(-2.0))
        expected = POSITIVE - np.log((np.exp(np.float64(POSITIVE)) + mass) / (K + 1))
        found = mi.hard_negatives(POSITIVE, POOL, 0.0, prior, floor=-2.0)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_without_a_floor_all_mass_can_be_false_negatives():
    positive = np.float32([9.0])
    value, slopes = jax.value_and_grad(lambda g: mi.hard_negatives(positive, g, 1.0, 0.5)[0])(POOL[:1])
    assert value == pytest.approx(np.log(K + 1), rel=1e-6) and (np.asarray(slopes) == 0).all()
    assert np.isfinite(jax.grad(lambda f: mi.hard_negatives(f, POOL[:1], 1.0, 0.5)[0])(positive)).all()


def test_the_prior_can_read_above_the_truth():
    """Rho .9 in 4 dimensions, truth 3.32: a prior of .1 reads above it, InfoNCE does not."""
    rng = np.random.default_rng(5)
    rho, x, noise, others = 0.9, *rng.normal(size=(2, 1_500, 4)), rng.normal(size=(4_000, 4))
    ratio = lambda y: -2 * np.log(1 - rho**2) + ((y**2 - (y - rho * x) ** 2 / (1 - rho**2)) / 2).sum(axis=-1)  # noqa: E731
    positive = ratio(rho * x + np.sqrt(1 - rho**2) * noise)
    pool = np.stack([ratio(other) for other in others[:1_023]], axis=1)
    value, nce = (mi.hard_negatives(np.float32(positive), np.float32(pool), 0.0, p).mean() for p in (0.1, 0.0))
    truth = -2 * np.log(1 - rho**2)
    assert nce < truth < value - 0.1


def test_multiplicities_are_draws():
    counts = mi.multinomial_counts(jax.random.key(2), mi.rank_weights(POOL, 0.3, 0.9), 9)
    drawn = np.stack([np.repeat(row, c.astype(int)) for row, c in zip(POOL, np.asarray(counts), strict=True)])
    found = mi.hard_negatives(POSITIVE, POOL, 1.0, 0.1, where=counts)
    np.testing.assert_allclose(found, mi.hard_negatives(POSITIVE, drawn, 1.0, 0.1), rtol=1e-5)


def test_from_sums_of_blocks():
    """Sums over two halves of the pool, added, give the whole pool's value."""
    parts = np.split(POOL[:, :-1], 2, axis=1)
    log_sum, log_weight = (np.logaddexp(*(mass(power * p, None).log_sum for p in parts)) for power in (1.5, 0.5))
    found = reweighted_nats(POSITIVE, log_sum, log_weight, jnp.full(B, K - 1.0), 0.1, -2.0)
    expected = mi.hard_negatives(POSITIVE, POOL[:, :-1], 0.5, 0.1, floor=-2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_nothing_infinite_and_not_a_number():
    @jax.jit
    def form(positive, pool, where, beta=0.0, prior=0.1):
        value = lambda f, g: mi.hard_negatives(f, g, beta, prior, where=where, floor=-2.0)  # noqa: E731
        return value(positive, pool), *jax.grad(lambda f, g: value(f, g).sum(), argnums=(0, 1))(positive, pool)

    all_of_them, nothing, out = np.ones((B, K), bool), np.zeros((B, K), bool), np.tile(np.arange(K) > 0, (B, 1))
    for found in (form(POSITIVE, POOL, nothing), form(np.full(B, -np.inf, np.float32), POOL, all_of_them)):
        assert all((np.asarray(x) == 0).all() for x in found)
    assert (np.asarray(mi.hard_negatives(POSITIVE, POOL[:, :0], 1.0, 0.1)) == 0).all()
    pool, expected = POOL.copy(), form(POSITIVE, POOL, out)
    pool[:, 0] = np.inf
    for beta in (0.0, 1.0):
        assert (np.asarray(form(POSITIVE, pool, all_of_them, beta)[0]) == -np.inf).all()
    for bad in (np.inf, np.nan):
        pool[:, 0] = bad
        jax.tree.map(np.testing.assert_array_equal, form(POSITIVE, pool, out), expected)
    assert np.isnan(form(POSITIVE, pool, all_of_them)[0]).all()
    assert np.isnan(form(POSITIVE, POOL, out, np.nan)[0]).all()
    assert np.isnan(form(POSITIVE, POOL, out, 0.0, np.nan)[0]).all()


def test_large_scores_settings_of_each_anchor_and_bfloat16():
    found = mi.hard_negatives(60 * POSITIVE, 60 * POOL, 1.0, 0.1)
    loop = [reference.hard_negatives(*x, np.ones(K), 1.0, 0.1) for x in zip(60 * POSITIVE, 60 * POOL, strict=True)]
    np.testing.assert_allclose(found, loop, rtol=1e-5, atol=1e-4)
    assert np.isfinite(jax.grad(lambda g: mi.hard_negatives(60 * POSITIVE, g, 1.0, 0.1).sum())(60 * POOL)).all()
    settings = np.linspace(0, 2, B, dtype=np.float32), np.linspace(0, 0.4, B, dtype=np.float32)
    floor = np.linspace(-5, 0, B, dtype=np.float32)
    form = lambda f, g, b, p, low: mi.hard_negatives(f, g, b, p, floor=low)  # noqa: E731
    of_each = form(POSITIVE, POOL, *settings, floor)
    np.testing.assert_allclose(of_each, jax.jit(jax.vmap(form))(POSITIVE, POOL, *settings, floor), rtol=1e-5)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (POSITIVE, POOL)]
    found = mi.hard_negatives(*half, 1.0, 0.1)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, mi.hard_negatives(*(x.astype(jnp.float32) for x in half), 1.0, 0.1), rtol=1e-6)


@pytest.mark.parametrize(("beta", "prior"), [(-1.0, 0.1), (1.0, 1.0), (1.0, -0.1), (np.nan, 0.1), (np.inf, 0.0)])
def test_mistakes_are_told_in_one_line(beta, prior):
    with pytest.raises(UserError) as told:
        mi.hard_negatives(POSITIVE, POOL, beta, prior)
    assert "\n" not in str(told.value)
