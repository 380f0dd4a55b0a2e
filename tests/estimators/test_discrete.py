import warnings

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.feature_selection import mutual_info_classif
from sklearn.metrics import mutual_info_score

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError

RNG = np.random.default_rng(4)


def shifted(count, shift=2.0):
    """A fair coin, and a normal variable whose mean it moves."""
    coin = RNG.integers(2, size=count)
    return coin, shift * coin + RNG.normal(size=count)


def truth(shift=2.0):
    mixture = lambda v: 0.5 * (norm.pdf(v) + norm.pdf(v - shift))  # noqa: E731
    return quad(lambda v: -mixture(v) * np.log(mixture(v)), -9, 9 + shift)[0] - 0.5 * np.log(2 * np.pi * np.e)


def test_discrete_continuous_is_what_scikit_learn_computes():
    labels, y = RNG.integers(4, size=400), RNG.normal(size=400)
    y = y + labels
    theirs = mutual_info_classif(y[:, None], labels, n_neighbors=3, random_state=0)[0]  # adds noise of 1e-10
    assert mi.discrete_continuous(labels, y).nats == pytest.approx(theirs, abs=1e-4)
    names = np.array(["a", "b", "c", "d"])[labels]
    assert mi.discrete_continuous(names, 1e-21 * y).nats == pytest.approx(theirs, abs=1e-4)


def test_a_coin_and_a_number_read_the_truth_and_ksg_warns():
    right = truth()
    found = [mi.discrete_continuous(*shifted(1000)) for _ in range(40)]
    nats, errors = (
        np.array([float(value) for value in row]) for row in zip(*(tuple(f)[:2] for f in found), strict=True)
    )
    assert abs(nats.mean() - right) < 0.02 and 0.7 < errors.mean() / nats.std(ddof=1) < 1.8
    assert np.mean([float(f.low) <= right <= float(f.high) for f in found]) >= 0.75
    coin, y = shifted(1000)
    for variant in (1, 2):
        with pytest.warns(UserWarning, match="discrete_continuous with x"):
            assert mi.ksg(coin, y, 3, variant).nats < right + 0.15
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mi.ksg(y, y + RNG.normal(size=1000), 3, 2)  # control: no ties, no warning


def test_every_estimator_from_neighbours_warns_of_a_coin():
    coin, y = shifted(1000)
    series = np.stack([y, coin, RNG.normal(size=1000)])[..., None]
    for k in (1, 3):
        with pytest.warns(UserWarning, match="three_kl has no density to read .*discrete_continuous with x"):
            assert np.isnan(mi.three_kl(coin, y, k).nats)
    for estimator, said in (("ksg", "variant 1"), ("three_kl", "three_kl")):
        with pytest.warns(UserWarning, match=rf"repeats in series 1 \(\d+ times\), more than k = 3: {said}"):
            mi.all_pairs(series[:, :200], 3, estimator)
        with pytest.warns(UserWarning, match="repeats in series 1"):
            mi.twins(series[:, :60], estimator=estimator)
    rounded = np.round(4 * series[:, :200])
    with pytest.warns(UserWarning, match="repeats in series 0 .* 1 .* 2 .*noise below"):
        mi.all_pairs(rounded)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # control: no ties, no warning; a constant column is no tie
        mi.three_kl(y, y + RNG.normal(size=1000))
        smooth = np.concatenate([RNG.normal(size=(3, 60, 1)), np.zeros((3, 60, 1))], axis=-1)
        mi.all_pairs(smooth)
        mi.twins(smooth)


@pytest.mark.slow
def test_a_trained_critic_needs_no_warning_of_a_coin():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = mi.estimate(*shifted(600), key=jax.random.key(0), steps=200, batch=128)
    assert float(found.low) <= truth() <= float(found.high)


def test_the_ceiling_is_read_where_the_number_tells_the_label():
    coin, y = shifted(300, 1e3)
    found = mi.discrete_continuous(coin, y)
    assert found.nats == pytest.approx(float(found.ceiling), abs=1e-5) and found.nats == pytest.approx(
        np.log(2), abs=0.01
    )


def test_counts_are_the_plug_in_with_miller_and_madow():
    x = RNG.integers(5, size=2000)
    y = (x + RNG.integers(3, size=2000)) % 6
    cells = len(np.unique(np.stack([x, y]), axis=1).T)
    expected = mutual_info_score(x, y) + (5 + 6 - cells - 1) / 4000
    assert mi.discrete(x, y).nats == pytest.approx(expected, abs=1e-6)
    assert mi.discrete(x.astype(str), np.stack([y, y], axis=1)).nats == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("copied", [0.0, 0.5])
def test_counts_are_unbiased_and_their_error_is_their_spread(copied):
    found = []
    for _ in range(300):
        x, y = RNG.integers(4, size=(2, 200))
        found.append(tuple(mi.discrete(x, np.where(RNG.random(200) < copied, x, y))))
    nats, errors, _ = np.array(found, np.float64).T
    same, other = copied + (1 - copied) / 4, (1 - copied) / 4
    right = np.log(4) + same * np.log(same) + 3 * other * np.log(other)
    assert abs(nats.mean() - right) < 0.01 and 0.8 < errors.mean() / nats.std() < 1.25


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: mi.discrete_continuous(np.arange(50), np.arange(50.0)),
        lambda: mi.discrete_continuous(np.zeros(50), np.arange(49.0)),
        lambda: mi.discrete_continuous(np.zeros(50), np.full(50, np.nan)),
        lambda: mi.discrete(np.zeros(5), np.zeros(4)),
        lambda: mi.discrete(np.full(5, np.nan), np.zeros(5)),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(UserError) as told:
        mistake()
    assert "\n" not in str(told.value)
