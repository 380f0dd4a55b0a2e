import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast.estimators.percentiles import millionths, rank
from mi_contrast.estimators.scores import rank_weights
from mi_contrast.estimators.selection import (
    count_below,
    decode_scores,
    encode_scores,
    select_band,
    summarise_scores,
    weigh,
)
from tests.estimators import reference

K = 61
RNG = np.random.default_rng(7)
ROWS = {
    "normal": lambda r: r.normal(size=K),
    "all equal": lambda r: np.full(K, 3.0),
    "all zero": lambda r: r.choice([0.0, -0.0], K),
    "two values": lambda r: r.integers(0, 2, K),
    "few integers": lambda r: r.integers(-3, 4, K),
    "neighbouring floats": lambda r: 1 + r.integers(0, 4, K) * 2.0**-23,
    "signed zeros": lambda r: r.choice([0.0, -0.0, 1.0, -1.0], K),
    "huge outliers": lambda r: np.where(r.random(K) < 0.1, r.choice([1e30, -1e30], K), r.normal(size=K)),
    "many magnitudes": lambda r: np.exp(np.clip(20 * r.normal(size=K), -87, 87)),
    "negative magnitudes": lambda r: -np.exp(np.clip(20 * r.normal(size=K), -87, 87)),
    "removed": lambda r: np.where(r.random(K) < 0.5, -np.inf, r.normal(size=K)),
    "all removed": lambda r: np.full(K, -np.inf),
    "plus infinities": lambda r: np.where(r.random(K) < 0.3, np.inf, r.normal(size=K)),
    "all plus infinity": lambda r: np.full(K, np.inf),
    "extremes": lambda r: r.choice([3.4e38, -3.4e38, np.inf, -np.inf, 1.2e-38, -1.2e-38, 0.0], K),
    "largest": lambda r: np.full(K, np.finfo(np.float32).max),
}
weights_of = jax.jit(lambda rows, valid, lower, upper: rank_weights(rows, lower, upper, where=valid))


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    edges=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).filter(lambda e: e[0] < e[1]),
)
def test_weights_are_those_of_sort_and_slice(seed, share, edges):
    rng = np.random.default_rng(seed)
    rows = np.stack([make(rng) for make in ROWS.values()]).astype(np.float32)
    valid = rng.random(rows.shape) < share
    lower, upper = edges[0] / 10**6, edges[1] / 10**6
    found = np.asarray(weights_of(rows, valid, jnp.float32(lower), jnp.float32(upper)))
    for name, row, mask, weights in zip(ROWS, rows, valid, found, strict=True):
        np.testing.assert_allclose(
            weights, reference.band_weights(row, mask, lower, upper), rtol=1e-6, atol=0, err_msg=name
        )


@pytest.mark.parametrize("size", [1, 2, 6, 1001])
def test_every_size(size):
    rows = RNG.normal(size=(3, size)).astype(np.float32)
    rows[1] = np.round(rows[1])
    for lower, upper in ((0.0, 1.0), (0.9, 0.99), (0.5, 1.0), (0.0, 0.1), (0.33, 0.34)):
        found = np.asarray(rank_weights(rows, lower, upper))
        for row, weights in zip(rows, found, strict=True):
            np.testing.assert_allclose(weights, reference.band_weights(row, np.ones(size), lower, upper), rtol=1e-6)


def test_more_rows_than_a_group_and_a_percentile_of_each():
    rows = RNG.normal(size=(2, 19, 50)).astype(np.float32)
    valid = RNG.random(rows.shape) < 0.8
    lower = np.round(RNG.random((2, 19)) * 0.5, 6)
    found = np.asarray(rank_weights(rows, lower, lower + 0.3, where=valid))
    for i in np.ndindex(2, 19):
        expected = reference.band_weights(rows[i], valid[i], lower[i], lower[i] + 0.3)
        np.testing.assert_allclose(found[i], expected, rtol=1e-6)


def test_weights_do_not_depend_on_order_jit_or_vmap():
    rows = np.round(RNG.normal(size=(4, 40)) * 2).astype(np.float32)
    order = RNG.permutation(40)
    plain = rank_weights(rows, 0.3, 0.8)
    np.testing.assert_array_equal(np.asarray(plain)[:, order], rank_weights(rows[:, order], 0.3, 0.8))
    np.testing.assert_array_equal(plain, jax.jit(rank_weights, static_argnums=(1, 2))(rows, 0.3, 0.8))
    np.testing.assert_array_equal(plain, jax.vmap(lambda row: rank_weights(row, 0.3, 0.8))(rows))


def test_subnormal_numbers_tie_or_order_and_the_size_holds():
    rows = np.random.default_rng(0).normal(size=(1, 50)).astype(np.float32) * np.float32(1e-40)
    weights = np.asarray(rank_weights(rows, 0.2, 0.6))
    assert weights.sum() == pytest.approx(20)


def test_weights_multiply_and_ranks_count_each_candidate_once():
    rows = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)
    found = rank_weights(rows, 0.5, 1.0, where=np.array([[5.0, 0.5, 2.0, 0.25]]))
    np.testing.assert_array_equal(found, [[0, 0, 2, 0.25]])
    np.testing.assert_array_equal(rank_weights(rows, 0.5, 1.0, where=np.array([[5.0, 0, 2, 0]])), [[0, 0, 2, 0]])


def test_a_nan_among_the_valid_is_not_silent():
    rows = np.array([[1.0, np.nan, 3.0], [1.0, -np.nan, 3.0], [1.0, 2.0, 3.0]], np.float32)
    assert np.isnan(rank_weights(rows, 0.5, 1.0)[:2]).any(axis=1).all()
    np.testing.assert_array_equal(rank_weights(rows, 0.5, 1.0)[2], [0, 0, 1])  # r(.5) of 3 is 2
    np.testing.assert_array_equal(rank_weights(rows, 0.5, 1.0, where=~np.isnan(rows)), [[0, 0, 1]] * 3)
    assert np.isnan(weights_of(rows[2:], True, jnp.float32(jnp.nan), jnp.float32(1.0))).all()


def test_images_keep_order_and_come_back():
    scores = np.sort(np.concatenate([np.exp(30 * RNG.normal(size=200)), [0, np.inf, 1e-42]]).astype(np.float32))
    scores = np.concatenate([-scores[::-1], scores[scores != 0]])
    image = np.asarray(encode_scores(jnp.asarray(scores)))
    assert (np.diff(image.astype(np.int64)) > 0).all()
    np.testing.assert_array_equal(np.asarray(decode_scores(jnp.asarray(image))), scores)
    assert int(encode_scores(jnp.float32(-0.0))) == int(encode_scores(jnp.float32(0.0)))


def test_counts():
    rows = RNG.normal(size=(5, 300)).astype(np.float32)
    pivots = RNG.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(count_below(rows, pivots), (rows[:, :, None] < pivots[:, None]).sum(axis=1))


def test_the_upper_edge_is_within_reach_of_a_score_inside():
    rows = RNG.normal(size=(8, 400)).astype(np.float32)
    rows[:, 5] = 1e6
    found = summarise_scores(rows)
    lower, upper = rank(millionths(0.9), found.size), rank(jnp.full(8, 997_500), found.size)  # the outlier alone is out
    band = select_band(rows, lower, upper, found, jnp.full((8, 1), 1e-3))
    inside = np.asarray(weigh(rows, band)) > 0
    greatest = np.where(inside, rows, -np.inf).max(axis=1)
    assert (inside.sum(axis=1) == 39).all()
    assert (np.asarray(band.upper)[:, 0] >= greatest).all()
    assert (np.asarray(band.upper)[:, 0] - greatest <= 1e-3).all()
    loose = np.asarray(select_band(rows, lower, upper, found).upper)[:, 0]
    assert (loose - greatest > 1e-3).any()  # the control: nothing asks for it by default


def test_the_number_of_passes_is_bounded(monkeypatch):
    passes = []

    def counted(scores, pivots, *, exact=count_below):
        jax.debug.callback(lambda: passes.append(1))
        return exact(scores, pivots)

    monkeypatch.setattr("mi_contrast.estimators.selection.count_below", counted)
    alone = jax.jit(lambda row, ranks: select_band.__wrapped__(row, ranks[:1], ranks[1:], summarise_scores(row)))
    for name, make in ROWS.items():
        row = make(np.random.default_rng(3))[None].astype(np.float32)
        size = int((row != -np.inf).sum())
        passes.clear()
        jax.block_until_ready(alone(row, jnp.array([size // 3, 4 * size // 5], jnp.int32)))
        jax.effects_barrier()
        assert len(passes) <= 2 * 17 + 3, name
        if name == "normal":
            assert 0 < len(passes) <= 10
