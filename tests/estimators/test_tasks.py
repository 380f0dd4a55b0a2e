import json
import math
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats
from sklearn.feature_selection import mutual_info_regression

from mi_contrast.core.errors import UserError
from mi_contrast.estimators import bijections, tasks

N = 4000  # one size for all samples: each new one compiles
DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
STANDARD = {task.name: task for task in tasks.standard()}
PUBLISHED = (  # of the forty, in order, as benchmark-mi 0.1.3 has them
    [0.413339] * 2 + [1.709438, 0.333333] + [0.413339] * 3 + [0.224171] * 2 + [0.413339]  # one dimension each
    + [0.293893, 0.413339, 0.592812, 1.292184, 1.624265] + [1.021651] * 4  # dense, sparse
    + [0.431946, 0.193147, 0.290922, 0.178712, 0.448151, 0.298544]  # Student
    + [1.021651] * 12 + [0.431946, 0.290922, 0.448151]  # maps of sparse and of Student
)  # fmt: skip
FEW = (  # every base and every map once
    "additive-0.1", "additive-0.75", "bimodal-0.75", "wiggly-gaussian-1x1-0.75", "half_cube-gaussian-1x1-0.75",
    "asinh-student-2x2-dof_1", "swiss_roll-normal_cdf-gaussian-1x1-0.75", "spiral-normal_cdf-gaussian-3x3-2_pairs-0.8",
    "gaussian-25x25-dense-0.5", "student-5x5-dof_3",
)  # fmt: skip


def test_truths_are_the_published_ones():
    assert len(STANDARD) == 40  # no name twice
    assert [round(task.nats, 6) for task in STANDARD.values()] == PUBLISHED


def random_dispersion(d, seed):
    a = np.random.default_rng(seed).normal(size=(d, d + 2))
    return a @ a.T / d


@pytest.mark.parametrize("dof", [0.7, 3.0, 40.0, math.inf])
@pytest.mark.parametrize("dx, dy", [(1, 1), (2, 3), (7, 4)])
def test_elliptical_truth_is_the_sum_of_scipys_entropies(dx, dy, dof):
    dispersion = random_dispersion(dx + dy, 7 * dx + dy)

    def entropy(matrix):
        if math.isinf(dof):
            return stats.multivariate_normal(cov=matrix).entropy()
        return stats.multivariate_t(shape=matrix, df=dof).entropy()

    expected = entropy(dispersion[:dx, :dx]) + entropy(dispersion[dx:, dx:]) - entropy(dispersion)
    np.testing.assert_allclose(tasks.elliptical(dispersion, dx, dof).nats, expected, atol=1e-9)


@pytest.mark.parametrize("dof", [0.7, 3.0, math.inf])
def test_elliptical_log_ratio_is_the_ratio_of_scipys_densities(dof):
    dispersion, dx = random_dispersion(5, 0), 2
    task = tasks.elliptical(dispersion, dx, dof)
    x, y = task.sample(jax.random.key(1), N)
    both = np.concatenate([x, y], axis=1).astype(np.float64)

    def density(columns):
        matrix = dispersion[columns, columns]
        if math.isinf(dof):
            return stats.multivariate_normal(cov=matrix).logpdf(both[:, columns])
        return stats.multivariate_t(shape=matrix, df=dof).logpdf(both[:, columns])

    expected = density(slice(None)) - density(slice(0, dx)) - density(slice(dx, None))
    np.testing.assert_allclose(task.log_ratio(x, y), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [0.05, 0.5, 1.0, 3.5, 11.9, 60.0])
def test_digamma_is_scipys(t):
    np.testing.assert_allclose(tasks._digamma(t), special.digamma(t), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("noise", [0.05, 0.1, 0.5, 0.75, 3.0])
def test_additive_truth_by_integration(noise):
    def density(y):
        return max(min(1, y + noise) - max(0, y - noise), 0) / (2 * noise)

    edges = sorted({-noise, noise, 1 - noise, 1 + noise})
    entropy = sum(integrate.quad(lambda y: special.entr(density(y)), a, b)[0] for a, b in pairwise(edges))
    np.testing.assert_allclose(tasks.additive(noise).nats, entropy - math.log(2 * noise), atol=1e-7)


def standardised_surplus(task, n=N):
    """(mean of log_ratio - truth) in standard errors."""
    x, y = task.sample(jax.random.key(3), n)
    assert (x.dtype, x.shape, y.dtype, y.shape) == ("float32", (n, task.dims[0]), "float32", (n, task.dims[1]))
    ratio = np.asarray(task.log_ratio(x, y), np.float64)
    return (ratio.mean() - task.nats) / (ratio.std() / math.sqrt(n))


@pytest.mark.parametrize("name", FEW)
def test_mean_of_the_optimal_critic_is_the_truth(name):
    assert abs(standardised_surplus(STANDARD[name])) < 4


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in STANDARD if name not in FEW])
def test_mean_of_the_optimal_critic_is_the_truth_of_the_rest(name):
    assert abs(standardised_surplus(STANDARD[name])) < 4


def test_a_wrong_truth_would_be_seen():
    right, wrong = tasks.gaussian(5, 5, 0.8, pairs=2), tasks.gaussian(5, 5, 0.85, pairs=2)
    x, y = right.sample(jax.random.key(0), N)
    ratio = np.asarray(right.log_ratio(x, y), np.float64)
    assert abs(ratio.mean() - wrong.nats) / (ratio.std() / math.sqrt(N)) > 8


def test_additive_log_ratio_is_minus_infinity_where_no_pair_can_be():
    assert np.isneginf(tasks.additive(0.1).log_ratio(jnp.array([[0.5]]), jnp.array([[0.7]]))[0])


MAPS = {
    "half_cube": (bijections.half_cube(), 4.0),
    "asinh": (bijections.asinh(), 50.0),
    "normal_cdf": (bijections.normal_cdf(), 4.0),
    "wiggly x": (bijections.wiggly(0), 6.0),
    "wiggly y": (bijections.wiggly(1), 6.0),
    "bimodal": (bijections.bimodal((0.3, 0.7), (0.0, 5.0)), 4.5),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_of_numbers_rises_and_has_its_inverse(name):
    bijection, reach = MAPS[name]
    grid = jnp.linspace(-reach, reach, 400)[:, None]
    there = np.asarray(bijection.forward(grid))
    assert (np.diff(there, axis=0) > 0).all()
    np.testing.assert_allclose(bijection.inverse(there), grid, rtol=2e-4, atol=2e-3 if name == "normal_cdf" else 2e-5)


def test_waves_can_never_turn_back():
    for side in bijections.WAVES:
        assert sum(abs(a * w) for a, w, _ in side) < 1  # so that the slope stays above 0
        assert sum(abs(a) for a, _, _ in side) < 1  # so that the inverse lies within the bracket that is searched


@pytest.mark.parametrize("plane", [(0, 1), (1, 2)])
def test_spiral_keeps_lengths_and_volumes_and_has_its_inverse(plane):
    t, speed, (i, j) = np.random.default_rng(0).normal(size=(50, 3)), 1 / 3, plane

    def turned(row):
        angle, out = speed * np.square(row).sum(), row.copy()
        out[i] = np.cos(angle) * row[i] - np.sin(angle) * row[j]
        out[j] = np.sin(angle) * row[i] + np.cos(angle) * row[j]
        return out

    bijection = bijections.spiral(speed, plane)
    there = bijection.forward(jnp.asarray(t, jnp.float32))
    np.testing.assert_allclose(there, [turned(row) for row in t], atol=1e-5)
    np.testing.assert_allclose(bijection.inverse(there), t, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(there, axis=1), np.linalg.norm(t, axis=1), rtol=1e-5)
    for row in t[:10]:
        slopes = [(turned(row + step) - turned(row - step)) / 2e-6 for step in 1e-6 * np.eye(3)]
        np.testing.assert_allclose(np.linalg.det(slopes), 1, atol=1e-6)


def test_swiss_roll_has_its_inverse():
    u = jnp.linspace(0, 1, 200)[:, None]
    there = bijections.swiss_roll().forward(u)
    np.testing.assert_allclose(bijections.swiss_roll().inverse(there), u, atol=1e-5)
    assert (np.diff(np.linalg.norm(there, axis=1)) > 0).all()  # it never meets itself


@pytest.mark.parametrize("name", ["half_cube", "wiggly", "asinh", "normal_cdf"])
def test_a_neighbour_estimator_reads_the_same_through_a_map(name):
    plain = tasks.gaussian(1, 1, 0.75)
    read = []
    for task in (plain, getattr(plain, name)()):
        x, y = (np.asarray(t) for t in task.sample(jax.random.key(5), N))
        read.append(mutual_info_regression(x, y[:, 0], n_neighbors=5, random_state=0)[0])
    assert abs(read[0] - plain.nats) < 0.06 and abs(read[1] - read[0]) < 0.06


def mixture(weights, means):
    return lambda t: sum(w * stats.norm.cdf(t - m) for w, m in zip(weights, means, strict=True))


@pytest.mark.parametrize(
    "task, of_x, of_y",
    [
        (tasks.student(2, 3, 3), stats.t(3).cdf, stats.t(3).cdf),
        (tasks.student(1, 1, 1), stats.cauchy.cdf, stats.cauchy.cdf),
        (tasks.gaussian(3, 3, 0.5), stats.norm.cdf, stats.norm.cdf),
        (tasks.bimodal(0.75), mixture((0.3, 0.7), (0, 5)), mixture((0.5, 0.5), (-1, 3))),
        (tasks.gaussian(1, 1, 0.75).normal_cdf(), stats.uniform.cdf, stats.uniform.cdf),
        (tasks.additive(0.5), stats.uniform.cdf, stats.triang(0.5, -0.5, 2).cdf),
    ],
    ids=lambda task: getattr(task, "name", ""),
)
def test_margins_by_kolmogorov_and_smirnov(task, of_x, of_y):
    x, y = task.sample(jax.random.key(2), N)
    for columns, distribution in ((x, of_x), (y, of_y)):
        for column in np.asarray(columns, np.float64).T:
            assert stats.kstest(column, distribution).pvalue > 1e-3


def test_a_sample_has_its_correlations():
    task = tasks.gaussian(4, 3, 0.6, pairs=2)
    x, y = task.sample(jax.random.key(0), N)
    np.testing.assert_allclose(np.corrcoef(x.T, y.T), tasks.correlation(4, 3, 0.6, 2), atol=0.08)


def test_a_sample_is_a_function_of_its_key():
    for task in (tasks.student(2, 2, 3).asinh(), tasks.additive(0.3), tasks.bimodal(0.5)):
        (a, b), (c, d), (e, _) = (task.sample(jax.random.key(seed), N) for seed in (0, 0, 1))
        assert (a == c).all() and (b == d).all() and (a != e).any()


OURS = {  # by the place of the stored set of the same distribution
    0: "gaussian-1x1-0.75", 1: "bimodal-0.75", 2: "wiggly-gaussian-1x1-0.75", 3: "half_cube-gaussian-1x1-0.75",
    4: "additive-0.1", 5: "additive-0.75", 6: "asinh-student-1x1-dof_1", 7: "swiss_roll-normal_cdf-gaussian-1x1-0.75",
    10: "gaussian-25x25-dense-0.5", 14: "student-3x3-dof_3", 18: "spiral-gaussian-3x3-2_pairs-0.8",
}  # fmt: skip


@pytest.mark.skipif(not (DATA / "mi_tasks.npz").exists(), reason="the stored samples of another implementation")
def test_margins_and_products_are_those_of_another_implementation():
    """Two-sample Kolmogorov and Smirnov on every coordinate and on x_0 y_0; and the stored truth."""
    stored, truth = np.load(DATA / "mi_tasks.npz"), json.loads((DATA / "mi_tasks_truth.json").read_text())
    for place, name in OURS.items():
        x, y = (np.asarray(t) for t in STANDARD[name].sample(jax.random.key(place), N))
        theirs = stored[f"x_{place:02d}"], stored[f"y_{place:02d}"]
        pairs = [*zip(x.T, theirs[0].T, strict=True), *zip(y.T, theirs[1].T, strict=True)][:8]
        for a, b in (*pairs, (x[:, 0] * y[:, 0], theirs[0][:, 0] * theirs[1][:, 0])):
            assert stats.ks_2samp(a, b).pvalue > 1e-4, name
        np.testing.assert_allclose(STANDARD[name].nats, truth[f"{place:02d}"]["mi_nats"], atol=1e-12)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: tasks.gaussian(2, 2, 1.0),
        lambda: tasks.gaussian(2, 2, -0.5),
        lambda: tasks.gaussian(2, 2, 0.5, pairs=3),
        lambda: tasks.student(2, 2, 0),
        lambda: tasks.student(2, 2, math.inf),
        lambda: tasks.elliptical(np.ones((2, 2)), 1),
        lambda: tasks.elliptical(np.eye(2), 2),
        lambda: tasks.additive(0),
        lambda: tasks.gaussian(1, 1, 0.5).spiral(),
        lambda: tasks.gaussian(1, 1, 0.5).swiss_roll(),
        lambda: tasks.gaussian(2, 1, 0.5).normal_cdf().swiss_roll(),
    ],
)
def test_a_mistake_is_named(mistake):
    with pytest.raises(UserError):
        mistake()
