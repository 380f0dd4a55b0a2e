"""Multi-crop: smaller crops beside two large ones, each by a draw of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.views import policies, two_crops
from mi_contrast.views.augmentation import augment, draw_batch, map_sequentially, map_vectorised
from mi_contrast.views.resampling import to_pixels

SIZE, SMALL, COUNT = 16, 7, 3
POLICY = policies.multi_crop(policies.moco_v2(SIZE), COUNT, SMALL)
NAMES = ("local_0", "local_1", "local_2")
SOURCES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (12, 2, 20, 24, 3), np.uint8))
KEYS = jax.random.split(jax.random.key(5), 12)


@pytest.fixture(scope="module")
def views():
    return policies.build(POLICY)


@pytest.fixture(scope="module")
def made(views):
    return jax.jit(views)(SOURCES, KEYS)


def test_names_sources_and_shapes(views, made):
    assert views.names == ("query", "key", *NAMES) and set(made) == set(views.names)
    assert dict(views.source_index) == {"query": 0, "key": -1, **dict.fromkeys(NAMES, 0)}
    for name, view in made.items():
        side = SMALL if name in NAMES else SIZE
        assert views.shapes[name] == (side, side, 3) and view.shape == (12, side, side, 3)
        assert view.dtype == jnp.float32


def test_the_large_crops_are_those_of_the_policy_without(made):
    plain = jax.jit(policies.build(policies.moco_v2(SIZE)))(SOURCES, KEYS)
    for name in plain:
        np.testing.assert_array_equal(made[name], plain[name])


def test_every_local_crop_is_its_own_draw_of_the_first_source(made):
    """Against the ops on one crop, by hand, by the keys folded with 3, 4 and 5."""
    ops = POLICY["local"]
    crop = jax.jit(lambda source, draw: to_pixels(augment(ops, SMALL, source, draw, banded=False)))
    for number, name in enumerate(NAMES):
        draws = draw_batch(ops, 3 + number, KEYS, SOURCES[:, 0])
        for i in range(12):
            pixels = crop(SOURCES[i, 0], jax.tree.map(lambda x, i=i: x[i], draws))
            expected = (pixels - np.array(policies.IMAGENET_MEAN)) / np.array(policies.IMAGENET_STD)
            np.testing.assert_allclose(made[name][i], expected, atol=2e-5)


def test_no_two_examples_and_no_two_views_share_a_draw(views):
    same = jnp.broadcast_to(SOURCES[:1, :1], SOURCES.shape)
    found = jax.jit(views)(same, KEYS)
    rows = np.concatenate([np.asarray(found[name]).reshape(12, -1) for name in NAMES])
    assert len(np.unique(rows.round(4), axis=0)) == 36
    copies = jax.jit(views)(same, jnp.stack([KEYS[0]] * 12))
    assert len(np.unique(np.asarray(copies["local_1"]).reshape(12, -1), axis=0)) == 1  # the same key would show


def test_local_crops_are_smaller_parts():
    """Their areas follow the section's law; the query's are all larger."""
    keys = jax.random.split(jax.random.key(8), 4000)
    blank = jnp.zeros((4000, 100, 100, 1), jnp.uint8)
    boxes = draw_batch(POLICY["local"], 3, keys, blank).box
    area = np.asarray(boxes[:, 2] * boxes[:, 3]) / 10_000
    assert POLICY["local"]["crop"]["area"] == (0.05, 0.2)
    assert area.min() > 0.045 and area.max() < 0.21 and abs(area.mean() - 0.125) < 0.003
    large = draw_batch(POLICY["query"], 0, keys, blank).box
    assert np.asarray(large[:, 2] * large[:, 3]).min() / 10_000 > 0.19


def test_the_accelerators_way_gives_the_same_crops(made):
    ops, images = POLICY["local"], SOURCES[:, 0]
    each = [draw_batch(ops, 3 + i, KEYS, images) for i in range(COUNT)]
    draws = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *each)
    rule = {**POLICY, "size": SMALL}
    for way in (map_sequentially, map_vectorised):
        found = jax.jit(
            lambda s, d, way=way: way(lambda *x, banded: two_crops.local_crops(rule, ops, *x, banded=banded), s, d)
        )(images, draws)
        for i, name in enumerate(NAMES):
            np.testing.assert_allclose(found[:, i], made[name], atol=3e-5)


def test_sizes_and_areas_are_in_proportion_where_left_out():
    assert policies.multi_crop(policies.moco_v2(224))["local"]["size"] == 96  # SwAV's
    digits = policies.two_crops(32, {"crop": {"area": (0.8, 1.0), "aspect": (1.0, 1.0)}}, (0.0,) * 3, (1.0,) * 3)
    local = policies.multi_crop(digits, 2)["local"]
    assert (local["count"], local["size"]) == (2, 14) and local["crop"]["area"] == (0.2, 0.8)
    assert local["crop"]["aspect"] == (1.0, 1.0)
    given = policies.multi_crop(digits, 2, area=(0.1, 0.3))["local"]
    assert given["crop"]["area"] == (0.1, 0.3)
    bare = policies.multi_crop(policies.two_crops(32, {"flip": 0.5}, (0.0,) * 3, (1.0,) * 3))
    assert bare["local"]["order"] == ("crop", "flip")
    policies.check(bare)
    assert policies.multi_crop(policies.infomin(32))["jigsaw"] == policies.infomin(32)["jigsaw"]
    policies.build(policies.multi_crop(policies.infomin(32)))


@pytest.mark.parametrize(
    "path, value, says",
    [
        ("count", 0, "whole number of crops"),
        ("count", None, "has no 'count'"),
        ("size", 7.0, "views.local.size is 7.0"),
        ("coutn", 3, "did you mean 'count'"),
        ("flip", 2.0, "views.local.flip is 2.0"),
        ("order", ("crop",), "name each of"),
        ("crop", {"area": (0.4, 0.2), "aspect": (1.0, 1.0)}, "0 < low <= high"),
    ],
)
def test_a_mistake_is_named(path, value, says):
    local = {n: v for n, v in {**POLICY["local"], path: value}.items() if v is not None}
    with pytest.raises(UserError) as caught:
        policies.build({**POLICY, "local": local})
    assert says in str(caught.value)
    with pytest.raises(UserError, match="is 3; give a dict"):
        policies.build({**POLICY, "local": 3})
    with pytest.raises(UserError, match="did you mean 'local'"):
        policies.build({**policies.moco_v2(SIZE), "locals": POLICY["local"]})
