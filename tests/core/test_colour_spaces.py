import itertools

import jax
import numpy as np
import pytest
from skimage import color

from mi_contrast.core.colour import PRIMARIES, SPACES, rgb_to_lab

OTHERS = [name for name in SPACES if name != "rgb"]
CORNERS = np.array(list(itertools.product(np.linspace(0, 1, 6), repeat=3)), np.float32)
NEAR = np.array(list(itertools.product([0.0, 0.0404, 0.0405, 0.1], repeat=3)), np.float32)  # the knee of the sRGB curve
PIXELS = np.concatenate([CORNERS, NEAR, np.random.default_rng(0).random((2000, 3), np.float32)])[None]


def from_rgb(pixels):
    return {name: forth(pixels) for name, (forth, _) in SPACES.items()}


@pytest.mark.parametrize("name", OTHERS)
def test_equals_scikit_image_forth_and_back(name):
    forth, back = (jax.jit(way) for way in SPACES[name])
    theirs = getattr(color, f"rgb2{name}")(PIXELS.astype(np.float64))
    mine = np.asarray(forth(PIXELS))
    assert mine.dtype == np.float32
    np.testing.assert_allclose(mine, theirs, atol=1e-4, rtol=0)
    np.testing.assert_allclose(back(mine), PIXELS, atol=2e-5)
    returned = getattr(color, f"{name}2rgb")(theirs)
    np.testing.assert_allclose(back(theirs.astype(np.float32)), returned, atol=1e-5)


@pytest.mark.parametrize("name", OTHERS)
def test_channels_may_lie_on_another_axis(name):
    for way in SPACES[name]:
        lines = np.swapaxes(PIXELS[:, :40], -1, -2)
        here, there = jax.jit(lambda x, y, way=way: (way(x), way(y, -2)))(PIXELS[:, :40], lines)
        np.testing.assert_allclose(np.swapaxes(there, -1, -2), here, rtol=1e-6, atol=2e-5)


def test_every_space_has_constants_of_its_own():
    made = jax.tree.map(np.asarray, jax.jit(from_rgb)(PIXELS[:, -50:]))
    for one, other in itertools.combinations(made, 2):
        assert np.abs(made[one] - made[other]).max() > 1e-2, (one, other)


def test_lab_of_the_cube_spans_what_it_is_normalised_by():
    made = np.asarray(rgb_to_lab(np.array(list(itertools.product([0.0, 1.0], repeat=3)), np.float32)))
    np.testing.assert_allclose(made.min(0), [0.0, -86.183, -107.857], atol=2e-3)
    np.testing.assert_allclose(made.max(0), [100.0, 98.233, 94.478], atol=2e-3)


def test_slopes_are_finite_at_black_and_white():
    extremes = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [1.0, 0.0, 0.0]], np.float32)
    slopes = jax.jit(jax.jacrev(lambda x: {name: view.sum() for name, view in from_rgb(x).items()}))(extremes)
    for name, slope in slopes.items():
        assert np.isfinite(slope).all(), name


def test_grey_has_no_colour():
    grey = np.repeat(np.linspace(0, 1, 9, dtype=np.float32)[:, None], 3, 1)
    made = jax.jit(from_rgb)(grey)
    for name in (*PRIMARIES, "lab"):
        neutral = 128.0 if name == "ycbcr" else 0.0
        np.testing.assert_allclose(made[name][:, 1:], neutral, atol=6e-3, err_msg=name)
