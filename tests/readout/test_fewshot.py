import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import NearestCentroid

from mi_contrast.readout.fewshot import prototypes, ridge
from tests.readout.test_knn import blobs


@pytest.mark.parametrize("count", [8, 40])  # fewer and more examples than features
def test_ridge_is_scikit_learns(count):
    support, labels = blobs(count)
    labels[:5] = np.arange(5)
    queries, _ = blobs(30, seed=1)
    peer = Ridge(alpha=2.5).fit(support.astype(np.float64), np.eye(5)[labels])
    np.testing.assert_allclose(ridge(queries, support, labels, 2.5, classes=5), peer.predict(queries), atol=1e-4)


def test_prototypes_are_scikit_learns_nearest_centroid():
    support, labels = blobs(40)
    labels[:5] = np.arange(5)
    queries, _ = blobs(200, seed=1)
    found = np.asarray(prototypes(queries, support, labels, classes=5))
    np.testing.assert_array_equal(found.argmax(axis=1), NearestCentroid().fit(support, labels).predict(queries))
    means = np.stack([support[labels == c].mean(axis=0) for c in range(5)])
    expected = -((queries[:, None] - means) ** 2).sum(axis=-1)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_prototypes_by_cosine_forget_every_example_s_length():
    support, labels = blobs(40)
    labels[:5] = np.arange(5)
    queries, _ = blobs(20, seed=1)
    one = prototypes(queries, support, labels, classes=5, cosine=True)
    lengths = np.random.default_rng(0).uniform(0.1, 9.0, (40, 1)).astype(np.float32)
    np.testing.assert_allclose(
        prototypes(3 * queries, lengths * support, labels, classes=5, cosine=True), one, atol=1e-5
    )
    assert np.abs(one).max() <= 1 + 1e-5
