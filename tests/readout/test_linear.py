from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mi_contrast.core import schedules
from mi_contrast.core.errors import UserError
from mi_contrast.core.rngs import stream_rng
from mi_contrast.readout import linear
from mi_contrast.readout.accuracy import top1
from mi_contrast.readout.linear import SGD
from tests.readout.test_knn import blobs


def looped(features, labels, key, settings, classes):
    """Torch's SGD with momentum and weight decay, example sums in float64, on the permutations and start of the key."""
    x = features.astype(np.float64)
    if settings.standardise:
        x = (x - x.mean(axis=0)) / x.std(axis=0)
    w = 0.01 * np.asarray(jax.random.normal(stream_rng(key, "init"), (x.shape[1], classes)), np.float64)
    b = np.zeros(classes)
    vw, vb = np.zeros_like(w), np.zeros_like(b)
    steps = -(-len(x) // settings.batch_size)
    done = 0
    for epoch in range(settings.epochs):
        order = np.asarray(jax.random.permutation(jax.random.fold_in(stream_rng(key, "permutation"), epoch), len(x)))
        for first in range(0, len(x), settings.batch_size):
            rows = order[first : first + settings.batch_size]
            logits = x[rows] @ w + b
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p /= p.sum(axis=1, keepdims=True)
            p[np.arange(len(rows)), labels[rows]] -= 1
            vw = settings.momentum * vw + x[rows].T @ p / len(rows) + settings.weight_decay * w
            vb = settings.momentum * vb + p.sum(axis=0) / len(rows) + settings.weight_decay * b
            rate = float(schedules.value(settings.lr, done / (steps * settings.epochs)))
            w, b = w - rate * vw, b - rate * vb
            done += 1
    return w, b


@pytest.mark.parametrize("standardise", [True, False])
def test_fit_is_sgd_written_out(standardise):
    features, labels = blobs(70)  # a last batch of 6
    lr = schedules.step((0.1, 0.01), (0.5,))
    settings = SGD(lr=lr, weight_decay=1e-3, epochs=4, batch_size=16, standardise=standardise)
    key = jax.random.key(3)
    model = linear.fit(features, labels, key, settings, classes=5)
    w, b = looped(features, labels, key, settings, 5)
    np.testing.assert_allclose(model.weights, w, atol=2e-5)
    np.testing.assert_allclose(model.bias, b, atol=2e-5)


def test_fit_reaches_scikit_learns_accuracy():
    features, labels = blobs(1500)
    queries, truth = blobs(2000, seed=1)
    model = linear.fit(features, labels, jax.random.key(0), SGD(lr=schedules.cosine(0.1, 0.0), epochs=30), classes=5)
    peer = LogisticRegression(C=1e3, max_iter=2000).fit(features, labels)
    ours = float(top1(linear.scores(model, queries), truth))
    assert abs(ours - peer.score(queries, truth)) < 0.01
    assert ours > 0.5


def test_fit_is_a_function_of_its_arguments():
    features, labels = blobs(70)
    one, same, other = (
        linear.fit(features, labels, jax.random.key(k), SGD(epochs=4, batch_size=16), classes=5) for k in (0, 0, 1)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one.weights, other.weights)


def test_standardised_features_forget_their_scale_and_constant_ones_do_no_harm():
    features, labels = blobs(70)
    settings = SGD(epochs=4, batch_size=16)
    plain = linear.fit(features, labels, jax.random.key(0), settings, classes=5)
    moved = linear.fit(features * 7 + 3, labels, jax.random.key(0), settings, classes=5)
    np.testing.assert_allclose(moved.weights, plain.weights, atol=1e-4)
    np.testing.assert_allclose(linear.scores(moved, features * 7 + 3), linear.scores(plain, features), atol=1e-3)
    with_dead = np.concatenate([features, np.full((70, 1), 0.3, np.float32)], axis=1)
    assert np.isfinite(linear.fit(with_dead, labels, jax.random.key(0), settings, classes=5).weights).all()
    raw = SGD(epochs=4, batch_size=16, standardise=False)
    one = linear.fit(features, labels, jax.random.key(0), raw, classes=5)
    seven = linear.fit(features * 7, labels, jax.random.key(0), raw, classes=5)
    assert np.abs(seven.weights - one.weights).max() > 1e-2


def test_numbers_that_go_bad_are_seen():
    features, labels = blobs(70)
    model = linear.fit(
        features * 1e20, labels, jax.random.key(0), SGD(lr=1e30, standardise=False, epochs=4, batch_size=16), classes=5
    )
    assert np.isnan(top1(linear.scores(model, features), jnp.asarray(labels)))


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"momentum": -1.0}, {"lr": "fast"}])
def test_settings_that_can_not_be_are_refused(wrong):
    with pytest.raises(UserError):
        SGD(**wrong)


def test_rates_side_by_side_are_rates_one_by_one():
    features, labels = blobs(70)
    settings = SGD(lr=0.02, weight_decay=1e-3, epochs=4, batch_size=16)
    factors = (0.3, 1.0, 10.0)
    found = linear.fit_each(features, labels, jax.random.key(3), settings, factors, classes=5)
    each = np.asarray(linear.scores_each(found, features))
    for i, factor in enumerate(factors):
        alone = linear.fit(features, labels, jax.random.key(3), replace(settings, lr=0.02 * factor), classes=5)
        np.testing.assert_allclose(linear.select_model(found, i).weights, alone.weights, atol=1e-5)
        np.testing.assert_allclose(each[i], linear.scores(alone, features), atol=1e-4)
    assert np.abs(found.weights[0] - found.weights[2]).max() > 0.05


def test_a_rate_that_goes_bad_leaves_the_others_alone():
    features, labels = blobs(70)
    settings = SGD(lr=0.02, weight_decay=1e-3, epochs=4, batch_size=16, standardise=False)
    found = linear.fit_each(features * 10, labels, jax.random.key(3), settings, (1e30, 1.0), classes=5)
    assert not np.isfinite(found.weights[0]).all() and np.isfinite(found.weights[1]).all()
    with pytest.raises(UserError, match="factors"):
        linear.fit_each(features, labels, jax.random.key(3), settings, (), classes=5)
