import copy
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mi_contrast.views import policies
from mi_contrast.views.augmentation import augment, map_sequentially, map_vectorised
from mi_contrast.views.jigsaw import draw_jigsaw_batch, jigsaw_view
from mi_contrast.views.resampling import to_pixels
from tests.views.test_draws import boxes_by_the_law, same_law

COUNTED = 20_000
UNLIKELY = 1e-4
SIZE = 32
POLICY = policies.pirl(SIZE)
OPS = POLICY["jigsaw"]
SOURCES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (6, 2, 40, 48, 3), np.uint8))
KEYS = jax.random.split(jax.random.key(2), 6)


def test_sizes_are_the_released_ones_at_224_and_in_proportion_elsewhere():
    assert [policies.pirl(224)["jigsaw"][name] for name in ("grid", "cell", "patch")] == [3, 85, 64]
    assert [OPS[name] for name in ("grid", "cell", "patch")] == [3, 12, 9]
    views = policies.build(policies.infomin(224))
    assert views.shapes["jigsaw"] == (9, 64, 64, 3) and views.source_index["jigsaw"] == 0
    assert policies.build(policies.infomin(224, jigsaw=False)).names == ("query", "key")


@pytest.mark.parametrize("way", [map_sequentially, map_vectorised])
def test_patches_are_cut_out_of_the_cells_of_the_crop(way):
    draws = draw_jigsaw_batch(OPS, 2, KEYS, SOURCES[:, 0])
    made = jax.jit(lambda s, d: way(lambda *pair, banded: jigsaw_view(POLICY, OPS, *pair, banded=banded), s, d))(
        SOURCES[:, 0], draws
    )
    assert made.shape == (6, 9, 9, 9, 3)
    canvas = jax.jit(lambda source, one: to_pixels(augment(OPS, 36, source, one, banded=False)))
    for i in range(6):
        whole = np.asarray(canvas(SOURCES[i, 0], jax.tree.map(lambda x, i=i: x[i], draws.crop)))
        whole = (whole - policies.IMAGENET_MEAN) / policies.IMAGENET_STD
        for place in range(9):
            row, column = divmod(int(draws.cells[i, place]), 3)
            top, left = np.array([12 * row, 12 * column]) + np.asarray(draws.corners[i, place])
            np.testing.assert_allclose(made[i, place], whole[top : top + 9, left : left + 9], atol=2e-5)


@pytest.fixture(scope="module")
def drawn():
    keys = jax.random.split(jax.random.key(4), COUNTED)
    blank = jnp.zeros((COUNTED, 40, 48, 1), jnp.uint8)
    return jax.tree.map(np.asarray, jax.jit(lambda k: draw_jigsaw_batch(OPS, 2, k, blank))(keys))


def test_every_order_and_every_corner_is_as_likely(drawn):
    assert (np.sort(drawn.cells, axis=1) == np.arange(9)).all()
    for place in range(9):
        assert stats.chisquare(np.bincount(drawn.cells[:, place], minlength=9)).pvalue > UNLIKELY
        for side in range(2):
            assert stats.chisquare(np.bincount(drawn.corners[:, place, side], minlength=4)).pvalue > UNLIKELY
    pairs = Counter(map(tuple, drawn.cells[:, :2]))
    assert len(pairs) == 72 and stats.chisquare(list(pairs.values())).pvalue > UNLIKELY


def test_each_example_has_an_order_of_its_own(drawn):
    orders = Counter(map(tuple, drawn.cells))
    assert len(orders) > 0.95 * COUNTED  # of 362,880
    assert max(orders.values()) <= 4


def test_the_crop_follows_its_law(drawn):
    areas = drawn.crop.box[:, 2] * drawn.crop.box[:, 3] / (40 * 48)
    assert areas.min() > 0.57 and areas.max() <= 1.0
    for low, right in ((0.6, True), (0.65, False)):
        theirs = boxes_by_the_law(COUNTED, 40, 48, (low, 1.0), (3 / 4, 4 / 3))
        assert (min(same_law(drawn.crop.box, theirs)) > UNLIKELY) == right
    assert stats.binomtest(int(drawn.crop.flip.sum()), COUNTED, 0.5).pvalue > UNLIKELY
    assert not drawn.crop.jitter.any() and not drawn.crop.blur.any()


def test_it_is_a_view_beside_the_two_and_changes_neither():
    with_, without = copy.deepcopy(POLICY), copy.deepcopy(POLICY)
    del without["jigsaw"]
    many, two = (jax.jit(policies.build(policy))(SOURCES, KEYS) for policy in (with_, without))
    assert set(many) == {"query", "key", "jigsaw"} and many["jigsaw"].dtype == jnp.float32
    for name in two:
        np.testing.assert_array_equal(many[name], two[name])


def test_it_is_of_the_first_source():
    made = jax.jit(policies.build(POLICY))(SOURCES.at[:, 0].set(0), KEYS)["jigsaw"]
    dark = (0.0 - np.array(policies.IMAGENET_MEAN)) / np.array(policies.IMAGENET_STD)
    np.testing.assert_allclose(made, np.broadcast_to(dark, made.shape), atol=1e-5)
