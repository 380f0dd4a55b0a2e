import colorsys
from functools import partial
from itertools import permutations

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mi_contrast.views import colour
from mi_contrast.views.resampling import to_lines, to_pixels
from tests.views.conftest import pictures

PICTURES = pictures(12, 16)
FACTORS = (0.0, 0.2, 0.6, 1.0, 1.4, 1.8)
TURNS = (-0.5, -0.4, -0.1, 0.0, 0.05, 1 / 3, 0.5)


@partial(jax.jit, static_argnums=0)
def compiled(op, pixels, *arguments):
    return to_pixels(op(to_lines(pixels), *arguments))


def run(op, pixels, *arguments):
    return np.asarray(compiled(op, pixels, *arguments))


def luma(pixels):
    return pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])


def blend(pixels, base, factor):
    return np.clip(factor * pixels.astype(np.float64) + (1 - factor) * base, 0, 1)


BASES = {
    "brightness": lambda pixels: 0.0,
    "contrast": lambda pixels: luma(pixels).mean(),
    "saturation": lambda pixels: luma(pixels)[..., None],
}


def by_colorsys(pixels, turn):
    out = np.empty(pixels.shape)
    for at in np.ndindex(pixels.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixels[at].astype(float))
        out[at] = colorsys.hsv_to_rgb((hue + turn) % 1.0, saturation, value)
    return out


by_dm_pix = jax.jit(dm_pix.adjust_hue)


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("op", BASES)
def test_blends_equal_their_formula_in_float64(op, name):
    for factor in FACTORS:
        mine = run(getattr(colour, f"adjust_{op}"), PICTURES[name], factor)
        np.testing.assert_allclose(mine, blend(PICTURES[name], BASES[op](PICTURES[name]), factor), atol=2e-6)


@pytest.mark.parametrize("name", PICTURES)
def test_hue_equals_colorsys_and_dm_pix(name):
    for turn in TURNS:
        mine = run(colour.adjust_hue, PICTURES[name], turn)
        np.testing.assert_allclose(mine, by_colorsys(PICTURES[name], turn), atol=5e-6)
        np.testing.assert_allclose(mine, by_dm_pix(PICTURES[name], turn), atol=5e-6)


@pytest.mark.parametrize("op", [*BASES, "hue"])
def test_equals_torchvision_on_float_tensors(torchvision, op):
    import torch

    reference = getattr(torchvision.transforms.functional, f"adjust_{op}")
    for name, pixels in PICTURES.items():
        for amount in TURNS if op == "hue" else FACTORS:
            theirs = reference(torch.tensor(pixels).permute(2, 0, 1), amount).permute(1, 2, 0).numpy()
            mine = run(getattr(colour, f"adjust_{op}"), pixels, amount)
            # their grey weighs .2989, .587, .114, which sum to .9999
            np.testing.assert_allclose(mine, theirs, atol=2e-4, err_msg=f"{name} {amount}")


@pytest.mark.parametrize(
    "op, enhance", [("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")]
)
def test_within_two_levels_of_pil(op, enhance):
    for name, pixels in PICTURES.items():
        image = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
        for factor in FACTORS:
            theirs = np.asarray(getattr(ImageEnhance, enhance)(image).enhance(factor), np.float32)
            mine = 255 * run(getattr(colour, f"adjust_{op}"), pixels, factor)
            assert np.abs(mine - theirs).max() <= 2.0, (name, factor)


def test_greyscale_within_one_level_of_pil():
    for name, pixels in PICTURES.items():
        theirs = np.asarray(Image.fromarray(np.round(255 * pixels).astype(np.uint8)).convert("L"), np.float32)
        mine = 255 * run(colour.greyscale, pixels)
        assert np.abs(mine - theirs[..., None]).max() <= 1.0, name
        assert (np.ptp(mine, axis=-1) == 0).all()


def test_solarize_equals_its_law(torchvision):
    for pixels in PICTURES.values():
        for threshold in (0.0, 0.5, 1.0):
            mine = run(colour.solarize, pixels, threshold)
            np.testing.assert_array_equal(mine, np.where(pixels >= np.float32(threshold), 1 - pixels, pixels))
        image = Image.fromarray(np.round(255 * pixels).astype(np.uint8))
        theirs = np.asarray(torchvision.transforms.functional.solarize(image, 128), np.float32) / 255
        np.testing.assert_allclose(run(colour.solarize, pixels, 0.5), theirs, atol=1e-6)


def test_jitter_applies_the_four_in_the_order_given():
    pixels, factors = PICTURES["noise"], np.array([1.4, 0.6, 1.3, 0.1], np.float32)
    steps = [lambda x, o=o, f=f: blend(x, BASES[o](x), f) for o, f in zip(BASES, factors, strict=False)]
    steps.append(lambda x: by_colorsys(x, float(factors[3])))
    made = {}
    for order in permutations(range(4)):
        expected = pixels
        for op in order:
            expected = steps[op](expected)
        made[order] = run(colour.jitter, pixels, factors, jnp.array(order))
        np.testing.assert_allclose(made[order], expected, atol=1e-5)
    assert np.abs(made[0, 1, 2, 3] - made[3, 2, 1, 0]).max() > 0.01  # the order matters, so a wrong one would show


def test_the_table_of_orders_is_every_order_once():
    assert sorted(map(tuple, colour.ORDERS)) == sorted(permutations(range(4)))
