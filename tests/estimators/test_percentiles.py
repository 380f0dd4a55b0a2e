import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.percentiles import check_band, millionths, nan_or_zero, rank
from tests.estimators import reference

rank_of = jax.jit(rank)


@settings(deadline=None, max_examples=200)
@given(count=st.integers(0, 2**31 - 1), parts=st.integers(0, 10**6))
@example(count=2**31 - 1, parts=10**6)
@example(count=2**31 - 1, parts=999_999)
@example(count=2**31 - 1, parts=1)
@example(count=0, parts=500_000)
@example(count=1, parts=500_000)
def test_rank_is_exact(count, parts):
    assert int(rank_of(parts, count)) == (2 * count * parts + 10**6) // (2 * 10**6)


HARD = [(0.53, 50), (0.59, 50), (0.42, 75), (0.78, 75), (0.65, 90), (0.65, 170), (0.65, 190), (0.21, 150), (0.39, 150)]
HARD += [(0.73, 1_048_576), (0.98, 1_048_576), (0.44, 1_281_167), (0.47, 1_281_167)]


@pytest.mark.parametrize(("percentile", "count"), HARD)
def test_rank_where_float32_misses_by_one(percentile, count):
    exact = reference.rank(percentile, count)
    in_float32 = int(np.floor(np.float32(percentile) * np.float32(count) + np.float32(0.5)))
    assert abs(in_float32 - exact) == 1  # the control: the obvious formula is wrong here
    assert int(rank(millionths(percentile), count)) == exact
    assert int(jax.jit(lambda p: rank(millionths(p), count))(jnp.float32(percentile))) == exact


def test_traced_and_host_percentiles_agree():
    parts = np.random.default_rng(0).integers(0, 10**6 + 1, 5000)
    on_host = np.array([round(p * 10**6) for p in parts / 10**6])
    np.testing.assert_array_equal(on_host, parts)
    np.testing.assert_array_equal(jax.jit(millionths)(jnp.asarray(parts / 10**6, jnp.float32)), parts)


@pytest.mark.parametrize(
    ("count", "size"), [(65536, 5899), (4096, 369), (5000, 450), (50000, 4500), (1_281_167, 115_305)]
)
def test_size_of_the_released_ring(count, size):
    assert int(rank(millionths(0.99), count) - rank(millionths(0.9), count)) == size


def test_the_released_ring_is_empty_below_six():
    sizes = [int(rank(millionths(0.99), n) - rank(millionths(0.9), n)) for n in range(8)]
    assert sizes[:6] == [0] * 6
    assert max(sizes) > 0


@pytest.mark.parametrize("band", [(0.5, 0.5), (0.9, 0.1), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5), (0.1, np.inf)])
def test_a_band_that_holds_nothing_is_refused(band):
    with pytest.raises(UserError) as refused:
        check_band(*band)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError):
        check_band(jnp.asarray(band[0]), np.array([band[1], band[1]]))


def test_bands_that_hold_something_pass():
    check_band(0.0, 1.0)
    check_band(np.array([0.1, 0.2]), jnp.array([0.3, 0.4]))
    jax.jit(check_band)(0.9, 0.1)  # traced: not known yet


def test_not_a_number():
    assert np.isnan(nan_or_zero(jnp.float32(jnp.nan), 0.5))
    np.testing.assert_array_equal(nan_or_zero(0.1, jnp.array([0.5, jnp.nan])), [0, np.nan])
