"""Patches of one image: their pixels by plain slices of images that tell where each pixel lies."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mi_contrast.core.errors import UserError
from mi_contrast.views import policies
from mi_contrast.views.augmentation import draw_batch, map_sequentially, map_vectorised
from mi_contrast.views.colour import solarize
from mi_contrast.views.patches import PatchDraw, draw_corners, patch_view
from mi_contrast.views.resampling import to_lines, to_pixels

UNLIKELY = 1e-4
BLACK, WHITE = (0.0,) * 3, (1.0,) * 3
HEIGHT, WIDTH, SIZE, DISTANCE = 40, 52, 12, 9
KEYS = jax.random.split(jax.random.key(3), 64)


def chart(height, width):
    """uint8 [height, width, 3]: row, column, and their parities, so that a pixel tells its place."""
    rows, columns = np.indices((height, width))
    return np.stack([rows, columns, 3 * (rows % 7) + columns % 5], axis=-1).astype(np.uint8)


def charts(count, height=HEIGHT, width=WIDTH, sources=1):
    return jnp.asarray(np.broadcast_to(chart(height, width), (count, sources, height, width, 3)))


def made(policy, sources, keys):
    return {name: np.asarray(v) for name, v in jax.jit(policies.build(policy))(sources, keys).items()}


def bytes_of(view):
    levels = 255.0 * np.asarray(view, np.float64)
    assert np.abs(levels - levels.round()).max() < 1e-4
    return levels.round().astype(np.uint8)


@pytest.mark.parametrize("distance", [0, 5, 9, 28])  # side by side, overlapping, as far as fits
def test_both_are_slices_at_the_exact_offset(distance):
    views = made(policies.patches(SIZE, distance, mean=BLACK, std=WHITE), charts(len(KEYS)), KEYS)
    whole = chart(HEIGHT, WIDTH)
    for query, key in zip(bytes_of(views["query"]), bytes_of(views["key"]), strict=True):
        y, x = (int(v) for v in query[0, 0, :2])
        np.testing.assert_array_equal(query, whole[y : y + SIZE, x : x + SIZE])
        np.testing.assert_array_equal(key, whole[y + distance :, x + distance :][:SIZE, :SIZE])
        assert key.shape == (SIZE, SIZE, 3)


def test_pixels_are_those_of_the_source_and_no_others():
    """No resampling: the very float32 that a byte is, normalised as everywhere."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 1, HEIGHT, WIDTH, 3), dtype=np.uint8)
    policy = policies.patches(SIZE, DISTANCE)
    views = made(policy, jnp.asarray(noise), KEYS)
    mean, std = np.array(policy["mean"], np.float32), np.array(policy["std"], np.float32)
    place = np.asarray(draw_corners(SIZE, DISTANCE, KEYS, HEIGHT, WIDTH))
    for i, (y, x) in enumerate(place):
        mine = noise[i, 0, y : y + SIZE, x : x + SIZE] / np.float32(255)
        np.testing.assert_allclose(views["query"][i], (mine - mean) / std, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def places():
    keys = jax.random.split(jax.random.key(11), 40_000)
    return np.asarray(jax.jit(lambda k: draw_corners(SIZE, DISTANCE, k, 28, 30))(keys))


def test_every_place_is_as_likely(places):
    """28 x 30 images leave 8 x 10 places, of which each must come as often, and no other."""
    assert places.min(axis=0).tolist() == [0, 0] and places.max(axis=0).tolist() == [7, 9]
    counts = np.zeros((8, 10), int)
    np.add.at(counts, tuple(places.T), 1)
    assert stats.chisquare(counts.ravel()).pvalue > UNLIKELY
    # Control: a law whose last place is half as likely, as rounding a uniform number would have it, is found out.
    rounded = np.round(np.random.default_rng(0).random((40_000, 2)) * [7, 9]).astype(int)
    skewed = np.zeros((8, 10), int)
    np.add.at(skewed, tuple(rounded.T), 1)
    assert stats.chisquare(skewed.ravel()).pvalue < UNLIKELY


def test_places_of_a_large_image_are_uniform():
    keys = jax.random.split(jax.random.key(12), 20_000)
    found = np.asarray(jax.jit(lambda k: draw_corners(64, 128, k, 512, 768))(keys))
    for column, side in zip(found.T, (512, 768), strict=True):
        free = side - 64 - 128 + 1
        assert stats.kstest((column + 0.5) / free, "uniform").pvalue > UNLIKELY


def test_no_two_examples_share_a_draw_and_a_key_decides_everything():
    policy = policies.patches(SIZE, DISTANCE, {"flip": 0.5}, BLACK, WHITE)
    many = jax.random.split(jax.random.key(1), 256)
    place = np.asarray(draw_corners(4, 0, many, 2**14, 2**14))  # so many places that none comes twice
    assert len(np.unique(place, axis=0)) == 256
    one, again = made(policy, charts(64), KEYS), made(policy, charts(64), KEYS)
    order = np.random.default_rng(1).permutation(64)
    moved = made(policy, charts(64), KEYS[order])
    for name in one:
        np.testing.assert_array_equal(one[name], again[name])
        np.testing.assert_array_equal(moved[name], one[name][order])
    same = made(policy, charts(64), jnp.stack([KEYS[0]] * 64))
    assert len(np.unique(same["query"].reshape(64, -1), axis=0)) == 1  # the same key would show


def test_each_patch_may_have_ops_of_its_own():
    policy = policies.patches(SIZE, DISTANCE, mean=BLACK, std=WHITE)
    policy["key"] = {"flip": 1.0, "solarize": {"threshold": 0.1, "p": 1.0}, "order": ("solarize", "flip")}
    plain = made(policies.patches(SIZE, DISTANCE, mean=BLACK, std=WHITE), charts(64), KEYS)
    views = made(policy, charts(64), KEYS)
    np.testing.assert_array_equal(views["query"], plain["query"])
    theirs = np.stack([to_pixels(solarize(to_lines(v), 0.1)) for v in plain["key"][:, :, ::-1]])
    np.testing.assert_allclose(views["key"], theirs, atol=1e-6)
    both = made(policies.patches(SIZE, DISTANCE, {"flip": 0.5}, BLACK, WHITE), charts(64), KEYS)
    flipped = {n: (both[n] != plain[n]).any(axis=(1, 2, 3)) for n in both}
    assert all(0 < f.sum() < 64 for f in flipped.values()) and (flipped["query"] != flipped["key"]).any()
    for name in both:
        expected = np.where(flipped[name][:, None, None, None], plain[name][:, :, ::-1], plain[name])
        np.testing.assert_array_equal(both[name], expected)


def test_both_are_of_the_first_source():
    policy = policies.patches(SIZE, DISTANCE)
    views = policies.build(policy)
    assert dict(views.source_index) == {"query": 0, "key": 0}
    assert views.shapes == dict.fromkeys(views.names, (12, 12, 3))
    two = charts(64, sources=2)
    one, other = made(policy, two, KEYS), made(policy, two.at[:, 1].set(0), KEYS)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_the_accelerators_way_gives_the_same_patches():
    ops = {"flip": 0.5, "jitter": dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8)}
    policy = policies.patches(SIZE, DISTANCE, ops)
    images = charts(64)[:, 0]
    draws = PatchDraw(draw_corners(SIZE, DISTANCE, KEYS, HEIGHT, WIDTH), draw_batch(policy["query"], 0, KEYS, images))
    ways = [
        jax.jit(
            lambda s, d, way=way: way(lambda *x, banded: patch_view(policy, policy["query"], *x, banded=banded), s, d)
        )
        for way in (map_sequentially, map_vectorised)
    ]
    np.testing.assert_allclose(*(way(images, draws) for way in ways), atol=1e-5)


@pytest.mark.parametrize(
    "shape, says",
    [
        (
            (20, 40),
            "hold no two patches of 12 pixels at distance 9; give views.distance of 8 or less",
        ),
        ((40, 20), "images of 40 x 20 hold no two patches"),
        ((11, 40), "give smaller patches or larger images"),
    ],
)
def test_images_that_are_too_small_are_named(shape, says):
    with pytest.raises(UserError) as caught:
        made(policies.patches(SIZE, DISTANCE), charts(64, *shape), KEYS)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    made(policies.patches(SIZE, DISTANCE), charts(64, 21, 21), KEYS)  # just fits


def test_mistakes_are_named():
    ops = {"flip": 0.5}
    for path, value, says in (
        ("distance", -1, "views.distance is -1; give a whole number of pixels, 0 or more"),
        ("distance", 2.5, "views.distance is 2.5"),
        ("distance", True, "views.distance is True"),
        ("distance", None, "has no 'distance'"),
        ("distnace", 3, "did you mean 'distance'"),
        ("qeury", {"order": ()}, "did you mean 'query'"),
        ("query", {"crop": policies.crop_op(0.2), "order": ("crop",)}, "views.query has a crop; leave it out"),
        ("query", {"flp": 0.5, "order": ("flp",)}, "did you mean 'flip'"),
        ("key", {"flip": 1.5, "order": ("flip",)}, "views.key.flip is 1.5"),
        ("key", 3, "views.key is 3"),
        ("mean", (-1.0, 0.0, 0.0), "views.mean"),
        ("kind", "patchs", "did you mean 'patches'"),
    ):
        policy = policies.patches(SIZE, DISTANCE, ops)
        policy = {n: v for n, v in {**policy, path: value}.items() if v is not None}
        with pytest.raises(UserError) as caught:
            policies.build(policy)
        assert says in str(caught.value), (path, value)
    for size, given in itertools.product((1, 64), (None, ops)):
        policies.check(policies.patches(size, 0, given))
