import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize

from mi_contrast.core.errors import BadNumbersError, UserError
from mi_contrast.evaluation.episodes import mean_and_interval
from mi_contrast.evaluation.features import Features, select_validation
from mi_contrast.evaluation.tasks import run_task
from mi_contrast.readout import linear
from mi_contrast.readout.accuracy import top1
from tests.readout.test_knn import blobs

SGD = dict(kind="linear", solver="sgd", lr=0.05, momentum=0.9, weight_decay=0.0, epochs=30, batch_size=64)
LBFGS = dict(kind="linear", solver="lbfgs", l2=1e-3)
KNN = dict(kind="knn", k=20, temperature=0.07)
FEWSHOT = dict(kind="fewshot", ways=3, shots=5, queries=15, episodes=40)


@pytest.fixture(scope="module")
def splits():
    names = tuple("abcde")
    return (Features(*blobs(800), names), Features(*blobs(900, seed=1), names))


def accuracy(settings, splits):
    return float(top1(run_task(settings, *splits, seed=0).scores, splits[1].labels))


def test_linear_tasks_reach_scikit_learns_accuracy(splits):
    fit, test = splits
    spread = fit.values.std(axis=0)
    peer = LogisticRegression(C=1 / (1e-3 * 800), max_iter=2000).fit(fit.values / spread, fit.labels)
    expected = peer.score(test.values / spread, test.labels)
    assert abs(accuracy(LBFGS, splits) - expected) <= 0.002
    assert abs(accuracy(SGD, splits) - expected) <= 0.015


def test_knn_task_reaches_scikit_learns_accuracy(splits):
    fit, test = splits
    peer = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    expected = peer.fit(fit.values, fit.labels).score(test.values, test.labels)
    assert abs(accuracy(KNN, splits) - expected) <= 0.002


def test_a_task_never_sees_the_test_labels(splits):
    fit, test = splits
    shuffled = Features(test.values, np.roll(test.labels, 1), test.classes)
    for settings in (dict(SGD, factors=(0.1, 1.0), epochs=3), dict(LBFGS, l2=(1e-1, 1e-3)), KNN):
        one = run_task(settings, fit, test, seed=0).scores
        two = run_task(settings, fit, shuffled, seed=0).scores
        np.testing.assert_array_equal(one, two)


def test_labels_at_random_are_scored_at_chance(splits):
    fit, test = splits
    random = Features(fit.values, np.random.default_rng(5).integers(0, 5, len(fit.labels)), fit.classes)
    assert 0.1 < accuracy(KNN, (random, test)) < 0.35


def test_the_lbfgs_task_says_how_far_it_came(splits):
    how = run_task({**LBFGS, "iterations": 3}, *splits, seed=0).details
    assert how["iterations"] == 3 and how["largest_gradient"] > 0


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (dict(kind="knm"), "unknown task 'knm'; did you mean 'knn'"),
        (dict(KNN, neighbours=3), "unknown field of config.task 'neighbours'"),
        (dict(KNN, k=801), "k is 801 and the bank has 800 rows"),
        (dict(KNN, temperature=0.0), "temperature is 0.0"),
        (dict(SGD, solver="adam"), "unknown solver of the linear task 'adam'"),
        (dict(SGD, momentun=0.9), "did you mean 'momentum'"),
        (dict(SGD, epochs=0), "epochs is 0"),
        (dict(SGD, factors=(1.0, 0.0)), "factors is (1.0, 0.0)"),
        (dict(LBFGS, l2=(1e-3, 1e-3)), "l2 is (0.001, 0.001)"),
        (dict(LBFGS, l2=(1e-3, 1e-2), validation=1.0), "validation is 1.0"),
        (dict(FEWSHOT, by="rigde"), "unknown few-shot classifier 'rigde'; did you mean 'ridge'"),
        (dict(FEWSHOT, ways=6), "5 of 5 classes have 5 examples to fit and 15 to test, and an episode needs 6"),
        (dict(FEWSHOT, shots=700), "0 of 5 classes have 700 examples"),
    ],
)
def test_wrong_settings_are_one_line(splits, settings, says):
    with pytest.raises(UserError, match=re.escape(says)):
        run_task(settings, *splits, seed=0)


def test_unlike_classes_are_refused(splits):
    fit, test = splits
    with pytest.raises(UserError, match="has 5 classes, the test split 4"):
        run_task(KNN, fit, Features(test.values, test.labels % 4, tuple("abcd")), seed=0)


def test_the_rate_is_chosen_on_validation_and_fitted_anew_on_all(splits):
    fit, test = splits
    settings = dict(SGD, epochs=4, factors=(1e-6, 1.0, 1e4), validation=0.25)
    found = run_task(settings, fit, test, seed=0)
    assert found.details["factor"] == 1.0 and found.details["at_edge"] is False and found.details["validation"] == 200
    assert found.details["validation_top1"]["1.0"] > found.details["validation_top1"]["1e-06"]
    alone = run_task(dict(SGD, epochs=4), fit, test, seed=0)
    np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)
    np.testing.assert_allclose(linear.scores(found.head, test.values), found.scores, atol=1e-6)


def test_the_regulariser_is_scikit_learns_choice_on_the_same_validation(splits):
    fit, test = splits
    l2s = (1.0, 1e-1, 1e-2, 1e-4)
    found = run_task(dict(LBFGS, l2=l2s), fit, test, seed=0)
    held = select_validation(fit, 0.2, seed=0)
    x = fit.values / fit.values[~held].std(axis=0)
    peers = {l2: LogisticRegression(C=1 / (l2 * 640), max_iter=3000).fit(x[~held], fit.labels[~held]) for l2 in l2s}
    shares = {l2: peer.score(x[held], fit.labels[held]) for l2, peer in peers.items()}
    for l2, share in shares.items():
        assert abs(found.details["validation_top1"][str(l2)] - share) <= 1 / held.sum() + 1e-6
    assert shares[found.details["l2"]] >= max(shares.values()) - 1 / held.sum()


def test_no_rate_that_gives_numbers_is_an_error(splits):
    fit, test = splits
    huge = Features(fit.values * 1e20, fit.labels, fit.classes)
    with pytest.raises(BadNumbersError, match="no factor of"):
        run_task(dict(SGD, epochs=1, standardise=False, factors=(1e30, 1e31)), huge, test, seed=0)


@pytest.mark.parametrize("grouped", [False, True])
def test_validation_keeps_groups_whole_and_every_class_its_share(splits, grouped):
    fit, _ = splits
    groups = np.arange(800) // 4 if grouped else None
    labels = np.repeat(fit.labels[::4], 4) if grouped else fit.labels
    held = select_validation(Features(fit.values, labels, fit.classes, groups), 0.2, seed=0)
    assert held.sum() == 160
    for c in range(5):
        assert abs(held[labels == c].sum() - 0.2 * (labels == c).sum()) <= (4 if grouped else 1)
    if grouped:
        assert (held.reshape(-1, 4).sum(axis=1) % 4 == 0).all()


@pytest.mark.parametrize("by", ["ridge", "prototypes", "cosine"])
def test_fewshot_is_episodes_written_out(splits, by):
    """Classes far apart are told apart; the mean over episodes is near that of episodes drawn and scored by hand."""
    fit, test = splits
    settings = dict(FEWSHOT, by=by, episodes=200, normalise=False)
    shares = run_task(settings, fit, test, seed=0).accuracies
    random = np.random.default_rng(0)
    by_hand = []
    for _ in range(200):
        classes = random.permutation(5)[:3]
        rows = [random.permutation(np.flatnonzero(fit.labels == c))[:5] for c in classes]
        asked = [random.permutation(np.flatnonzero(test.labels == c))[:15] for c in classes]
        support, queries = fit.values[np.concatenate(rows)], test.values[np.concatenate(asked)]
        if by == "ridge":
            peer = Ridge(alpha=0.1).fit(support, np.repeat(np.eye(3), 5, axis=0))
            guess = peer.predict(queries).argmax(axis=1)
        elif by == "prototypes":
            guess = NearestCentroid().fit(support, np.repeat(np.arange(3), 5)).predict(queries)
        else:
            means = normalize(normalize(support).reshape(3, 5, -1).mean(axis=1))
            guess = (normalize(queries) @ means.T).argmax(axis=1)
        by_hand.append(np.mean(guess == np.repeat(np.arange(3), 15)))
    assert shares.shape == (200,) and 0.4 < shares.mean() < 1
    error = np.hypot(shares.std(), np.std(by_hand)) / np.sqrt(200)
    assert abs(shares.mean() - np.mean(by_hand)) < 3.5 * error
    mean, (low, high) = mean_and_interval(shares)
    np.testing.assert_allclose([mean - low, high - mean], 1.96 * shares.std(ddof=1) / np.sqrt(200), rtol=1e-3)
