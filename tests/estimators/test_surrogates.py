import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast import estimators as mi
from tests.estimators import reference_matrices as loops

N, DECAY = 5, 0.9
EYE = np.eye(N, dtype=bool)
REAL = np.random.default_rng(3).normal(size=(N, N)).astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 3.0]))
def test_the_read_out_of_jensen_shannon(seed, scale):
    """NWJ of f + 1 is NWJ of f and 1 - (1 - 1/e) mean_off e^f: 1/e more at the optimum."""
    scores = (scale * np.random.default_rng(seed).normal(size=(N, N))).astype(np.float32)
    crossed = np.mean(np.exp(loops.crossed(scores.astype(np.float64))))
    gap = float(mi.jensen_shannon(scores)) - float(mi.nwj(scores))
    assert gap == pytest.approx(1 - (1 - 1 / np.e) * crossed, rel=1e-4, abs=1e-5 * max(1, crossed))


def test_mine_averages_over_batches():
    partition, seen = mi.Partition.first(), []
    step = jax.jit(jax.value_and_grad(functools.partial(mi.mine, decay=DECAY), has_aux=True))
    for t, scores in enumerate((REAL, REAL + 2, REAL.T - 1)):
        F = scores.astype(np.float64)
        (nats, partition), slope = step(scores, partition)
        log_average = loops.corrected_average(seen, F, DECAY)
        seen.append(np.exp(loops.log_mean(loops.crossed(F))))
        assert nats == pytest.approx(loops.donsker_varadhan(F), abs=1e-5)
        assert partition.step == t + 1 and partition.step.dtype == jnp.int32
        assert partition.log_ema - np.log(1 - DECAY ** (t + 1)) == pytest.approx(log_average, abs=1e-5)
        expected = loops.slopes(functools.partial(loops.mine_surrogate, log_average=log_average), F)
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)
        if t == 0:
            np.testing.assert_allclose(slope, loops.slopes(loops.donsker_varadhan, F), rtol=1e-4, atol=1e-6)
    assert step._cache_size() == 1  # the first partition has the types of the later ones


def test_a_partition_stays_where_nothing_was_crossed_and_tells_of_infinity():
    mine = jax.jit(jax.value_and_grad(functools.partial(mi.mine, decay=DECAY), has_aux=True))
    earlier = mi.Partition(jnp.float32(0.3), jnp.int32(2))
    for partition in (mi.Partition.first(), earlier):
        (nats, kept), slope = mine(np.where(EYE, REAL, -np.inf).astype(np.float32), partition)
        assert nats == 0 and kept == partition and (np.asarray(slope) == 0).all()
    (nats, bad), _ = mine(np.where(EYE, REAL, np.inf).astype(np.float32), earlier)
    assert nats == -np.inf and np.isnan(bad.log_ema)
    assert np.isnan(mine(REAL, bad)[1]).any()  # never an average that silences what comes after


def test_without_memory_mine_is_donsker_varadhan():
    stack, start = np.stack([REAL, REAL + 100]), mi.Partition(jnp.full(2, 7.0), jnp.full(2, 3))

    def total(form, stack):
        nats, partition = form(stack)
        return nats.sum(), (nats, partition)

    read = jax.jit(lambda stack, form: jax.grad(functools.partial(total, form), has_aux=True)(stack), static_argnums=1)
    slope, (nats, partition) = read(stack, lambda f: mi.mine(f, start, decay=0.0))
    expected, (values, _) = read(stack, lambda f: (mi.donsker_varadhan(f), None))
    np.testing.assert_allclose(partition.log_ema, loops.log_mean(loops.crossed(REAL)) + np.array([0, 100]), rtol=1e-5)
    np.testing.assert_allclose(nats, values, rtol=1e-5)
    np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-6)


def test_mine_makes_the_gradient_less_biased():
    """Critic theta x y on independent normal x and y, 8 pairs a batch: the bound's true slope is -theta/(1-theta^2)."""
    theta, size, batches, runs = 0.5, 8, 4000, 16

    def slopes(decay, key):
        def step(partition, key):
            x, y = jax.random.normal(key, (2, size))
            value = lambda theta: mi.mine(theta * jnp.outer(x, y), partition, decay=decay)  # noqa: E731
            slope, partition = jax.grad(value, has_aux=True)(theta)
            return partition, slope

        return jax.lax.scan(step, mi.Partition.first(), jax.random.split(key, batches))[1]

    keys = jax.random.split(jax.random.key(0), runs)
    decays = jnp.array([0.0, 0.9, 0.99])
    found = jax.jit(jax.vmap(jax.vmap(slopes, (None, 0)), (0, None)))(decays, keys)[..., 300:].mean(axis=-1)
    bias = np.asarray(found).mean(axis=1) + theta / (1 - theta**2)
    error = np.asarray(found).std(axis=1) / np.sqrt(runs)
    assert (error < 0.006).all()
    assert bias[0] > 0.08  # Donsker-Varadhan's own gradient
    assert 0.005 < bias[1] < 0.04
    assert abs(bias[2]) < 3 * error[2]
