import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.special import digamma as psi

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from mi_contrast.estimators import distances

RNG = np.random.default_rng(5)
P, T = 6, 31
SERIES = RNG.normal(size=(P, T, 2)).astype(np.float32)
SERIES[3] = SERIES[1] + 0.3 * SERIES[3]


def tree_ksg(x, y, k=3):
    """KSG in float64 from k-d trees."""
    x, y = np.float64(x), np.float64(y)
    edge = np.nextafter(cKDTree(np.hstack([x, y])).query(np.hstack([x, y]), k + 1, p=np.inf)[0][:, -1], 0)
    within = [cKDTree(z).query_ball_point(z, edge, p=np.inf, return_length=True) for z in (x, y)]  # itself too: n + 1
    return psi(k) + psi(len(x)) - np.mean(psi(within[0]) + psi(within[1]))


def tree_three_kl(x, y, k=3):
    """3KL in float64 from k-d trees."""
    value = psi(len(x)) - psi(k)
    for z, sign in ((x, 1), (y, 1), (np.hstack([x, y]), -1)):
        z = np.float64(z)
        value += sign * z.shape[1] * np.log(cKDTree(z).query(z, k + 1, p=np.inf)[0][:, -1]).mean()
    return value


@pytest.mark.parametrize(("estimator", "k", "tree"), [("ksg", 3, tree_ksg), ("three_kl", 2, tree_three_kl)])
def test_every_pair_and_shift_is_the_equation(estimator, k, tree):
    shifts = np.array([0, 4, 27])
    found = np.asarray(mi.shifted_pairs(SERIES, shifts, k, estimator))
    for s, shift in enumerate(shifts):
        for a in range(P):
            for b in range(P):
                if a != b:
                    expected = tree(np.roll(SERIES[a], shift, axis=0), SERIES[b], k)
                    assert found[s, a, b] == pytest.approx(expected, abs=1e-5)
    assert np.isneginf(found[:, np.arange(P), np.arange(P)]).all()
    np.testing.assert_array_equal(found[0], found[0].T)
    np.testing.assert_allclose(found[1], found[2].T, atol=1e-6)  # 27 = 31 - 4


def test_it_is_ksg_of_each_pair_in_blocks_as_whole_and_under_jit(monkeypatch):
    whole = mi.all_pairs(SERIES)
    first, second = np.triu_indices(P, 1)
    np.testing.assert_allclose(
        whole[first, second], mi.ksg(SERIES[first], SERIES[second], errors=False).nats, atol=1e-5
    )
    np.testing.assert_array_equal(jax.jit(mi.all_pairs)(SERIES), whole)
    monkeypatch.setattr(distances, "CPU_DISTANCES", 4 * T**2)  # partners by fours, the last block overlaps
    np.testing.assert_array_equal(mi.all_pairs(SERIES), whole)


@pytest.mark.filterwarnings("ignore:a value repeats")
def test_copies_and_infinities_give_nan_for_their_pairs_alone():
    series = jnp.asarray(SERIES).at[0, :5].set(0).at[2, :5].set(0).at[4, 7, 1].set(jnp.inf)
    for estimator, bad in (("ksg", {(0, 2)}), ("three_kl", {(0, b) for b in range(P)} | {(2, b) for b in range(P)})):
        found = np.asarray(mi.all_pairs(series, 3, estimator))
        for a in range(P):
            for b in range(a + 1, P):
                nan = (a, b) in bad or (b, a) in bad or 4 in (a, b)
                assert np.isnan(found[a, b]) == np.isnan(found[b, a]) == nan, (estimator, a, b)
    half = jnp.asarray(SERIES, jnp.bfloat16)
    assert mi.all_pairs(half).dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: mi.all_pairs(SERIES[0]), "give \\[P, T, d\\]"),
        (lambda: mi.all_pairs(SERIES, T), "k = 31"),
        (lambda: mi.all_pairs(SERIES, 0), "k = 0"),
        (lambda: mi.all_pairs(SERIES, 3, "kgs"), "did you mean 'ksg'"),
    ],
)
def test_mistakes_are_said(call, said):
    with pytest.raises(UserError, match=said):
        call()
