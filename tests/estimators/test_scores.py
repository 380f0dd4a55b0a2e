import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from tests.estimators import reference

B, K = 5, 23
RNG = np.random.default_rng(11)
POSITIVE = RNG.normal(size=B).astype(np.float32)
POOL = (2 * RNG.normal(size=(B, K))).astype(np.float32)
VALID = RNG.random((B, K)) < 0.8
FORMS = {
    "info_nce": (mi.info_nce, 0.0, 1.0),
    "ball": (lambda f, pool, where=None: mi.ball(f, pool, 0.6, where=where), 0.6, 1.0),
    "ring": (lambda f, pool, where=None: mi.ring(f, pool, 0.5, 0.9, where=where), 0.5, 0.9),
}


def values_and_slopes(form, positive, pool, where):
    values = form(positive, pool, where=where)
    slopes = jax.grad(lambda f, g: form(f, g, where=where).sum(), argnums=(0, 1))(positive, pool)
    return (values, *slopes)


def expected(lower, upper, positive, pool, where):
    of_anchor = [reference.band_value(*x, lower, upper) for x in zip(positive, pool, where, strict=True)]
    return [np.array(x) for x in zip(*of_anchor, strict=True)]


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "pool", [POOL, np.round(POOL), np.where(POOL < -2, -np.inf, POOL)], ids=["real", "ties", "-inf"]
)
def test_values_and_gradients_are_the_equations(name, pool):
    form, lower, upper = FORMS[name]
    found = jax.jit(lambda f, g: values_and_slopes(form, f, g, VALID))(POSITIVE, pool)
    for ours, theirs in zip(found, expected(lower, upper, POSITIVE, pool, VALID), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_gradients_against_finite_differences(name):
    form, lower, upper = FORMS[name]
    found = np.asarray(jax.grad(lambda g: form(POSITIVE, g).sum())(POOL))
    step, everywhere = 1e-6, np.ones(K, bool)
    for b, k in ((0, 0), (1, int(POOL[1].argmax())), (2, int(np.argsort(POOL[2])[K // 2 + 3])), (3, 7)):
        value = []
        for sign in (1, -1):
            moved = POOL[b].astype(np.float64)
            moved[k] += sign * step
            value.append(reference.band_value(POSITIVE[b], moved, everywhere, lower, upper)[0])
        assert found[b, k] == pytest.approx((value[0] - value[1]) / (2 * step), abs=1e-5)


def test_the_gradient_at_a_tie_is_the_mean_over_orders():
    row = np.array([0.0, 1.0, 1.0, 1.0, 2.0])  # ring(.2, .6) holds two of the three
    slopes = jax.grad(lambda g: mi.ring(jnp.float32([0.5]), g, 0.2, 0.6)[0])(jnp.asarray(row, jnp.float32)[None])[0]
    orders = [np.isin(np.arange(5), pair).astype(float) for pair in ([1, 2], [1, 3], [2, 3])]
    each = [reference.one_positive(0.5, row, weights) for weights in orders]
    np.testing.assert_allclose(slopes, np.mean([e[2] for e in each], axis=0), rtol=1e-5, atol=1e-7)
    assert mi.ring(jnp.float32([0.5]), row[None], 0.2, 0.6)[0] == pytest.approx(each[0][0], rel=1e-6)
    assert len({round(e[0], 12) for e in each}) == 1


def test_limits_of_the_family():
    nce = mi.info_nce(POSITIVE, POOL, where=VALID)
    np.testing.assert_allclose(mi.ball(POSITIVE, POOL, 0.0, where=VALID), nce, rtol=1e-6)
    np.testing.assert_allclose(mi.ring(POSITIVE, POOL, 0.0, 1.0, where=VALID), nce, rtol=1e-6)
    ball = mi.ball(POSITIVE, POOL, 0.7, where=VALID)
    np.testing.assert_allclose(mi.ring(POSITIVE, POOL, 0.7, 1.0, where=VALID), ball, rtol=1e-6)
    for reduce in ("logsumexp", "mean"):
        cave = mi.cave(POSITIVE, POOL, 0.7, 1.0, where=VALID, reduce=reduce)
        np.testing.assert_allclose(cave, ball, rtol=1e-5, atol=1e-6)
    roles = np.ones((B, 1)), np.zeros((B, K))
    scores = np.concatenate([POSITIVE[:, None], POOL], axis=1)
    core = mi.contrastive(scores, np.concatenate(roles, axis=1), np.concatenate([roles[0], VALID], axis=1))
    np.testing.assert_allclose(core, nce, rtol=1e-6)


@pytest.mark.parametrize("reduce", ["logsumexp", "mean"])
def test_cave_and_core_are_their_equations(reduce):
    found = mi.cave(POSITIVE, np.round(POOL), 0.5, 0.8, where=VALID, reduce=reduce)
    weights = RNG.choice([0.0, 0.5, 1.0, 3.0], size=(2, B, K))
    core = mi.contrastive(POOL, weights[0], weights[1], reduce=reduce)
    for b in range(B):
        row = np.round(POOL[b])
        close = reference.band_weights(row, VALID[b], 0.5, 1.0)
        above = reference.band_weights(row, VALID[b], 0.8, 1.0)
        scores, one = np.append(row, POSITIVE[b]), 1.0
        cave = reference.contrastive(scores, np.append(above, one), np.append(close, one), reduce)
        assert found[b] == pytest.approx(cave, rel=1e-5, abs=1e-6)
        assert core[b] == pytest.approx(reference.contrastive(POOL[b], *weights[:, b], reduce), rel=1e-5, abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 1.0, 30.0]))
def test_ceilings(seed, scale):
    rng = np.random.default_rng(seed)
    positive, pool = scale * rng.normal(size=B), scale * rng.normal(size=(B, K))
    valid = rng.random((B, K)) < 0.7
    nats, sizes = checked(positive.astype(np.float32), pool.astype(np.float32), valid)
    for value, size in zip(nats, sizes, strict=True):
        assert (np.asarray(value) <= np.log1p(np.asarray(size)) + 1e-5).all()


@jax.jit
def checked(positive, pool, valid):
    nats = mi.info_nce(positive, pool, where=valid), mi.ring(positive, pool, 0.5, 0.9, where=valid)
    return nats, (valid.sum(axis=1), mi.rank_weights(pool, 0.5, 0.9, where=valid).sum(axis=1))


def test_an_empty_support_is_nothing_and_pulls_nowhere():
    nothing = np.zeros((B, K), bool)
    forms = [form for form, *_ in FORMS.values()]
    forms.append(lambda f, g, where: mi.cave(f, g, 0.5, 0.9, where=where))
    for form in forms:
        for where in (nothing, VALID & (np.arange(B) != 2)[:, None]):
            values, to_positive, to_pool = values_and_slopes(form, POSITIVE, POOL, where)
            assert values[2] == 0 and to_positive[2] == 0 and (np.asarray(to_pool[2]) == 0).all()
            assert np.isfinite(to_positive).all() and np.isfinite(to_pool).all()
    values, slope = jax.value_and_grad(lambda g: mi.ring(POSITIVE[:1], g, 0.9, 0.99)[0])(POOL[:1, :5])
    assert values == 0 and (np.asarray(slope) == 0).all()  # the released band holds nothing of five


def test_a_pool_without_candidates_is_nothing():
    for form, *_ in FORMS.values():
        assert (np.asarray(form(POSITIVE, POOL[:, :0])) == 0).all()


def test_no_positive_is_nothing():
    positive = np.where(np.arange(B) == 1, -np.inf, POSITIVE).astype(np.float32)
    values, to_positive, to_pool = values_and_slopes(FORMS["ring"][0], positive, POOL, VALID)
    assert values[1] == 0 and np.isfinite(to_positive).all() and np.isfinite(to_pool).all()
    none = np.zeros((B, K))
    for reduce in ("mean", "logsumexp"):
        assert (np.asarray(mi.contrastive(POOL, none, VALID, reduce=reduce)) == 0).all()
        slope = jax.grad(lambda f, r=reduce: mi.contrastive(f, none, VALID, reduce=r).sum())(POOL)
        assert (np.asarray(slope) == 0).all()


def test_minus_infinity_and_weight_zero_remove_from_sum_and_size():
    kept = mi.info_nce(POSITIVE, POOL[:, :-3])
    gone = POOL.copy()
    gone[:, -3:] = -np.inf
    np.testing.assert_allclose(mi.info_nce(POSITIVE, gone), kept, rtol=1e-6)
    np.testing.assert_allclose(mi.info_nce(POSITIVE, POOL, where=np.arange(K) < K - 3), kept, rtol=1e-6)
    low = POOL.copy()
    low[:, -3:] = -1e4  # the control: a very low candidate still counts
    assert (np.abs(mi.info_nce(POSITIVE, low) - kept) > 0.1).all()


def test_weights_are_multiplicities():
    twice = np.concatenate([POOL, POOL[:, :4]], axis=1)
    weights = 1.0 + (np.arange(K) < 4) * np.ones((B, 1))
    np.testing.assert_allclose(mi.info_nce(POSITIVE, POOL, where=weights), mi.info_nce(POSITIVE, twice), rtol=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_a_nan_is_never_a_silent_number(name):
    form = FORMS[name][0]
    pool = POOL.copy()
    pool[0, 3] = np.nan
    assert np.isnan(form(POSITIVE, pool)[0]) and np.isfinite(form(POSITIVE, pool)[1:]).all()
    assert np.isfinite(form(POSITIVE, pool, where=~np.isnan(pool))).all()  # not a candidate: not counted
    assert np.isnan(form(np.full(B, np.nan, np.float32), POOL)).all()
    assert np.isnan(jax.jit(lambda p: mi.ring(POSITIVE, POOL, p, 1.0))(np.nan)).all()


def test_plus_infinity_counts_only_where_it_is_inside():
    pool = POOL.copy()
    pool[:, 0] = np.inf
    everywhere = np.ones(K, bool)
    inside = [reference.band_value(f, row, everywhere, 0.5, 0.9)[0] for f, row in zip(POSITIVE, pool, strict=True)]
    values, slopes = jax.value_and_grad(lambda g: mi.ring(POSITIVE, g, 0.5, 0.9).sum())(pool)
    assert values == pytest.approx(sum(inside), rel=1e-5)
    assert np.isfinite(slopes).all()
    assert (np.asarray(mi.info_nce(POSITIVE, pool)) == -np.inf).all()


def test_thresholds_carry_no_gradient():
    def value(lower, upper):
        return mi.ring(POSITIVE, POOL, lower, upper).sum()

    assert jax.grad(value, argnums=(0, 1))(0.5, 0.9) == (0, 0)
    assert (np.asarray(jax.grad(lambda g: mi.rank_weights(g, 0.5, 0.9).sum())(POOL)) == 0).all()


def test_percentiles_of_each_anchor_traced():
    lower = np.linspace(0.1, 0.6, B).astype(np.float32)
    found = jax.jit(lambda low: mi.ring(POSITIVE, POOL, low, low + 0.3))(lower)
    for b in range(B):
        one = mi.ring(POSITIVE[b : b + 1], POOL[b : b + 1], float(lower[b]), float(lower[b] + np.float32(0.3)))
        assert found[b] == pytest.approx(float(one[0]), rel=1e-6)


def test_leading_axes_vmap_and_bfloat16():
    stacked = np.stack([POOL, POOL + 1]), np.stack([POSITIVE, POSITIVE])
    for form, *_ in FORMS.values():
        plain = form(stacked[1], stacked[0])
        assert plain.shape == (2, B)
        np.testing.assert_allclose(plain, jax.vmap(form)(stacked[1], stacked[0]), rtol=1e-6)
        half = form(jnp.asarray(POSITIVE, jnp.bfloat16), jnp.asarray(POOL, jnp.bfloat16))
        rounded = form(
            jnp.asarray(POSITIVE, jnp.bfloat16).astype(jnp.float32),
            jnp.asarray(POOL, jnp.bfloat16).astype(jnp.float32),
        )
        assert half.dtype == jnp.float32
        np.testing.assert_allclose(half, rounded, rtol=1e-6)


def test_large_scores_do_not_overflow():
    np.testing.assert_allclose(
        mi.ring(POSITIVE + 1e4, POOL + 1e4, 0.5, 0.9), mi.ring(POSITIVE, POOL, 0.5, 0.9), atol=5e-3
    )
    assert np.isfinite(mi.info_nce(POSITIVE - 1e30, POOL)).all()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: mi.ring(POSITIVE, POOL, 0.9, 0.9),
        lambda: mi.ball(POSITIVE, POOL, 1.0),
        lambda: mi.ball(POSITIVE, POOL, -0.1),
        lambda: mi.cave(POSITIVE, POOL, 0.9, 0.5),
        lambda: mi.rank_weights(POOL, 0.5, 1.5),
        lambda: mi.info_nce(POSITIVE[:-1], POOL),
        lambda: mi.contrastive(POOL, VALID, VALID, reduce="max"),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(UserError) as told:
        mistake()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "pool", [POOL, np.round(POOL), np.where(POOL < -2, -np.inf, POOL).astype(np.float32)], ids=["real", "ties", "-inf"]
)
def test_decoupled_leaves_the_positive_out(pool):
    weights = np.random.default_rng(12).choice([0.0, 0.5, 1.0, 3.0], size=(B, K)) * (np.arange(B) != 2)[:, None]
    found = jax.jit(lambda f, g: values_and_slopes(mi.decoupled, f, g, weights))(POSITIVE, pool)
    np.testing.assert_allclose(mi.decoupled(POSITIVE, pool, where=weights), found[0], rtol=1e-6)
    for b in range(B):
        here = np.isfinite(pool[b])

        def of_all(moved, b=b, here=here):
            row = pool[b].astype(np.float64)
            row[here] = moved[1:]
            return reference.decoupled(moved[0], row, weights[b])

        at = np.append(POSITIVE[b], pool[b][here])
        assert found[0][b] == pytest.approx(of_all(at), rel=1e-5, abs=1e-6)
        slopes = np.append(found[1][b], found[2][b][here])
        np.testing.assert_allclose(slopes, reference.slopes(of_all, at), atol=1e-5)
    nce = mi.info_nce(POSITIVE, pool, where=weights)
    mass = np.exp(POSITIVE - found[0]) * weights.sum(axis=1, where=np.isfinite(pool))  # sum w e^f, by its definition
    joined = POSITIVE - np.log((np.exp(POSITIVE) + mass) / (1 + weights.sum(axis=1, where=np.isfinite(pool))))
    np.testing.assert_allclose(nce, joined, rtol=1e-4, atol=1e-5)  # the positive put back


def test_decoupled_at_its_extremes():
    assert mi.decoupled(np.float32([30.0]), np.zeros((1, 3), np.float32))[0] == 30  # no ceiling
    assert mi.decoupled(np.float32([-np.inf]), POOL[:1])[0] == 0
    assert (np.asarray(mi.decoupled(POSITIVE, POOL[:, :0])) == 0).all()
    pool = POOL.copy()
    pool[0, 3], pool[1, 3] = np.nan, np.inf
    found = mi.decoupled(POSITIVE, pool)
    assert np.isnan(found[0]) and found[1] == -np.inf and np.isfinite(found[2:]).all()
    half = jnp.asarray(POSITIVE, jnp.bfloat16), jnp.asarray(POOL, jnp.bfloat16)
    assert mi.decoupled(*half).dtype == jnp.float32
    full = jax.vmap(mi.decoupled)(*(x.astype(jnp.float32) for x in half))
    np.testing.assert_allclose(mi.decoupled(*half), full, rtol=1e-6)
