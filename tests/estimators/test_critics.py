import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm, rankdata

from mi_contrast.estimators.critics import (
    Side,
    apply_network,
    canonical_pairs,
    gaussian,
    init_network,
    normal_scores,
    score,
)

RNG = np.random.default_rng(0)


def test_normal_scores_are_those_of_mid_ranks_and_see_only_the_reference():
    values = np.round(RNG.standard_cauchy(size=(200, 2)), 1)  # with ties
    expected = norm.ppf((rankdata(values, axis=0) - 0.5) / len(values))
    np.testing.assert_allclose(normal_scores(values, values), expected, atol=1e-12)
    beyond = normal_scores(values, np.array([[-1e9, 1e9]]))
    np.testing.assert_allclose(beyond[0], [expected[:, 0].min(), expected[:, 1].max()])
    np.testing.assert_allclose(normal_scores(values**3, values**3), expected, atol=1e-12)


def test_canonical_pairs_against_the_eigenvalues_and_noise_weighs_nothing():
    n, rho = 4000, 0.8
    x, noise = RNG.normal(size=(2, n, 6))
    y = np.concatenate([rho * x[:, :1] + np.sqrt(1 - rho**2) * noise[:, :1], noise[:, 1:]], axis=1)
    mix = RNG.normal(size=(6, 6))
    to_u, to_v, correlations = canonical_pairs(x @ mix, y)
    (xx, xy), (_, yy) = (part.reshape(2, 6, 6).transpose(0, 1, 2) for part in _blocks(x @ mix, y))
    squares = np.sort(np.linalg.eigvals(np.linalg.solve(xx, xy) @ np.linalg.solve(yy, xy.T)).real)[::-1]
    edge = 4 * 6 / n
    np.testing.assert_allclose(correlations**2, np.clip(squares - edge, 0, None), atol=1e-9)
    assert correlations[0] == pytest.approx(rho, abs=0.02)
    assert (correlations[1:] < 0.03).all()
    u, v = (x @ mix) @ to_u, y @ to_v
    np.testing.assert_allclose(np.cov(u.T, bias=True), np.eye(6), atol=1e-8)
    np.testing.assert_allclose(np.corrcoef(u[:, 0], v[:, 0])[0, 1] ** 2, squares[0], atol=1e-9)


def _blocks(x, y):
    both = np.cov(np.concatenate([x, y], axis=1).T, bias=True)
    return np.stack([both[:6, :6], both[:6, 6:]]), np.stack([both[6:, :6], both[6:, 6:]])


def test_constant_and_repeated_columns_are_no_direction():
    x = RNG.normal(size=(500, 1))
    to_u, _, correlations = canonical_pairs(np.concatenate([x, x, 0 * x], axis=1), x)
    assert np.isfinite(to_u).all()
    assert correlations[0] > 0.98


def test_gaussian_part_is_the_log_ratio_of_densities():
    correlations, u, v = np.array([0.0, 0.3, 0.9]), RNG.normal(size=(4, 3)), RNG.normal(size=(5, 3))
    covariance = np.block([[np.eye(3), np.diag(correlations)], [np.diag(correlations), np.eye(3)]])
    joint = multivariate_normal(np.zeros(6), covariance)
    expected = [[joint.logpdf(np.append(a, b)) - norm.logpdf([*a, *b]).sum() for b in v] for a in u]
    np.testing.assert_allclose(gaussian(*map(jnp.asarray, (u, v, correlations))), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["separable", "joint"])
def test_networks_start_at_zero_and_score_every_pair(kind):
    x, y = jnp.asarray(RNG.normal(size=(70, 3)), jnp.float32), jnp.asarray(RNG.normal(size=(9, 2)), jnp.float32)
    start = init_network(jax.random.key(0), (3, 2), kind)
    assert not np.any(apply_network(start, x, y))
    other = jax.tree.map(lambda leaf: leaf + 0.1, start)
    scores = np.asarray(apply_network(other, x, y))
    assert scores.shape == (70, 9)
    np.testing.assert_allclose(scores[66:68, 4:5], apply_network(other, x[66:68], y[4:5]), rtol=1e-4, atol=1e-5)
    sides = (Side(jnp.ones((70, 1)), x), Side(jnp.ones((9, 1)), y))
    whole = score({"network": other, "correlations": jnp.zeros(1), "shift": jnp.float32(2)}, *sides)
    np.testing.assert_allclose(whole, scores + 2, rtol=1e-5)
