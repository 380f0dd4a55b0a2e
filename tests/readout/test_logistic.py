import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mi_contrast.core.errors import UserError
from mi_contrast.readout import linear, logistic
from mi_contrast.readout.accuracy import top1
from mi_contrast.readout.logistic import LBFGS
from tests.readout.test_knn import blobs


@pytest.mark.parametrize("l2", [1e-1, 1e-3])
def test_fit_finds_scikit_learns_optimum(l2):
    features, labels = blobs(700)
    queries, truth = blobs(1000, seed=1)
    found = logistic.fit(features, labels, LBFGS(l2=l2, standardise=False), classes=5)
    peer = LogisticRegression(C=1 / (l2 * 700), max_iter=5000, tol=1e-8).fit(features.astype(np.float64), labels)
    np.testing.assert_allclose(found.model.weights, peer.coef_.T, atol=2e-3)
    bias = np.asarray(found.model.bias)
    np.testing.assert_allclose(bias - bias.mean(), peer.intercept_ - peer.intercept_.mean(), atol=2e-3)
    ours = float(top1(linear.scores(found.model, queries), truth))
    assert abs(ours - peer.score(queries, truth)) <= 0.002
    assert found.gradient <= 1e-5 and found.iterations < 1000


def test_an_unfinished_solution_says_so():
    features, labels = blobs(700)
    found = logistic.fit(features, labels, LBFGS(l2=1e-6, iterations=2), classes=5)
    assert int(found.iterations) == 2 and float(found.gradient) > 1e-5


def test_settings_that_can_not_be_are_refused():
    with pytest.raises(UserError, match="l2 is -1"):
        LBFGS(l2=-1)


def test_a_path_of_regularisers_finds_each_one_s_optimum():
    features, labels = blobs(700)
    l2s = (1e-1, 1e-2, 1e-3)
    found = logistic.fit_path(features, labels, LBFGS(), l2s, classes=5)
    for l2, solution in zip(l2s, found, strict=True):
        alone = logistic.fit(features, labels, LBFGS(l2=l2), classes=5)
        np.testing.assert_allclose(solution.model.weights, alone.model.weights, atol=2e-3)
        assert solution.gradient <= 1e-5
    with pytest.raises(UserError, match="l2 is -1"):
        logistic.fit_path(features, labels, LBFGS(), (1e-1, -1), classes=5)
