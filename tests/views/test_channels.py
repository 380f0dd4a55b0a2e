import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage import color

from mi_contrast.core.errors import UserError
from mi_contrast.views import policies
from mi_contrast.views.augmentation import augment, draw_batch
from mi_contrast.views.resampling import to_pixels

SIZE = 16
SOURCES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (8, 2, 20, 24, 3), np.uint8))
KEYS = jax.random.split(jax.random.key(5), 8)
BY_SCIKIT_IMAGE = {"lab": color.rgb2lab, "ydbdr": color.rgb2ydbdr, "ycbcr": color.rgb2ycbcr, "rgb": lambda x: x}

RELEASED = {
    "lab": ((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)),
    "ydbdr": ((0.457, -0.082, -0.052), (0.500, 1.331, 1.333)),
    "ycbcr": ((116.151, 121.080, 132.342), (109.500, 111.855, 111.964)),
    "rgb": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def expected(pixels, split):
    """The split by scikit-image and the released constants, in double precision."""
    mean, std = RELEASED[split]
    made = (BY_SCIKIT_IMAGE[split](np.asarray(pixels, np.float64)) - mean) / std
    return {"first": made[..., :1], "second": made[..., 1:]}


@pytest.mark.parametrize("split", RELEASED)
def test_both_views_are_the_channels_of_one_crop(split):
    policy = policies.cmc(SIZE, split)
    views = policies.build(policy)
    made = jax.jit(views)(SOURCES, KEYS)
    draws = draw_batch(policy["both"], 0, KEYS, SOURCES[:, 0])
    crop = jax.vmap(lambda source, one: to_pixels(augment(policy["both"], SIZE, source, one, banded=False)))
    theirs = expected(jnp.clip(jax.jit(crop)(SOURCES[:, 0], draws), 0.0, 1.0), split)
    for name in views.names:
        assert made[name].shape == (8, *views.shapes[name]) and made[name].dtype == jnp.float32
        np.testing.assert_allclose(made[name], theirs[name], atol=3e-5)


@pytest.mark.parametrize("split", RELEASED)
def test_plain_channels_are_those_of_the_image(split):
    policy = policies.cmc(24, split)
    square = np.asarray(SOURCES[:, 0, :, 2:22])
    made = jax.jit(lambda x: policies.plain_channels(x, 20, split, policy["mean"], policy["std"]))
    theirs = expected(square / 255.0, split)
    for name, view in made(square).items():
        np.testing.assert_allclose(view, theirs[name], atol=3e-5)
        np.testing.assert_allclose(made(square / np.float32(255))[name], view, atol=3e-5)
    if split == "rgb":
        np.testing.assert_allclose(made(SOURCES[:, 0])["second"], theirs["second"], atol=1e-5)  # the centre square


def test_plain_channels_equal_the_views_of_a_policy_without_ops():
    policy = policies.cmc(20)
    policy["both"] = {"order": ()}
    square = SOURCES[:, :, :, :20]
    views = policies.build(policy)
    made = jax.jit(views)(square, KEYS)
    plain = jax.jit(lambda x: policies.plain_channels(x, 20, policy["split"], views.mean, views.std))(square[:, 0])
    for name in made:
        np.testing.assert_allclose(made[name], plain[name], atol=1e-5)


def test_other_ops_may_come_before_the_split():
    policy = policies.cmc(SIZE, "ydbdr")
    policy["both"] = {"crop": policies.crop_op(0.08), "grey": 1.0, "order": ("crop", "grey")}
    made = jax.jit(policies.build(policy))(SOURCES, KEYS)
    np.testing.assert_allclose(made["second"] * np.array([1.331, 1.333]) + np.array([-0.082, -0.052]), 0.0, atol=1e-5)
    assert np.std(made["first"]) > 0.1


def test_both_are_of_the_first_source():
    made = jax.jit(policies.build(policies.cmc(SIZE)))
    one, other = made(SOURCES, KEYS), made(SOURCES.at[:, 1].set(0), KEYS)
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_constants_of_ones_own():
    policy = policies.cmc(SIZE, "rgb", mean=(0.0,) * 3, std=(1.0,) * 3)
    views = policies.build(policy)
    assert views.channel_constants("first") == ((0.0,), (1.0,)) and views.channel_constants("second") == (
        (0.0, 0.0),
        (1.0, 1.0),
    )
    for view in jax.jit(views)(SOURCES, KEYS).values():
        assert np.min(view) >= -1e-6 and np.max(view) <= 1 + 1e-6


def test_an_unknown_space_is_named():
    with pytest.raises(UserError, match="did you mean 'lab'"):
        policies.cmc(SIZE, "lap")
