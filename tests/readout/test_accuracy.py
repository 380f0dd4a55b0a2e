import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest

from mi_contrast.readout.accuracy import effective_count, interval95, top1


def test_top1_counts_rows_whose_largest_score_is_at_the_label():
    scores = jnp.array([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.5, 0.5]])
    assert float(top1(scores, jnp.array([1, 0, 0, 0]))) == 0.75
    assert float(top1(scores, jnp.array([0, 1, 0, 1]))) == 0.0


def test_top1_is_nan_where_a_score_is_nan():
    assert np.isnan(top1(jnp.array([[jnp.nan, 1.0], [1.0, 0.0]]), jnp.array([0, 0])))
    assert float(top1(jnp.array([[-jnp.inf, 1.0], [1.0, 0.0]]), jnp.array([1, 0]))) == 1.0


@pytest.mark.parametrize(("hits", "count"), [(0, 10), (10, 10), (3, 7), (4120, 5000), (1, 1)])
def test_interval95_is_scipys_wilson_interval(hits, count):
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    low, high = interval95(hits / count, count)
    np.testing.assert_allclose((low, high), (expected.low, expected.high), atol=1e-12)
    assert low <= hits / count <= high


def test_interval95_covers_the_true_share_about_95_times_in_100():
    random = np.random.default_rng(0)
    seen = random.binomial(200, 0.3, size=4000) / 200
    covered = np.mean([low <= 0.3 <= high for low, high in (interval95(float(s), 200) for s in seen)])
    assert 0.93 < covered < 0.97


@pytest.mark.parametrize(("share", "count"), [(0.5, 0), (1.1, 10), (float("nan"), 10)])
def test_interval95_refuses_what_is_no_share(share, count):
    with pytest.raises(ValueError, match="no interval"):
        interval95(share, count)


def test_effective_count_is_the_number_of_groups_where_members_agree_and_of_examples_where_they_do_not():
    random = np.random.default_rng(0)
    alone = random.random(40_000) < 0.3
    whole = np.repeat(random.random(5_000) < 0.3, 8)
    groups = np.repeat(np.arange(5_000), 8)
    assert effective_count(alone, np.arange(40_000)) == pytest.approx(40_000, rel=1e-3)
    assert effective_count(alone, groups) == pytest.approx(40_000, rel=0.06)
    assert effective_count(whole, groups) == pytest.approx(5_000, rel=1e-3)
    assert effective_count(np.ones(16, bool), groups[:16]) == 2


def test_intervals_of_groups_cover_the_truth_where_plain_ones_do_not():
    random = np.random.default_rng(1)
    groups = np.repeat(np.arange(60), 10)
    covered = np.zeros(2)
    for _ in range(600):
        skill = random.beta(2, 2, size=60)  # objects differ: mean .5
        hits = random.random(600) < np.repeat(skill, 10)
        for i, count in enumerate((effective_count(hits, groups), 600)):
            low, high = interval95(float(hits.mean()), count)
            covered[i] += low <= 0.5 <= high
    assert covered[0] / 600 > 0.92 > 0.85 > covered[1] / 600
