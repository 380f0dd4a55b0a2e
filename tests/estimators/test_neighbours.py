import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist
from scipy.special import digamma as psi

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from mi_contrast.estimators import neighbours

TASKS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mi_tasks.npz"
RNG = np.random.default_rng(3)
PAIRS, N = 3, 90
X = RNG.normal(size=(PAIRS, N, 2)).astype(np.float32)
Y = (X[..., :1] + 0.5 * RNG.normal(size=(PAIRS, N, 1))).astype(np.float32)


def reference(x, y, k, variant=1, standardise=False):
    """KSG in float64, from all distances."""
    x, y = (np.asarray(z, np.float64) for z in (x, y))
    if standardise:
        x, y = ((z - z.mean(0)) / z.std(0) for z in (x, y))
    terms = []
    for i in np.array_split(np.arange(len(x)), -(-len(x) // 500)):
        to_x, to_y = cdist(x[i], x, "chebyshev"), cdist(y[i], y, "chebyshev")
        both = np.maximum(to_x, to_y)
        both[np.arange(len(i)), i] = np.inf
        near = np.argpartition(both, k - 1, axis=1)[:, :k]  # the k-th last
        if variant == 1:
            radius = np.take_along_axis(both, near[:, -1:], 1)
            terms += [psi(k) - psi((to_x < radius).sum(1)) - psi((to_y < radius).sum(1))]  # counting itself: n + 1
        else:
            edges = [np.take_along_axis(d, near, 1).max(1, keepdims=True) for d in (to_x, to_y)]
            counts = [(d <= edge).sum(1) - 1 for d, edge in zip((to_x, to_y), edges, strict=True)]
            terms += [psi(k) - 1 / k - psi(counts[0]) - psi(counts[1])]
    return psi(len(x)) + np.concatenate(terms).mean()


def entropies(x, y, k):
    """3KL in float64, from trees."""
    value = psi(len(x)) - psi(k)
    for z, sign in ((x, 1), (y, 1), (np.concatenate([x, y], axis=1), -1)):
        z = np.asarray(z, np.float64)
        value += sign * z.shape[1] * np.log(cKDTree(z).query(z, k + 1, p=np.inf)[0][:, -1]).mean()
    return value


def left_out(estimate, x, y):
    """The jackknife's standard error, by N estimates."""
    each = np.array([estimate(np.delete(x, i, 0), np.delete(y, i, 0)) for i in range(len(x))])
    return np.sqrt((len(x) - 1) / len(x) * ((each - each.mean()) ** 2).sum())


@pytest.mark.parametrize(("k", "variant"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_ksg_is_the_equation(k, variant):
    found = mi.ksg(X, Y, k, variant)
    np.testing.assert_allclose(found.nats, [reference(x, y, k, variant) for x, y in zip(X, Y, strict=True)], atol=1e-5)
    np.testing.assert_allclose(found.ceiling, psi(N) - psi(k) - (variant == 2) / k, rtol=1e-6)
    if variant == 1:
        expected = left_out(lambda x, y: reference(x, y, k), X[0], Y[0])
        assert found.standard_error[0] == pytest.approx(expected, rel=1e-4)


def test_three_kl_is_the_equation():
    found = mi.three_kl(X, Y, 3)
    np.testing.assert_allclose(found.nats, [entropies(x, y, 3) for x, y in zip(X, Y, strict=True)], atol=1e-5)
    assert found.standard_error[0] == pytest.approx(left_out(lambda x, y: entropies(x, y, 3), X[0], Y[0]), rel=1e-3)
    assert np.isposinf(found.ceiling).all()


def test_chunks_jit_vmap_and_half_precision_change_nothing():
    whole = mi.ksg(X, Y)
    same = lambda found: [np.testing.assert_allclose(a, b, rtol=1e-5) for a, b in zip(found, whole, strict=True)]  # noqa: E731
    same(mi.ksg(X, Y, chunk=32))  # the last block overlaps the one before
    same(jax.jit(mi.ksg)(X, Y))
    same(jax.vmap(mi.ksg)(X, Y))
    same(mi.ksg(X[..., ::-1], np.float64(Y) + 1e6))  # float64 keeps its digits; columns in any order
    one_sided = jax.vmap(lambda x: mi.ksg(x, Y[0]).nats)(X)
    np.testing.assert_allclose(one_sided, mi.ksg(X, np.stack([Y[0]] * PAIRS)).nats, rtol=1e-6)
    assert mi.ksg(X[0, :, 0], Y[0, :, 0]).nats == mi.ksg(X[0, :, :1], Y[0]).nats
    half = jnp.asarray(X, jnp.bfloat16), jnp.asarray(Y, jnp.bfloat16)
    rounded = mi.ksg(*(h.astype(jnp.float32) for h in half))
    assert mi.ksg(*half).nats.dtype == jnp.float32
    np.testing.assert_array_equal(mi.ksg(*half).nats, rounded.nats)


def test_limits():
    line = X[..., 0]
    for variant in (1, 2):
        found = mi.ksg(line[0], line[0], 3, variant, errors=False)
        assert found.nats == pytest.approx(float(found.ceiling), rel=1e-6) and np.isnan(found.standard_error)
    np.testing.assert_allclose(mi.ksg(X, -X).nats, mi.ksg(X, X).ceiling, rtol=1e-6)
    np.testing.assert_allclose(mi.ksg(X, np.ones_like(Y)).nats, 0, atol=1e-6)  # a constant knows nothing
    scaled = mi.ksg(X * [1e3, 1e-3], 7 * Y, standardise=True).nats
    np.testing.assert_allclose(scaled, mi.ksg(X, Y, standardise=True).nats, atol=1e-4)
    slope = jax.grad(lambda x: mi.ksg(x, Y).nats.sum())(jnp.asarray(X))
    assert (np.asarray(slope) == 0).all()


@pytest.mark.filterwarnings("ignore:a value repeats")
@pytest.mark.parametrize("estimator", [mi.ksg, mi.three_kl])
def test_copies_and_what_is_not_finite_are_nan_for_their_pair_alone(estimator):
    x, y = X.copy(), Y.copy()
    x[0, :4], y[0, :4] = x[0, 0], y[0, 0]  # three copies: the third neighbour is at 0
    x[1, 5, 0] = np.nan
    found = estimator(x, y, 3)
    assert np.isnan(found.nats[:2]).all() and np.isnan(found.standard_error[:2]).all() and np.isfinite(found.nats[2])
    x[1, 5, 0] = np.inf
    assert np.isnan(estimator(x, y, 3).nats[1])
    x, y = X.copy(), Y.copy()
    x[0, :3], y[0, :3] = x[0, 0], y[0, 0]  # two copies: a third neighbour elsewhere
    assert np.isfinite(estimator(x, y, 3).nats).all()


@pytest.mark.filterwarnings("ignore:a value repeats")
def test_equal_samples_stay_equal_when_scaled():
    x, y = (X > 0).astype(np.float32), (Y > 0).astype(np.float32)  # few values, so that every sample has copies
    assert np.isnan(mi.ksg(x, y, standardise=True).nats).all()
    assert np.isnan(jax.jit(lambda x, y: mi.ksg(x * 0.3 + 0.1, y / 0.7 - 0.2, standardise=True).nats)(x, y)).all()


def test_no_neighbour_beyond_the_last():
    found = mi.ksg(X[:, :4], Y[:, :4], 3)
    assert np.isfinite(found.nats).all() and np.isnan(found.standard_error).all()


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_the_error_tells_the_spread_over_samples(rho):
    x, e = RNG.normal(size=(2, 300, 80, 2)).astype(np.float32)
    y = rho * x + np.sqrt(1 - rho**2) * e
    for variant in (1, 2):
        found = mi.ksg(x, y, 3, variant)
        ratio = np.mean(found.standard_error) / np.std(found.nats)
        assert 1 < ratio < 1.9, (variant, ratio)
    if not rho:
        assert abs(np.mean(mi.ksg(x, y, 3).nats)) < 0.02  # white steps of independent walks share nothing


def test_memory_does_not_grow_with_the_square():
    shape, unit = (jax.ShapeDtypeStruct((n, 2), jnp.float32) for n in (20_000, 1))
    block = neighbours.choose_block_sizes(20_000, 1, None)
    compiled = neighbours._ksg.lower(shape, shape, unit, unit, 3, 1, True, block).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 64 * 2**20  # all distances would be 1,526 MiB


def tasks(numbers):
    if not TASKS.exists():
        pytest.skip("the tasks' file is absent")
    with np.load(TASKS) as file:
        return [(f"{i:02}", file[f"x_{i:02}"], file[f"y_{i:02}"]) for i in numbers]


def test_two_tasks_as_float64_reads_them():
    for (_, x, y), variant in zip(tasks((1, 8)), (1, 2), strict=True):
        assert mi.ksg(x, y, 3, variant, standardise=True, errors=False).nats == pytest.approx(
            reference(x, y, 3, variant, True), abs=1e-3
        )


@pytest.mark.nightly
@pytest.mark.filterwarnings("ignore:a value repeats:UserWarning")  # one of the tasks has such columns
@pytest.mark.parametrize(("variant", "k", "standardise"), [(1, 5, False), (2, 3, True)])
def test_every_task_as_float64_reads_it(variant, k, standardise):
    if not TASKS.exists():
        pytest.skip("the tasks' file is absent")
    with np.load(TASKS) as file:
        count = len(json.loads(str(file["meta"])))
    apart = {}
    for name, x, y in tasks(range(count)):
        ours = float(mi.ksg(x, y, k, variant, standardise=standardise, errors=False).nats)
        apart[name] = abs(ours - reference(x, y, k, variant, standardise))
    assert max(apart.values()) < 1e-3, apart


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: mi.ksg(X, Y[:, :-1]),
        lambda: mi.ksg(X[:2], Y),
        lambda: mi.ksg(X, Y[..., :0]),
        lambda: mi.ksg(X[:, :3], Y[:, :3], 3),
        lambda: mi.ksg(X, Y, 0),
        lambda: mi.ksg(X, Y, 2.5),
        lambda: mi.ksg(X, Y, 3, 3),
        lambda: mi.ksg(X, Y, chunk=0),
        lambda: mi.three_kl(X[:, :3], Y[:, :3], 3),
        lambda: mi.three_kl(1.0, 2.0),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(UserError) as told:
        mistake()
    assert "\n" not in str(told.value)
