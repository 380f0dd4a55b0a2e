import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import make_mesh
from mi_contrast.views import colour, policies, two_crops
from mi_contrast.views.augmentation import draw_batch, map_sequentially, map_vectorised
from mi_contrast.views.blur import gaussian_blur
from mi_contrast.views.draws import draw_view
from mi_contrast.views.resampling import resample, to_lines, to_pixels
from tests import devices

SIZE = 16
DRAWS = np.random.default_rng(0)
SOURCES = jnp.asarray(DRAWS.integers(0, 256, (12, 2, 20, 24, 3), np.uint8))
KEYS = jax.random.split(jax.random.key(5), 12)


@pytest.fixture(scope="module")
def moco():
    return jax.jit(policies.build(policies.moco_v2(SIZE)))


@pytest.fixture(scope="module")
def made(moco):
    return moco(SOURCES, KEYS)


def test_a_key_decides_everything(moco, made):
    again, other = moco(SOURCES, KEYS), moco(SOURCES, jax.random.split(jax.random.key(6), 12))
    for name in made:
        np.testing.assert_array_equal(made[name], again[name])
        assert (np.abs(made[name] - other[name]).max(axis=(1, 2, 3)) > 0.05).all()


def test_an_example_does_not_know_its_neighbours(moco, made):
    order = np.random.default_rng(1).permutation(12)
    moved = moco(SOURCES[order], KEYS[order])
    for name in made:
        np.testing.assert_array_equal(moved[name], made[name][order])


def test_no_two_examples_and_no_two_views_share_a_draw(moco):
    same = jnp.broadcast_to(SOURCES[:1, :1], SOURCES.shape)
    rows = np.concatenate([np.asarray(view).reshape(12, -1) for view in moco(same, KEYS).values()])
    assert len(np.unique(rows.round(4), axis=0)) == 24
    copies = moco(same, jnp.stack([KEYS[0]] * 12))
    assert len(np.unique(np.asarray(copies["query"]).reshape(12, -1), axis=0)) == 1  # the same key would show


def test_query_is_of_the_first_source_and_key_of_the_last(moco):
    out = moco(SOURCES.at[:, 0].set(0), KEYS)
    dark = (0.0 - np.array(policies.IMAGENET_MEAN)) / np.array(policies.IMAGENET_STD)
    np.testing.assert_allclose(out["query"], np.broadcast_to(dark, out["query"].shape), atol=1e-5)
    assert np.abs(out["key"] - dark).max() > 1.0


JITTER = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.3, "p": 1.0}
EVERYTHING = {
    "crop": policies.crop_op(0.2),
    "solarize": {"threshold": 0.6, "p": 1.0},
    "flip": 0.5,
    "jitter": JITTER,
    "blur": {"sigma": (0.1, 1.5), "p": 1.0},
    "grey": 0.0,
}


def test_ops_are_applied_in_the_policys_order():
    """Against the ops applied one by one, by hand."""
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    out = jax.jit(policies.build(policies.two_crops(SIZE, EVERYTHING, mean, std)))(SOURCES, KEYS)
    draws = jax.jit(jax.vmap(lambda key: draw_view(EVERYTHING, key, *SOURCES.shape[2:4])))
    crop = jax.jit(lambda source, box: resample(to_lines(source), box, SIZE))
    rest = jax.jit(lambda x, one: gaussian_blur(colour.jitter(x, one.factors, one.order), one.sigma, 5))
    for number, (name, source) in enumerate(two_crops.SOURCES.items()):
        drawn = draws(jax.vmap(lambda key, n=number: jax.random.fold_in(key, n))(KEYS))
        assert 0 < drawn.flip.sum() < 12
        for i in range(12):
            one = jax.tree.map(lambda x, i=i: x[i], drawn)
            image = colour.solarize(crop(SOURCES[i, source], one.box), 0.6)
            expected = (to_pixels(rest(image[..., ::-1] if one.flip else image, one)) - np.array(mean)) / np.array(std)
            np.testing.assert_allclose(out[name][i], expected, atol=2e-5)


def test_grey_before_or_after_the_jitter_shows():
    # the hue alone: it leaves grey grey, and before the greyscale it changes the luma
    ops = {"grey": 1.0, "jitter": {**JITTER, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}}
    first = policies.two_crops(20, ops, (0.0,) * 3, (1.0,) * 3)
    first["key"]["order"] = ("jitter", "grey")
    same = jnp.broadcast_to(SOURCES[:, :1, :, :20], (12, 2, 20, 20, 3))
    out = jax.jit(policies.build(first))(same, KEYS)
    luma = np.asarray(same[:, 0]) @ np.array(colour.LUMA) / 255
    np.testing.assert_allclose(out["query"], np.repeat(luma[..., None], 3, -1), atol=1e-5)
    assert np.ptp(out["key"], axis=-1).max() < 1e-6
    assert np.abs(out["key"][..., 0] - luma).max() > 0.05


def test_the_accelerators_way_gives_the_same_views():
    ops = {**EVERYTHING, "grey": 0.2, "jitter": {**JITTER, "p": 0.8}, "blur": {"sigma": (0.1, 2.0), "p": 0.5}}
    rule = policies.two_crops(SIZE, ops, (0.0,) * 3, (1.0,) * 3)
    draws = draw_batch(ops, 0, KEYS, SOURCES[:, 0])
    made = [
        jax.jit(partial(way, partial(two_crops.crop_view, rule, rule["query"])))(SOURCES[:, 0], draws)
        for way in (map_sequentially, map_vectorised)
    ]
    np.testing.assert_allclose(*made, atol=3e-5)


@pytest.mark.slow
def test_the_accelerators_way_of_infomin_gives_the_same_views():
    rule = policies.infomin(SIZE)
    rule["query"]["randaugment"]["p"] = 1.0
    images = jnp.concatenate([SOURCES[:, 0]] * 4)  # so that most of the 15 ops are drawn
    draws = jax.jit(partial(draw_batch, rule["query"], 0))(jax.random.split(jax.random.key(8), 48), images)
    layers = np.stack([draws.layers.kind.ravel(), draws.layers.place.ravel()], -1)
    assert len(np.unique(layers, axis=0)) >= 14
    one_way, other = (
        jax.jit(partial(way, partial(two_crops.crop_view, rule, rule["query"])))
        for way in (map_sequentially, map_vectorised)
    )
    made = np.asarray(one_way(images, draws))
    # a value that lies on the edge between two levels may fall either way, and equalize tells levels far apart
    assert (np.abs(made - other(images, draws)) > 0.05).mean() < 2e-3
    without = draws._replace(layers=draws.layers._replace(kind=jnp.zeros_like(draws.layers.kind)))
    assert (np.abs(made - one_way(images, without)) > 0.05).mean() > 0.4  # the ops show


def test_views_of_equal_ops_are_made_by_one_program_with_the_same_values(made):
    rule = policies.moco_v2(SIZE)
    apart = {**rule, "key": {**rule["key"], "order": list(rule["key"]["order"])}}  # equal in all but Python's eyes
    assert rule["query"] == rule["key"] and apart["query"] != apart["key"]
    twice = jax.jit(policies.build(apart))(SOURCES, KEYS)
    for name in made:
        np.testing.assert_array_equal(made[name], twice[name])


def test_with_and_without_jit(made):
    bare = policies.build(policies.moco_v2(SIZE))(SOURCES, KEYS)
    for name in made:
        np.testing.assert_allclose(bare[name], made[name], atol=1e-5)


def test_values_stay_in_the_range_of_an_image():
    rule = policies.simclr(SIZE)
    for view in jax.jit(policies.build(rule))(SOURCES, KEYS).values():
        assert view.dtype == jnp.float32 and view.shape == (12, SIZE, SIZE, 3)
        assert np.min(view) >= -1e-6 and np.max(view) <= 1 + 1e-6
        assert np.std(view) > 0.05


def test_without_ops_a_view_is_its_source():
    nothing = policies.two_crops(20, {}, (0.0,) * 3, (1.0,) * 3)
    square = SOURCES[:, :, :, :20]
    out = policies.build(nothing)(square, KEYS)
    np.testing.assert_allclose(out["query"], square[:, 0] / 255.0, atol=1e-6)
    np.testing.assert_allclose(out["key"], square[:, 1] / 255.0, atol=1e-6)


def test_a_twin_is_of_the_last_source_and_leaves_the_others_as_they_are(moco, made):
    rule = policies.moco_v2(SIZE)
    views = policies.build({**rule, "twin": rule["query"]})
    assert views.source_index == {"query": 0, "key": 0, "twin": -1}
    assert views.shapes == dict.fromkeys(views.names, (SIZE, SIZE, 3))
    with_twin, alone = jax.jit(views), SOURCES[:, [0, 0]]
    out, itself, dark = (with_twin(sources, KEYS) for sources in (SOURCES, alone, SOURCES.at[:, 0].set(0)))
    of_one = moco(alone, KEYS)
    for name in ("query", "key"):
        np.testing.assert_array_equal(out[name], of_one[name])
        # by a draw of its own: the twin of a patch that is its own partner is neither of its views
        assert np.abs(itself["twin"] - itself[name]).max(axis=(1, 2, 3)).min() > 0.05
    np.testing.assert_array_equal(out["query"], made["query"])
    np.testing.assert_array_equal(dark["twin"], out["twin"])
    assert np.ptp(dark["query"], axis=(1, 2)).max() < 1e-5 < np.ptp(dark["twin"], axis=(1, 2)).min()
    for wrong, said in (
        ({**policies.infomin(SIZE), "twin": rule["query"]}, "a twin and a jigsaw"),
        ({**rule, "twin": {**rule["query"], "size": 8}}, "unknown field of views.twin 'size'"),
        ({**rule, "twins": rule["query"]}, "did you mean 'twin'"),
    ):
        with pytest.raises(UserError, match=said):
            policies.build(wrong)


def test_the_two_views_may_have_ops_of_their_own():
    rule = policies.simclr(SIZE)
    rule["key"] = {"solarize": dict(threshold=0.5, p=1.0), "order": ("solarize",)}
    out = jax.jit(policies.build(rule))(SOURCES[:, :, :16, :16], KEYS)
    source = SOURCES[:, 1, :16, :16] / 255.0
    np.testing.assert_allclose(out["key"], np.where(source < 0.5, source, 1 - source), atol=1e-6)


def test_a_mesh_of_one_device_changes_nothing(made):
    views = policies.build(policies.moco_v2(SIZE), make_mesh())
    out = jax.jit(views)(SOURCES, KEYS)
    np.testing.assert_allclose(out["query"], made["query"], atol=1e-6)


EIGHT = """
import jax, jax.numpy as jnp, numpy as np, re
from mi_contrast.core.mesh import batch_sharding, make_mesh
from mi_contrast.views import policies
mesh = make_mesh()
assert mesh.size == 8
sources = jnp.asarray(np.random.default_rng(0).integers(0, 256, (16, 1, 20, 20, 3), np.uint8))
keys = jax.random.split(jax.random.key(5), 16)
cut = jax.device_put((sources, keys), batch_sharding(mesh))
for policy in (policies.simclr, policies.infomin, policies.cmc):
    rule = policy(16)
    alone = jax.jit(policies.build(rule))(sources, keys)
    made = jax.jit(policies.build(rule, mesh)).lower(*cut).compile()
    assert not re.search("all-gather|all-reduce|collective-permute|all-to-all", made.as_text())
    for name, view in made(*cut).items():
        np.testing.assert_array_equal(view, alone[name])
uneven = jax.jit(policies.build(rule, mesh))(sources[:12], keys[:12])
np.testing.assert_array_equal(uneven["first"], alone["first"][:12])
"""


@pytest.mark.slow
def test_eight_devices_make_the_same_views_and_say_nothing_to_each_other():
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", EIGHT], check=True, cwd=root, env=devices.environment(8), timeout=300)
