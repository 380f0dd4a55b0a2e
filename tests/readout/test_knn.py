import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from mi_contrast.core.errors import UserError
from mi_contrast.readout import knn as module
from mi_contrast.readout.knn import knn, top1


def blobs(count, classes=5, width=12, spread=1.6, seed=0):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    labels = random.integers(0, classes, count)
    return (centres[labels] + spread * random.normal(size=(count, width))).astype(np.float32), labels


def looped(queries, bank, labels, k, temperature, classes):
    """The definition, one query at a time, in float64."""
    queries, bank = queries.astype(np.float64), bank.astype(np.float64)
    out = np.zeros((len(queries), classes))
    for i, query in enumerate(queries):
        cosines = bank @ query / np.linalg.norm(bank, axis=1) / np.linalg.norm(query)
        nearest = np.argsort(-cosines, kind="stable")[:k]
        weights = np.exp(cosines[nearest] / temperature)
        for j, weight in zip(nearest, weights, strict=True):
            out[i, labels[j]] += weight / weights.sum()
    return out


def test_knn_is_scikit_learns_on_the_same_features():
    bank, labels = blobs(900)
    queries, truth = blobs(301, seed=1)
    peer = KNeighborsClassifier(
        n_neighbors=50, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(bank, labels)
    ours = knn(queries, bank, labels, k=50, temperature=0.07, classes=5)
    np.testing.assert_allclose(ours, peer.predict_proba(queries), atol=2e-4)
    assert abs(float(top1(ours, truth)) - peer.score(queries, truth)) < 0.002


@settings(max_examples=8, deadline=None)
@given(k=st.sampled_from([1, 3, 40]), temperature=st.sampled_from([0.02, 0.07, 1.0]), seed=st.integers(0, 99))
def test_knn_is_its_definition(k, temperature, seed):
    bank, labels = blobs(40, seed=seed)
    queries, _ = blobs(7, seed=seed + 1)
    expected = looped(queries, bank, labels, k, temperature, 5)
    np.testing.assert_allclose(
        knn(queries, bank, labels, k=k, temperature=temperature, classes=5), expected, atol=2e-3, rtol=1e-3
    )


def test_knn_does_not_depend_on_blocks_or_on_scale(monkeypatch):
    bank, labels = blobs(60)
    queries, _ = blobs(11, seed=1)
    whole = knn(queries, bank, labels, k=9, classes=5)
    np.testing.assert_allclose(knn(queries * 1e3, bank * 1e-3, labels, k=9, classes=5), whole, atol=1e-5)
    monkeypatch.setattr(module, "MAX_SIMILARITIES", 60 * 4)  # blocks of 4, 4 and 3 queries
    module._knn.clear_cache()  # the block's size is read while tracing
    np.testing.assert_allclose(knn(queries, bank, labels, k=9, classes=5), whole, atol=1e-6)


def test_knn_works_inside_jit_and_keeps_nan():
    bank, labels = blobs(30)
    queries = np.array(bank[:3])
    queries[1] = np.nan
    out = jax.jit(lambda q, b, y: knn(q, b, y, k=5, classes=5))(queries, bank, labels)
    assert np.isnan(out[1]).all() and np.isfinite(np.delete(out, 1, axis=0)).all()
    assert np.isnan(top1(out, jnp.zeros(3, jnp.int32)))


def test_knn_of_cold_temperatures_stays_finite():
    bank, labels = blobs(30)
    out = np.asarray(knn(-bank, bank, labels, k=30, temperature=1e-3, classes=5))
    np.testing.assert_allclose(out.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("k", [0, 31])
def test_knn_refuses_a_k_that_the_bank_does_not_have(k):
    bank, labels = blobs(30)
    with pytest.raises(UserError, match="give a k from 1 to 30"):
        knn(bank, bank, labels, k=k, classes=5)


@pytest.mark.parametrize("label", [-1, 5])
def test_knn_refuses_a_label_out_of_range(label):
    bank, labels = blobs(30)
    labels[3] = label
    with pytest.raises(UserError, match="labels run from"):
        knn(bank, bank, labels, k=2, classes=5)
