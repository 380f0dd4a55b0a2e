import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from tests.estimators import reference

B, K = 5, 23
RNG = np.random.default_rng(21)
POSITIVE = RNG.normal(size=B).astype(np.float32)
POOL = (2 * RNG.normal(size=(B, K))).astype(np.float32)
CLOSE = RNG.choice([0.0, 0.5, 1.0], size=(B, K), p=[0.6, 0.1, 0.3])
BACKGROUND = RNG.choice([0.0, 0.5, 1.0, 3.0], size=(B, K))
CASES = {"real": POOL, "ties": np.round(POOL), "-inf": np.where(POOL < -2, -np.inf, POOL).astype(np.float32)}


def local_aggregation(reduce):
    ours = lambda f, g: mi.local_aggregation(f, g, CLOSE, BACKGROUND, reduce=reduce)  # noqa: E731
    return ours, lambda f, row, b: reference.several(f, row, CLOSE[b], BACKGROUND[b], reduce)


def supervised(reduce):
    ours = lambda f, g: mi.supervised(g, CLOSE, where=BACKGROUND, reduce=reduce) + 0 * f  # noqa: E731
    weights = CLOSE * BACKGROUND, BACKGROUND
    return ours, lambda f, row, b: reference.contrastive(np.float64(row), weights[0][b], weights[1][b], reduce) + 0 * f


FORMS = {f"{form.__name__} {r}": form(r) for form in (local_aggregation, supervised) for r in ("logsumexp", "mean")}


@pytest.mark.parametrize("name", FORMS)
def test_values_and_gradients_are_the_equations(name):
    form, loop = FORMS[name]
    found = jax.jit(jax.vmap(lambda g: (form(POSITIVE, g), *jax.grad(lambda *x: form(*x).sum(), (0, 1))(POSITIVE, g))))
    values, to_positive, to_pool = found(np.stack([*CASES.values()]))
    for i, pool in enumerate(CASES.values()):
        plain = form(POSITIVE, pool)
        np.testing.assert_allclose(plain, values[i], rtol=1e-6, atol=1e-6)  # neither jit nor vmap changes it
        for b in range(B):
            assert values[i, b] == pytest.approx(loop(np.float64(POSITIVE[b]), pool[b], b), rel=1e-5, abs=1e-5)
            slope = reference.slopes(lambda f, b=b, row=pool[b]: loop(f[0], row, b), [POSITIVE[b]])
            assert to_positive[i, b] == pytest.approx(slope[0], abs=1e-5)
            here = np.isfinite(pool[b])

            def of_row(some, b=b, row=pool[b], here=here):
                moved = row.astype(np.float64)
                moved[here] = some
                return loop(np.float64(POSITIVE[b]), moved, b)

            np.testing.assert_allclose(to_pool[i, b][here], reference.slopes(of_row, pool[b][here]), atol=1e-5)
            assert (np.asarray(to_pool[i, b])[~here] == 0).all()


def test_no_close_neighbour_is_ball():
    background = mi.rank_weights(POOL, 0.6, 1.0)
    ball = mi.ball(POSITIVE, POOL, 0.6)
    for reduce in ("logsumexp", "mean"):
        found = mi.local_aggregation(POSITIVE, POOL, np.zeros((B, K), bool), background, reduce=reduce)
        np.testing.assert_allclose(found, ball, rtol=1e-5, atol=1e-6)


def test_close_above_the_band_is_cave():
    background, above = mi.rank_weights(POOL, 0.5, 1.0), mi.rank_weights(POOL, 0.8, 1.0)
    found = mi.local_aggregation(POSITIVE, POOL, above, background)
    np.testing.assert_allclose(found, mi.cave(POSITIVE, POOL, 0.5, 0.8), rtol=1e-5, atol=1e-6)


def test_local_aggregation_is_the_released_loss():
    """-log( sum P over close and background / sum P over background ), the own row first in the bank and in both."""
    close, background = CLOSE > 0, BACKGROUND > 0
    rows = np.concatenate([POSITIVE[:, None], POOL], axis=1).astype(np.float64)
    one = np.ones((B, 1), bool)
    inner, outer = (np.concatenate([one, w], axis=1) for w in (close & background, background))
    probability = np.exp(rows) / 2.2455e3  # any normaliser cancels
    loss = -np.log((probability * inner).sum(axis=1) / (probability * outer).sum(axis=1))
    found = mi.local_aggregation(POSITIVE, POOL, close, background)
    np.testing.assert_allclose(found, np.log(outer.sum(axis=1) / inner.sum(axis=1)) - loss, rtol=1e-5, atol=1e-5)


def test_ceiling_needs_the_close_inside_the_background():
    scores, background = np.float32([[30.0, 0, 0, 0]]), np.array([[0, 1, 1, 1]])
    close = np.array([[1, 0, 0, 0]])
    assert mi.local_aggregation(np.float32([0.0]), scores, close, background)[0] == pytest.approx(0, abs=1e-6)
    both = np.append(0, scores[0])[None], np.array([[1, 1, 0, 0, 0]]), np.array([[1, 0, 1, 1, 1]])
    assert mi.contrastive(*both)[0] > 20 > np.log(4)  # the control: counted outside of it, no ceiling holds


def released_supervised(features, labels, temperature):
    """Khosla et al.'s released loss: log-probabilities over all but oneself, meaned over those of the same label."""
    scores = features @ features.T / temperature
    other = ~np.eye(len(labels), dtype=bool)
    same = (labels[:, None] == labels) & other
    log_probability = scores - np.log((np.exp(scores) * other).sum(axis=1, keepdims=True))
    each = (same * log_probability).sum(axis=1) / same.sum(axis=1)
    return -(temperature / 0.07) * each, scores, same, other


def test_supervised_is_the_released_loss():
    features = RNG.normal(size=(24, 6))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.tile(np.arange(6), 4) // 2  # 2 views of 12 examples of 3 classes
    for temperature in (0.07, 0.1, 0.5):
        loss, scores, same, other = released_supervised(features, labels, temperature)
        found = mi.supervised(scores.astype(np.float32), same, where=other)
        expected = np.log(len(labels) - 1) - loss / (temperature / 0.07)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        removed = np.where(other, scores, -np.inf).astype(np.float32)
        np.testing.assert_allclose(mi.supervised(removed, same), expected, rtol=1e-5, atol=1e-5)


def test_one_of_the_label_is_info_nce():
    scores = np.concatenate([POSITIVE[:, None], POOL], axis=1)
    same = np.arange(K + 1) == 0
    for reduce in ("mean", "logsumexp"):
        found = mi.supervised(scores, np.broadcast_to(same, scores.shape), reduce=reduce)
        np.testing.assert_allclose(found, mi.info_nce(POSITIVE, POOL), rtol=1e-5, atol=1e-6)


def test_nobody_of_the_label_is_nothing():
    nobody, some = np.zeros((B, K), bool), CLOSE > 0
    for where in (nobody, ~some):
        value, slope = jax.value_and_grad(lambda f, w=where: mi.supervised(f, some, where=w).sum())(POOL)
        assert value == 0 and (np.asarray(slope) == 0).all()
    value, slope = jax.value_and_grad(lambda f: mi.local_aggregation(POSITIVE, f, some, nobody).sum())(POOL)
    assert value == 0 and (np.asarray(slope) == 0).all()


@pytest.mark.parametrize("name", FORMS)
def test_bfloat16_and_not_a_number(name):
    form, _ = FORMS[name]
    half = jnp.asarray(POSITIVE, jnp.bfloat16), jnp.asarray(POOL, jnp.bfloat16)
    found = form(*half)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, form(*(x.astype(jnp.float32) for x in half)), rtol=1e-6)
    pool = POOL.copy()
    inside, outside = np.flatnonzero(BACKGROUND[0])[0], np.flatnonzero(BACKGROUND[1] == 0)[0]
    pool[0, inside] = pool[1, outside] = np.nan
    found = form(POSITIVE, pool)
    assert np.isnan(found[0]) and np.isfinite(found[1:]).all()


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: mi.local_aggregation(POSITIVE, POOL, CLOSE[:, 1:], BACKGROUND),
        lambda: mi.local_aggregation(POSITIVE[1:], POOL, CLOSE, BACKGROUND),
        lambda: mi.local_aggregation(POSITIVE, POOL, CLOSE, BACKGROUND, reduce="max"),
        lambda: mi.supervised(POOL, CLOSE, where=BACKGROUND[1:3]),
        lambda: mi.supervised(POOL, CLOSE, reduce="max"),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(UserError) as told:
        mistake()
    assert "\n" not in str(told.value)
