import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from tests.estimators import reference

B, K = 5, 23
RNG = np.random.default_rng(41)
POSITIVE = RNG.normal(size=B).astype(np.float32)
POOL = (2 * RNG.normal(size=(B, K))).astype(np.float32)
WEIGHTS = RNG.choice([0.0, 0.5, 1.0, 3.0], size=(B, K))
CASES = {"real": POOL, "ties": np.round(POOL), "-inf": np.where(POOL < -2, -np.inf, POOL).astype(np.float32)}
LOG_Z, SIZE = 3.0, 500


@jax.jit
def read(positive, pool, log_normaliser):
    form = lambda f, g: mi.binary_nce(f, g, log_normaliser, SIZE, where=WEIGHTS)  # noqa: E731
    return form(positive, pool), *jax.grad(lambda f, g: form(f, g).sum(), argnums=(0, 1))(positive, pool)


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_the_equations(case):
    pool = CASES[case]
    values, to_positive, to_pool = read(POSITIVE, pool, LOG_Z)
    for b in range(B):
        loop = lambda f, row: reference.binary_nce(f, row, WEIGHTS[b], LOG_Z, SIZE)  # noqa: B023, E731
        here = np.isfinite(pool[b])
        assert values[b] == pytest.approx(loop(POSITIVE[b], pool[b]), rel=1e-5)

        def of_all(moved, b=b, here=here, loop=loop):
            row = pool[b].astype(np.float64)
            row[here] = moved[1:]
            return loop(moved[0], row)

        slopes = reference.slopes(of_all, np.append(POSITIVE[b], pool[b][here]))
        np.testing.assert_allclose(np.append(to_positive[b], to_pool[b][here]), slopes, atol=2e-5)
        assert (np.asarray(to_pool[b])[~here] == 0).all()


def test_the_released_loss_and_what_its_eps_does():
    """In the released settings, 4,096 candidates of 1,281,167, Z set by the first batch."""
    rng = np.random.default_rng(1)
    positive, pool = rng.normal(7, 2, size=4), rng.normal(0, 1.3, size=(4, 4_096))
    size = 1_281_167
    log_z = mi.first_normaliser(np.float32(positive), np.float32(pool), size)
    columns = np.concatenate([positive[:, None], pool], axis=1)
    assert float(log_z) == pytest.approx(np.log(np.exp(columns).mean() * size), rel=1e-6)
    found = mi.binary_nce(np.float32(positive), np.float32(pool), log_z, size)
    one = np.ones(4_096)
    for b in range(4):
        exact, eps = (reference.binary_nce(positive[b], pool[b], one, float(log_z), size, e) for e in (0.0, 1e-7))
        assert found[b] == pytest.approx(exact, rel=1e-5)
        assert 0.1 < exact - eps < 1e-7 * size + 1e-3


def test_weights_are_multiplicities_and_candidates_are_counted():
    twice = np.concatenate([POOL, POOL[:, :4]], axis=1)
    weights = 1.0 + (np.arange(K) < 4) * np.ones((B, 1))
    found = mi.binary_nce(POSITIVE, POOL, LOG_Z, SIZE, where=weights)
    np.testing.assert_allclose(found, mi.binary_nce(POSITIVE, twice, LOG_Z, SIZE), rtol=1e-6)
    padded = np.concatenate([POOL, np.full((B, 9), -np.inf, np.float32)], axis=1)
    np.testing.assert_allclose(
        mi.binary_nce(POSITIVE, padded, LOG_Z, SIZE), mi.binary_nce(POSITIVE, POOL, LOG_Z, SIZE), rtol=1e-6
    )


def test_extremes():
    nothing, absent = np.zeros((B, K), bool), np.full(B, -np.inf, np.float32)
    for positive, where in ((POSITIVE, nothing), (absent, None)):
        form = lambda f, g, w=where: mi.binary_nce(f, g, LOG_Z, SIZE, where=w).sum()  # noqa: E731
        value, slopes = jax.value_and_grad(form, (0, 1))(positive, POOL)
        assert value == 0 and all((np.asarray(s) == 0).all() for s in slopes)
    assert (np.asarray(mi.binary_nce(POSITIVE, POOL[:, :0], LOG_Z, SIZE)) == 0).all()
    for scale in (100.0, 1e4):
        values, *slopes = read(scale * POSITIVE, scale * POOL, LOG_Z)
        assert np.isfinite(values).all() and all(np.isfinite(s).all() for s in slopes)
    pool, out = POOL.copy(), np.arange(K) > 0
    pool[:, 0] = np.inf
    assert (np.asarray(mi.binary_nce(POSITIVE, pool, LOG_Z, SIZE)) == -np.inf).all()
    pool[:, 0] = np.nan
    assert np.isnan(mi.binary_nce(POSITIVE, pool, LOG_Z, SIZE)).all()
    assert np.isfinite(mi.binary_nce(POSITIVE, pool, LOG_Z, SIZE, where=out)).all()
    assert np.isnan(mi.binary_nce(POSITIVE, POOL, np.nan, SIZE)).all()
    with pytest.raises(UserError):
        mi.binary_nce(POSITIVE[1:], POOL, LOG_Z, SIZE)


def test_leading_axes_vmap_and_bfloat16():
    log_z = np.linspace(1, 4, B, dtype=np.float32)
    plain = mi.binary_nce(POSITIVE, POOL, log_z, SIZE)
    each = jax.vmap(lambda f, g, z: mi.binary_nce(f, g, z, SIZE))(POSITIVE, POOL, log_z)
    np.testing.assert_allclose(plain, each, rtol=1e-6)
    half = [jnp.asarray(x, jnp.bfloat16) for x in (POSITIVE, POOL)]
    found = mi.binary_nce(*half, LOG_Z, SIZE)
    assert found.dtype == jnp.float32
    full = mi.binary_nce(*(x.astype(jnp.float32) for x in half), LOG_Z, SIZE)
    np.testing.assert_allclose(found, full, rtol=1e-6)


def test_the_normaliser_is_kept_by_the_caller():
    fresh = [float(mi.first_normaliser(POSITIVE + i, POOL, SIZE, where=WEIGHTS)) for i in range(3)]
    everything = np.append(POSITIVE, POOL.reshape(-1)).astype(np.float64)
    weights = np.append(np.ones(B), WEIGHTS.reshape(-1))
    assert fresh[0] == pytest.approx(np.log((weights * np.exp(everything)).sum() / weights.sum() * SIZE), rel=1e-6)
    for momentum in (0.0, 0.99, 1.0):
        state, z = -jnp.inf, np.exp(fresh[0])
        for i, new in enumerate(fresh):
            state = jax.jit(mi.moving_normaliser)(state, new, momentum)
            z = z if i == 0 else momentum * z + (1 - momentum) * np.exp(new)
            assert float(state) == pytest.approx(np.log(z), rel=1e-6)
    slope = jax.grad(lambda g: mi.first_normaliser(POSITIVE, g, SIZE))(POOL)
    assert (np.asarray(slope) == 0).all()
