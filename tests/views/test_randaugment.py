import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from mi_contrast.views import randaugment as ra
from mi_contrast.views.policies import infomin
from mi_contrast.views.resampling import to_lines, to_pixels
from tests.views.conftest import pictures

FILL = (124, 116, 104)
HEIGHT, WIDTH = 24, 28
PICTURES = {
    name: np.round(255 * image).astype(np.uint8)
    for name, image in (
        *pictures(HEIGHT, WIDTH).items(),
        ("dull", 0.4 + 0.1 * pictures(HEIGHT, WIDTH)["noise"]),
        ("nearly one level", np.eye(HEIGHT, WIDTH)[..., None] * [0.0, 0.5, 1.0]),
    )
}
STACK = np.stack(list(PICTURES.values()))
MAGNITUDES = (0.0, 2.6, 5.0, 9.5, 10.0)
SETTINGS = infomin(32)["query"]["randaugment"]
COUNTED = 20_000
UNLIKELY = 1e-4  # the keys are fixed: a test below this is wrong, not unlucky


@jax.jit
def layers_of(pixels, kind, place, argument, cubic):
    """One layer on every picture of a stack, all at once: what an accelerator computes."""
    one = ra.Layers(kind, place, argument, cubic)
    made = jax.vmap(lambda x: ra.apply_layer(to_lines(x).round(), one, FILL))(pixels.astype(jnp.float32))
    return jax.vmap(to_pixels)(made)


def ours(name, argument, cubic=False):
    op = ra.OPS[name]
    made = np.asarray(layers_of(STACK, op.kind, op.place, np.float32(argument), cubic))
    assert (made == np.round(made)).all() and made.min() >= 0 and made.max() <= 255
    return made


def magnified(name, magnitude):
    """The argument as the released code writes it, in double precision."""
    share = magnitude / 10
    return {
        "posterize": int(share * 4),
        "solarize": min(256, int(share * 256)),
        "solarize_add": min(128, int(share * 110)),
        "rotate": share * 30.0,
        "shear_x": share * 0.3,
        "shear_y": share * 0.3,
        "translate_x": share * 0.45,
        "translate_y": share * 0.45,
    }.get(name, 0.1 + share * 1.8)


def solarize_add(image, amount):
    table = [min(255, i + amount) if i < 128 else i for i in range(256)]
    return image.point(table * 3)


BY_PIL = {
    "identity": lambda image, _: image,
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "posterize": lambda image, bits: image.point([i & ~(2 ** (8 - bits) - 1) for i in range(256)] * 3),
    "solarize": ImageOps.solarize,
    "solarize_add": solarize_add,
    "colour": lambda image, factor: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda image, factor: ImageEnhance.Contrast(image).enhance(factor),
    "brightness": lambda image, factor: ImageEnhance.Brightness(image).enhance(factor),
    "sharpness": lambda image, factor: ImageEnhance.Sharpness(image).enhance(factor),
}
WARPS = {
    "rotate": lambda image, angle, how: image.rotate(angle, resample=how, fillcolor=FILL),
    "shear_x": lambda image, f, how: image.transform(image.size, Image.AFFINE, (1, f, 0, 0, 1, 0), how, fillcolor=FILL),
    "shear_y": lambda image, f, how: image.transform(image.size, Image.AFFINE, (1, 0, 0, f, 1, 0), how, fillcolor=FILL),
    "translate_x": lambda image, share, how: image.transform(
        image.size, Image.AFFINE, (1, 0, share * image.size[0], 0, 1, 0), how, fillcolor=FILL
    ),
    "translate_y": lambda image, share, how: image.transform(
        image.size, Image.AFFINE, (1, 0, 0, 0, 1, share * image.size[1]), how, fillcolor=FILL
    ),
}


def by_pil(op, *arguments):
    return np.stack([np.asarray(op(Image.fromarray(image), *arguments), np.float32) for image in STACK])


def test_the_fifteen():
    assert len(ra.ALL) == 15 and set(ra.ALL) | {"identity"} == set(BY_PIL) | set(WARPS) == set(ra.OPS)
    assert SETTINGS["ops"] == ra.ALL and set(ra.GEOMETRY) < set(ra.OPS)


@pytest.mark.parametrize("name", BY_PIL)
def test_tables_and_blends_equal_pil(name):
    for magnitude in MAGNITUDES:
        argument = magnified(name, magnitude)
        mine, theirs = ours(name, argument), by_pil(BY_PIL[name], argument)
        off = np.abs(mine - theirs)
        # whole numbers from products in single and in double precision: now and then one lies the other side of a step
        assert off.max() <= 1.0 and (off > 0).mean() < 2e-3, (magnitude, off.max(), (off > 0).mean())
    if name != "identity":
        assert np.abs(mine - STACK).max() > 1.0 or name == "solarize"


@pytest.mark.parametrize("cubic", [False, True])
@pytest.mark.parametrize("name", WARPS)
def test_resamples_equal_pil(name, cubic):
    how = Image.BICUBIC if cubic else Image.BILINEAR
    for magnitude in MAGNITUDES:
        for sign in (1, -1):
            argument = sign * magnified(name, magnitude)
            mine, theirs = ours(name, argument, cubic), by_pil(WARPS[name], argument, how)
            off = np.abs(mine - theirs)
            # truncated as in PIL: a value of 17 - 1e-6 is 16 there and may be 17 here
            assert (off > 1.0).mean() < 2e-3 and (off > 0).mean() < 0.1, (argument, off.max(), (off > 0).mean())
    assert np.abs(mine - STACK).mean() > 5.0


def test_a_wrong_direction_or_filter_would_show():
    theirs = by_pil(WARPS["rotate"], 20.0, Image.BILINEAR)
    assert (np.abs(ours("rotate", -20.0) - theirs) > 1.0).mean() > 0.2
    assert (np.abs(ours("rotate", 20.0, True) - theirs) > 1.0).mean() > 0.2


def test_both_histograms_count():
    lines = np.swapaxes(STACK[0], -1, -2).astype(np.int32)
    expected = np.stack([np.bincount(STACK[0][..., c].ravel(), minlength=256) for c in range(3)])
    for way in (ra.count_by_scatter, ra.count_by_product):
        np.testing.assert_array_equal(jax.jit(way)(lines), expected)


def test_at_the_highest_magnitude_solarize_does_nothing_and_posterize_keeps_four_bits():
    np.testing.assert_array_equal(ours("solarize", magnified("solarize", 10.0)), STACK)
    np.testing.assert_array_equal(ours("posterize", magnified("posterize", 10.0)), STACK // 16 * 16)
    np.testing.assert_array_equal(ours("posterize", magnified("posterize", 9.99)), STACK // 32 * 32)


def test_layers_come_one_after_the_other():
    names, arguments = ("colour", "rotate", "invert"), (1.9, 12.0, 0.0)
    chosen = [ra.OPS[name] for name in names]
    layers = ra.Layers(
        jnp.array([op.kind for op in chosen]),
        jnp.array([op.place for op in chosen]),
        jnp.array(arguments, jnp.float32),
        jnp.array([False, True, False]),
    )
    whole = jax.jit(lambda x: to_pixels(ra.randaugment(to_lines(x), layers, FILL)))
    image = Image.fromarray(PICTURES["smooth"])
    expected = ImageOps.invert(ImageEnhance.Color(image).enhance(1.9).rotate(12.0, Image.BICUBIC, fillcolor=FILL))
    np.testing.assert_allclose(255 * whole(PICTURES["smooth"]), np.asarray(expected, np.float32), atol=1.01)
    np.testing.assert_allclose(whole(PICTURES["smooth"] / np.float32(255) + 1e-4), whole(PICTURES["smooth"]))  # rounds


@pytest.fixture(scope="module")
def drawn():
    keys = jax.random.split(jax.random.key(3), COUNTED)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(partial(ra.draw_layers, SETTINGS)))(keys))


def test_every_op_is_as_likely_and_half_are_skipped(drawn):
    skipped = drawn.kind == ra.NONE
    assert stats.binomtest(int(skipped.sum()), skipped.size, 0.5).pvalue > UNLIKELY
    assert stats.binomtest(int(drawn.cubic.sum()), drawn.cubic.size, 0.5).pvalue > UNLIKELY
    for at in range(2):  # layers
        counts = [
            int(((drawn.kind == op.kind) & (drawn.place == op.place))[:, at].sum())
            for op in (ra.OPS[name] for name in ra.ALL)
        ]
        assert sum(counts) == int((~skipped[:, at]).sum())
        assert stats.chisquare(counts).pvalue > UNLIKELY
    both = np.corrcoef([*drawn.kind.T.astype(float), *drawn.cubic.T.astype(float)])
    assert np.abs(both - np.eye(4)).max() < 5 / math.sqrt(COUNTED)


def test_no_two_keys_share_a_draw():
    settings = {**SETTINGS, "magnitude": 5.0, "std": 2.0, "ops": ("rotate", "shear_x", "colour")}
    keys = jax.random.split(jax.random.key(3), COUNTED)
    drawn = jax.tree.map(np.asarray, jax.jit(jax.vmap(partial(ra.draw_layers, settings)))(keys))
    assert len(np.unique(drawn.argument, axis=0)) > 0.999 * COUNTED  # but where both layers' levels are clipped
    together = np.corrcoef(np.abs(drawn.argument.T))
    assert abs(together[0, 1]) < 5 / math.sqrt(COUNTED)


def of(drawn, name):
    op = ra.OPS[name]
    return drawn.argument[(drawn.kind == op.kind) & (drawn.place == op.place)].astype(np.float64)


def test_magnitudes_are_the_clipped_normal(drawn):
    """Half are exactly 10; of the rest, 10 - m is half a normal of deviation .5."""
    levels = (of(drawn, "brightness") - 0.1) / 0.18
    assert levels.max() <= 10.0 + 1e-4
    below = levels[levels < 10.0 - 1e-5]
    assert stats.binomtest(len(below), len(levels), 0.5).pvalue > UNLIKELY
    assert stats.kstest((10.0 - below) / 0.5, stats.halfnorm.cdf).pvalue > UNLIKELY
    assert stats.kstest((10.0 - below) / 0.7, stats.halfnorm.cdf).pvalue < UNLIKELY


def test_either_way_is_as_likely(drawn):
    for name, most in (("rotate", 30.0), ("shear_x", 0.3), ("translate_y", 0.45)):
        found = of(drawn, name)
        assert stats.binomtest(int((found > 0).sum()), len(found), 0.5).pvalue > UNLIKELY
        np.testing.assert_allclose(np.abs(found).max(), most, rtol=1e-6)
    assert (of(drawn, "colour") > 1.0).all()


def test_posterize_keeps_four_bits_half_of_the_time_and_three_else(drawn):
    bits = of(drawn, "posterize")
    assert set(bits) == {3.0, 4.0}
    assert stats.binomtest(int((bits == 4).sum()), len(bits), 0.5).pvalue > UNLIKELY


@pytest.mark.parametrize("name", ra.ALL)
def test_arguments_are_the_released_ones(name):
    settings = {**SETTINGS, "ops": (name,), "std": 0.0, "p": 1.0}
    made_at = jax.jit(lambda magnitude: ra.draw_layers({**settings, "magnitude": magnitude}, jax.random.key(0)))
    for magnitude in (0.0, 2.5, 5.0, 7.3, 10.0):
        made = made_at(magnitude)
        if ra.OPS[name].slope:
            np.testing.assert_allclose(np.abs(made.argument), magnified(name, magnitude), rtol=1e-6)
        assert (np.asarray(made.kind) == ra.OPS[name].kind).all()


def test_a_layer_more_changes_no_other():
    key = jax.random.key(1)
    two, three = jax.jit(lambda: [ra.draw_layers({**SETTINGS, "layers": n}, key) for n in (2, 3)])()
    for field in ("kind", "place", "cubic"):
        np.testing.assert_array_equal(getattr(two, field), getattr(three, field)[:2])
