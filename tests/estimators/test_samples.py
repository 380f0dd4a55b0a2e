"""What an estimator reads does not depend on units, offsets or the type that numbers are stored in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from scipy.special import digamma

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from mi_contrast.estimators.samples import as_whole_number, prepare_pair

Z, E = np.random.default_rng(1).normal(size=(2, 1000))
X, Y = Z, 0.8 * Z + 0.6 * E
TRUTH = -0.5 * np.log(1 - 0.64)
TEN = st.floats(-30, 30)
OFFSET = st.floats(-1e3, 1e3)


def tree_ksg(x, y, k=3):
    """KSG in float64 by scipy's trees."""
    x, y = np.asarray(x, np.float64)[:, None], np.asarray(y, np.float64)[:, None]
    far = cKDTree(np.hstack([x, y])).query(x=np.hstack([x, y]), k=[k + 1], p=np.inf)[0][:, 0]
    near = np.nextafter(far, 0)
    counts = [cKDTree(z).query_ball_point(z, near, p=np.inf, return_length=True) for z in (x, y)]
    return digamma(k) + digamma(len(x)) - np.mean(digamma(counts[0]) + digamma(counts[1]))


BY_COLUMN = {
    "ksg": lambda x, y: mi.ksg(x, y, standardise=True),
    "ksg2": lambda x, y: mi.ksg(x, y, 3, 2, standardise=True),
    "ksg of normal scores": lambda x, y: mi.ksg(x, y, normal_scores=True),
    "three_kl": lambda x, y: mi.three_kl(x, y, standardise=True),
    "canonical_correlation": mi.canonical_correlation,
    "discrete_continuous": lambda x, y: mi.discrete_continuous(np.digitize(Z, [-1, 0, 1]), y),
}
TOGETHER = {
    "ksg": mi.ksg,
    "three_kl": mi.three_kl,
    "all_pairs": lambda x, y: mi.all_pairs(np.stack([x, y])[:, :, None])[0, 1],
}


def nats_of(found):
    return float(getattr(found, "nats", found))


@pytest.mark.parametrize("name", BY_COLUMN)
@settings(max_examples=12, deadline=None)
@given(a=TEN, b=OFFSET, c=TEN, d=OFFSET, sign=st.sampled_from([-1, 1]))
def test_units_and_offsets_of_each_variable_change_nothing(name, a, b, c, d, sign):
    scale, other = sign * 10.0**a, 10.0**c
    found = nats_of(BY_COLUMN[name](scale * X + b * scale, other * Y + d * other))
    assert found == pytest.approx(nats_of(BY_COLUMN[name](X, Y)), abs=2e-3)


@pytest.mark.parametrize("name", TOGETHER)
@settings(max_examples=12, deadline=None)
@given(a=TEN, b=OFFSET, d=OFFSET)
def test_a_unit_that_x_and_y_share_changes_nothing(name, a, b, d):
    scale = 10.0**a
    found = nats_of(TOGETHER[name](scale * X + b * scale, scale * Y + d * scale))
    assert found == pytest.approx(nats_of(TOGETHER[name](X, Y)), abs=2e-3)
    assert nats_of(mi.ksg(X, 30 * Y)) != pytest.approx(nats_of(mi.ksg(X, Y)), abs=0.01)  # control: unlike units count


@pytest.mark.parametrize("scale", [1e-30, 1e-21, 1.0, 1e30])
def test_strain_and_stellar_masses_read_what_float64_reads(scale):
    x, y = scale * X, scale * Y
    assert mi.ksg(x, y).nats == pytest.approx(tree_ksg(X, Y), abs=1e-3)
    unit = tree_ksg(X / X.std(), Y / Y.std())
    assert mi.ksg(x, y, standardise=True).nats == pytest.approx(unit, abs=1e-3)
    assert mi.canonical_correlation(x, y).nats == pytest.approx(TRUTH, abs=0.05)
    assert float(jax.jit(lambda x, y: mi.ksg(x, y).nats)(x, y)) == pytest.approx(tree_ksg(X, Y), abs=5e-3)
    if scale > 1e-30:  # below float32's range of squares the graph needs its scaling too
        inside = jax.jit(lambda x, y: mi.canonical_correlation(x, y).nats)(x, y)
        assert float(inside) == pytest.approx(TRUTH, abs=0.05)


TRAINED = {
    "strain": (1e-21 * X, 1e-21 * Y),
    "masses": (1e30 * X + 4e30, -1e30 * Y),
    "smallest and largest": (1e-30 * X, 1e30 * Y),
    "int64 time stamps": ((1.7e18 + 1e9 * X).astype(np.int64), Y),
    "skewed": (np.exp(5 * X), np.exp(5 * Y)),
}


@pytest.mark.parametrize("case", TRAINED)
def test_a_trained_critic_answers_alike_in_every_unit_type_and_skew(case):
    """The copula's answer, .511 in truth, is of ranks; the critic's scores may move by float32's rounding."""
    read = lambda x, y: mi.estimate(x, y, key=jax.random.key(0), steps=25, batch=128)  # noqa: E731
    found = read(*TRAINED[case])
    assert found.nats == pytest.approx(float(read(X, Y).nats), abs=2e-3)
    assert found.nats == pytest.approx(TRUTH, abs=0.06) and found.low < TRUTH < found.high


@pytest.mark.parametrize("sigma", [4, 5])
def test_skewed_samples_in_float64(sigma):
    x, y = np.exp(sigma * X), np.exp(sigma * Y)
    assert mi.ksg(x, y).nats == pytest.approx(tree_ksg(x, y), abs=2e-3)
    assert mi.ksg(np.float32(x), np.float32(y)).nats == pytest.approx(tree_ksg(x, y), abs=2e-3)
    plain, scored = mi.ksg(X, Y, normal_scores=True), mi.ksg(x, y, normal_scores=True)
    assert scored.nats == plain.nats and scored.low < TRUTH < scored.high
    assert mi.canonical_correlation(x, y, normal_scores=True).nats == pytest.approx(TRUTH, abs=0.06)


def test_normal_scores_are_mid_ranks_through_the_normal_quantile():
    from scipy.stats import norm, rankdata

    x = np.stack([np.exp(X), np.round(Y, 1)], axis=1)
    expected = norm.ppf((rankdata(x, axis=0) - 0.5) / len(x))
    np.testing.assert_allclose(mi.normal_scores(x), expected, atol=1e-5)
    np.testing.assert_allclose(jax.jit(mi.normal_scores)(jnp.asarray(x, jnp.float32)), expected, atol=2e-4)
    batch = np.stack([x, -x])
    np.testing.assert_allclose(mi.normal_scores(batch)[1], -expected, atol=1e-5)
    assert np.isnan(mi.normal_scores(np.array([1.0, np.nan, 2.0]))).all()


def test_every_way_to_store_numbers_reads_the_same():
    right = float(mi.ksg(X, Y, standardise=True).nats)
    far = 1.7e18
    stamps = (far + 1e9 * X).astype(np.int64)
    big_endian = X.astype(">f8")
    wide = np.longdouble(far) + np.longdouble(1e3) * X.astype(np.longdouble)
    for x in (stamps, stamps.astype(np.uint64), big_endian, wide, (1e6 + X).tolist(), jnp.asarray(X, jnp.float32)):
        assert mi.ksg(x, Y, standardise=True).nats == pytest.approx(right, abs=2e-3)
        assert mi.canonical_correlation(x, Y).nats == pytest.approx(TRUTH, abs=0.05)
    small = np.random.default_rng(0).integers(-100, 100, size=(2, 300))
    assert mi.canonical_correlation(small[0] > 0, small[1] > 0).nats == pytest.approx(0, abs=0.02)
    assert mi.ksg(X, Y, np.int64(3)).nats == mi.ksg(X, Y, 3).nats
    assert np.isfinite(mi.all_pairs(np.stack([X, Y])[:, :40, None], np.int64(3))[0, 1])
    with pytest.raises(UserError, match=r"k = 2.5"):
        as_whole_number("k", 2.5)


REFUSED = {
    "complex": X + 1j,
    "objects": X.astype(object),
    "masked": np.ma.masked_greater(X, 1),
    "<U": X.astype(str),
    "dates": X.astype("M8[s]"),
    "different lengths": [[1.0], [1.0, 2.0]],
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_is_not_real_numbers_is_refused_in_one_line(word):
    key = jax.random.key(0)
    for estimator in (
        mi.ksg,
        mi.three_kl,
        mi.canonical_correlation,
        lambda x, y: mi.estimate(x, y, key=key),
        lambda x, y: mi.discrete_continuous(y, x),
        lambda x, _: mi.displacements(x),
        lambda x, _: mi.normal_scores(x),
    ):
        with pytest.raises(UserError) as told:
            estimator(REFUSED[word], Y)
        assert word in str(told.value) and "\n" not in str(told.value)
    if word == "complex":
        with pytest.raises(UserError, match="complex"):
            jax.jit(lambda x: mi.ksg(x, Y).nats)(REFUSED[word])


def test_rows_and_columns_exchanged_are_asked_about():
    with pytest.raises(UserError, match="transposed"):
        mi.ksg(np.ones((3, 1000)), np.ones((3, 1000)))
    with pytest.raises(UserError) as told:
        mi.ksg(np.ones((3, 1)), np.ones((3, 1)))
    assert "transposed" not in str(told.value)


def test_steps_far_from_zero_and_in_any_unit():
    draw = np.random.default_rng(2)
    steps = draw.normal(size=(3, 60, 2))
    tracks = np.cumsum(steps, axis=1)
    for scale, offset in ((1.0, 1e9), (1e-21, 0.0), (1e30, 0.0)):
        moved = scale * (tracks + offset)
        found = np.asarray(mi.displacements(moved)) / scale
        np.testing.assert_allclose(found, steps[:, 1:], atol=1e-5 if not offset else 1e-4)
        right = np.asarray(mi.prewhitened(tracks, 2))
        np.testing.assert_allclose(np.asarray(mi.prewhitened(moved, 2)) / scale, right, atol=1e-3)
        np.testing.assert_allclose(mi.of_unit_size(scale * steps), mi.of_unit_size(steps), atol=1e-4)
        assert np.asarray(mi.twins(scale * steps).p).tolist() == np.asarray(mi.twins(steps).p).tolist()


def test_a_range_that_float32_cannot_hold_is_refused():
    x = X.copy()
    x[0] = 1e40
    with pytest.raises(UserError, match="normal_scores"):
        mi.ksg(x, Y)
    assert np.isfinite(mi.ksg(x, Y, normal_scores=True).nats)


def test_wide_samples_and_near_ceilings_answer_lower_limits():
    draw = np.random.default_rng(3)
    for width, limit in ((2, False), (3, True)):
        x, y = draw.normal(size=(2, 400, width))
        assert np.isinf(mi.ksg(x, y).high) == limit and np.isinf(mi.three_kl(x, y).high) == limit
    close = mi.ksg(X, X + 1e-3 * E)
    assert np.isinf(close.high) and close.low < 0.5 * np.log1p(1e6)
    assert np.isfinite(mi.ksg(X, Y).high)


def test_columns_of_a_traced_pair_have_their_deviations():
    found = jax.jit(prepare_pair)(X, Y)
    np.testing.assert_allclose(found.deviation_x[0, 0] / np.std(found.x), 1, rtol=1e-5)
