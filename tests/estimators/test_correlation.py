import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cross_decomposition import CCA

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError

TASKS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "mi_tasks.npz"
RNG = np.random.default_rng(5)
X = RNG.normal(size=(4, 200, 3)).astype(np.float32)
Y = (X[..., :2] + RNG.normal(size=(4, 200, 2))).astype(np.float32)


PLAIN = functools.partial(mi.canonical_correlation, corrected=False)


def reference(x, y):
    """1/2 log(det S_x det S_y / det S) in float64."""
    both = np.cov(np.concatenate([x, y], axis=1).astype(np.float64).T)
    parts = both[: x.shape[1], : x.shape[1]], both[x.shape[1] :, x.shape[1] :], both
    log_x, log_y, log_both = (np.linalg.slogdet(p)[1] for p in parts)
    return (log_x + log_y - log_both) / 2


def test_the_value_is_that_of_the_determinants():
    expected = [reference(x, y) for x, y in zip(X, Y, strict=True)]
    found = PLAIN(X, Y)
    np.testing.assert_allclose(found.nats, expected, atol=1e-5)
    np.testing.assert_allclose(PLAIN(Y, X).nats, expected, atol=1e-5)
    np.testing.assert_allclose(PLAIN(1e3 * X - 7, Y @ [[2, 1], [0, 1]]).nats, expected, atol=1e-4)
    np.testing.assert_allclose(jax.jit(jax.vmap(PLAIN))(X, Y).nats, found.nats, atol=1e-6)
    assert np.isposinf(found.ceiling).all()
    half = PLAIN(jnp.asarray(X, jnp.bfloat16), jnp.asarray(Y, jnp.bfloat16)).nats
    assert half.dtype == jnp.float32 and np.allclose(half, expected, atol=0.01)
    assert (np.asarray(jax.grad(lambda x: mi.canonical_correlation(x, Y).nats.sum())(jnp.asarray(X))) == 0).all()


def test_tasks_as_sklearn_and_determinants_read_them():
    if not TASKS.exists():
        pytest.skip("the tasks' file is absent")
    with np.load(TASKS) as file:
        for i in (4, 9, 10):
            x, y = file[f"x_{i:02}"], file[f"y_{i:02}"]
            found = PLAIN(x, y).nats
            assert found == pytest.approx(reference(x, y), abs=1e-5)
            if i == 9:
                u, v = CCA(5, max_iter=2000).fit_transform(x, y)
                r = [np.corrcoef(a, b)[0, 1] for a, b in zip(u.T, v.T, strict=True)]
                assert found == pytest.approx(-0.5 * np.log1p(-np.square(r)).sum(), abs=1e-3)


def test_collinear_constant_and_tiny_columns_add_nothing():
    x = np.concatenate([X, X[..., :1] - 2 * X[..., 1:2], np.full_like(X[..., :1], 123.4)], axis=-1)
    for corrected in (False, True):
        plain = mi.canonical_correlation(X, Y, corrected=corrected).nats
        found = mi.canonical_correlation(x * np.float32([1e4, 1e-4, 1, 1, 1]), Y, corrected=corrected).nats
        np.testing.assert_allclose(
            mi.canonical_correlation(x, Y, corrected=corrected).nats, plain, atol=2e-5, err_msg="collinear"
        )
        assert np.isfinite(found).all()
    constant = PLAIN(np.full_like(X, 0.1), Y)
    assert (np.asarray(constant.nats) == 0).all() and (np.asarray(constant.standard_error) == 0).all()


@pytest.mark.parametrize("noise", [1e-1, 1e-2, 1e-3])
def test_nearly_perfect_keeps_its_digits(noise):
    y = (X[0] + noise * RNG.normal(size=X[0].shape)).astype(np.float32)
    assert PLAIN(X[0], y).nats == pytest.approx(reference(X[0], y), rel=3e-3)


def test_perfect_is_infinite():
    found = mi.canonical_correlation(X[0], 2 * X[0] - 1)
    assert np.isposinf(found.nats) and np.isnan(found.standard_error)
    x = X[0].copy()
    x[3, 1] = np.inf
    assert np.isnan(mi.canonical_correlation(x, Y[0]).nats)


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_corrected_is_unbiased_and_its_error_tells_the_spread(rho):
    x, e = RNG.normal(size=(2, 600, 40, 3)).astype(np.float32)
    y = rho * x + np.sqrt(1 - rho**2) * e
    found = mi.canonical_correlation(x, y)
    truth, spread = -1.5 * np.log(1 - rho**2), np.std(found.nats)
    assert abs(np.mean(found.nats) - truth) < 4 * spread / np.sqrt(600)
    plain = PLAIN(x, y)  # the control: high by dx dy / 2N and more
    assert np.mean(plain.nats) - truth > 0.9 * 9 / 80 > 8 * spread / np.sqrt(600)
    assert 0.85 < np.mean(plain.standard_error) / spread < 1.6


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: mi.canonical_correlation(X, Y[:, :-1]),
        lambda: mi.canonical_correlation(X[:, :6], Y[:, :6]),
        lambda: mi.canonical_correlation(X, Y, tolerance=0),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(UserError) as told:
        mistake()
    assert "\n" not in str(told.value)
