import numpy as np
import pytest

from mi_contrast.readout.geometry import alignment, effective_rank, uniformity


@pytest.fixture
def pair():
    random = np.random.default_rng(0)
    x = random.normal(size=(40, 7))
    return x, x + 0.5 * random.normal(size=(40, 7))


def test_alignment_is_its_definition(pair):
    x, y = pair
    total = 0.0
    for a, b in zip(x, y, strict=True):
        total += np.sum((a / np.linalg.norm(a) - b / np.linalg.norm(b)) ** 2)
    np.testing.assert_allclose(alignment(x, y), total / len(x), rtol=1e-5)
    assert float(alignment(x, 3 * x)) < 1e-10
    np.testing.assert_allclose(alignment(x, -x), 4.0, rtol=1e-5)


def test_uniformity_is_its_definition(pair):
    x, _ = pair
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    terms = [np.exp(-2 * np.sum((x[i] - x[j]) ** 2)) for i in range(40) for j in range(40) if i != j]
    np.testing.assert_allclose(uniformity(5 * x), np.log(np.mean(terms)), rtol=1e-5)


def test_uniformity_of_a_collapsed_set_is_zero_and_of_opposites_minus_eight():
    np.testing.assert_allclose(uniformity(np.ones((9, 4))), 0.0, atol=1e-6)
    np.testing.assert_allclose(uniformity(np.array([[1.0, 0.0], [-1.0, 0.0]])), -8.0, rtol=1e-6)


def test_effective_rank_is_its_definition(pair):
    x, _ = pair
    values = np.sqrt(np.maximum(np.linalg.eigvalsh(x.T @ x), 0))
    shares = values / values.sum()
    expected = np.exp(-sum(p * np.log(p) for p in shares))
    np.testing.assert_allclose(effective_rank(x), expected, rtol=1e-5)


def test_effective_rank_counts_equal_directions():
    np.testing.assert_allclose(effective_rank(np.eye(6)), 6.0, rtol=1e-5)
    np.testing.assert_allclose(effective_rank(np.ones((8, 5))), 1.0, rtol=1e-3)
    assert np.isnan(effective_rank(np.zeros((4, 4))))
