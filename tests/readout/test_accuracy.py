import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binomtest

from mi_contrast.readout.accuracy import interval95, top1


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
