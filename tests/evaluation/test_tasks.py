import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from mi_contrast.core.errors import UserError
from mi_contrast.evaluation.features import Features
from mi_contrast.evaluation.tasks import run_task
from mi_contrast.readout.accuracy import top1
from tests.readout.test_knn import blobs

SGD = dict(kind="linear", solver="sgd", lr=0.05, momentum=0.9, weight_decay=0.0, epochs=30, batch_size=64)
LBFGS = dict(kind="linear", solver="lbfgs", l2=1e-3)
KNN = dict(kind="knn", k=20, temperature=0.07)


@pytest.fixture(scope="module")
def splits():
    names = tuple("abcde")
    return (Features(*blobs(800), names), Features(*blobs(900, seed=1), names))


def accuracy(settings, splits):
    return float(top1(run_task(settings, *splits, seed=0)[0], splits[1].labels))


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
    for settings in (SGD, LBFGS, KNN):
        one, _ = run_task(settings, fit, test, seed=0)
        two, _ = run_task(settings, fit, shuffled, seed=0)
        np.testing.assert_array_equal(one, two)


def test_labels_at_random_are_scored_at_chance(splits):
    fit, test = splits
    random = Features(fit.values, np.random.default_rng(5).integers(0, 5, len(fit.labels)), fit.classes)
    assert 0.1 < accuracy(KNN, (random, test)) < 0.35


def test_the_lbfgs_task_says_how_far_it_came(splits):
    _, how = run_task({**LBFGS, "iterations": 3}, *splits, seed=0)
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
    ],
)
def test_wrong_settings_are_one_line(splits, settings, says):
    with pytest.raises(UserError, match=says.replace("(", r"\(")):
        run_task(settings, *splits, seed=0)


def test_unlike_classes_are_refused(splits):
    fit, test = splits
    with pytest.raises(UserError, match="has 5 classes, the test split 4"):
        run_task(KNN, fit, Features(test.values, test.labels % 4, tuple("abcd")), seed=0)
