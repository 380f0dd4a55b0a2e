import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from tests.estimators import reference

B, K, D, T = 9, 50, 5, 0.4
RNG = np.random.default_rng(23)
ANCHORS = RNG.integers(-2, 3, size=(B, D)).astype(np.float32)
POOL = RNG.integers(-2, 3, size=(K, D)).astype(np.float32)
VALID = RNG.random(K) < 0.8
IDS, POOL_IDS = np.arange(B, dtype=np.int32), RNG.integers(-1, B, K).astype(np.int32)
LABELS = {
    "class": (RNG.integers(-1, 3, B).astype(np.int32), RNG.integers(-1, 3, K).astype(np.int32)),
    "instance": (IDS, RNG.integers(0, B, K).astype(np.int32)),
}


@pytest.mark.parametrize(
    ("support", "band"), [(mi.All(), (0, 1)), (mi.Ball(0.7), (0.7, 1)), (mi.Ring(0.5, 0.9), (0.5, 0.9))]
)
def test_against_loops(support, band):
    ids = dict(valid=VALID, anchor_ids=IDS, pool_ids=POOL_IDS)
    found = mi.contrast_statistics(ANCHORS, POOL, support, temperature=T, labels=LABELS, block=4, **ids)
    for b in range(B):
        scores, where = POOL.astype(np.float64) @ ANCHORS[b], VALID & (b != POOL_IDS)
        weights = reference.band_weights(scores, where, *band)
        means = [(w * np.exp(scores / T)).sum() / w.sum() for w in (weights, where)]
        assert found.size[b] == pytest.approx(weights.sum())
        assert found.pool_size[b] == where.sum()
        assert found.log_mean_support[b] == pytest.approx(np.log(means[0]), rel=1e-5, abs=1e-5)
        assert found.log_mean_pool[b] == pytest.approx(np.log(means[1]), rel=1e-5, abs=1e-5)
        gap = np.log(means[0] / means[1])
        assert abs(gap) < 1e-4 or bool(found.bound_holds[b]) == (gap > 0)  # nearer, float32 decides
        for name, (own, theirs) in LABELS.items():
            known = weights * ((own[b] >= 0) & (theirs >= 0))
            assert found.matches[name].known[b] == pytest.approx(known.sum(), abs=1e-5)
            assert found.matches[name].same[b] == pytest.approx((known * (theirs == own[b])).sum(), abs=1e-5)


def test_the_whole_pool_meets_its_own_condition_and_an_empty_one_too():
    whole = mi.contrast_statistics(ANCHORS, POOL, mi.All(), temperature=T)
    assert whole.bound_holds.all()
    empty = mi.contrast_statistics(ANCHORS, POOL, mi.Ring(0.9, 0.99), temperature=T, valid=np.arange(K) < 5)
    assert empty.bound_holds.all() and (empty.size == 0).all() and (empty.log_mean_support == 0).all()
    easy = mi.contrast_statistics(ANCHORS[:1], POOL, mi.Ring(0.0, 0.5), temperature=T)
    assert not easy.bound_holds.any()


def test_unknown_labels_count_nowhere():
    labels = {"class": (jnp.full(B, -1), jnp.full(K, -1))}
    match = mi.contrast_statistics(ANCHORS, POOL, mi.All(), temperature=T, labels=labels).matches["class"]
    assert (match.known == 0).all() and (match.same == 0).all()


def test_labels_that_do_not_fit():
    with pytest.raises(UserError, match="do not fit"):
        mi.contrast_statistics(ANCHORS, POOL, mi.All(), temperature=T, labels={"class": (IDS, IDS)})
