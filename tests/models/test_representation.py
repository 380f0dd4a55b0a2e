"""Representation.encode: preprocessing inside, evaluation mode, any batch, few programs, threads, devices."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core import division
from mi_contrast.core.errors import UserError
from mi_contrast.models import representation as module
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, from_tower, make_spec, preprocess
from tests import devices
from tests.models import twins

MODEL = dict(backbone="tiny", width=8, stem="small")
PIXELS = dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), size=16)
BYTES = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def made():
    return Representation(twins.random_variables(MODEL), make_spec(MODEL, **PIXELS))


@pytest.fixture(scope="module")
def expected(made):
    """The equation: backbone((x / 255 - mean) / std) with running statistics, image by image in one plain call."""
    x = (BYTES.astype(np.float64) / 255 - PIXELS["mean"]) / PIXELS["std"]
    return np.asarray(made.backbone.apply(made.variables, jnp.asarray(x, jnp.float32), False))


@pytest.mark.parametrize("batch", [1, 3, 64, 255, 256, 257, 300])
def test_any_batch_has_each_images_own_features(made, expected, batch):
    found = made.encode(BYTES[:batch])
    assert isinstance(found, jax.Array) and found.shape == (batch, made.dim) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected[:batch], atol=1e-5)


def test_bytes_and_floats_and_device_arrays_agree(made, expected):
    for images in (BYTES / np.float32(255), jnp.asarray(BYTES), jnp.asarray(BYTES / np.float32(255))):
        np.testing.assert_allclose(made.encode(images[:65]), expected[:65], atol=1e-5)
    half = jnp.asarray(BYTES[:4] / np.float32(255), jnp.bfloat16)
    np.testing.assert_allclose(made.encode(half), expected[:4], atol=0.05)


def test_the_usual_batch_has_one_program_for_any_weights(made):
    made.encode(BYTES[:256])
    before = module._features._cache_size()
    other = Representation(twins.random_variables(MODEL, seed=9), make_spec(MODEL, **PIXELS))
    np.testing.assert_array_equal(made.encode(BYTES[:256]), made.encode(BYTES[:256]))
    assert np.abs(other.encode(BYTES[:256]) - made.encode(BYTES[:256])).max() > 0.01
    made.encode(BYTES)
    assert module._features._cache_size() == before
    made.encode(BYTES[:8, :12, :12])
    assert module._features._cache_size() > before, "another shape is another program"


def test_threads_get_their_own_answers(made, expected):
    slices = [slice(i, i + 64) for i in range(0, 192, 16)]
    with ThreadPoolExecutor(4) as threads:
        for part, found in zip(slices, threads.map(lambda s: np.asarray(made.encode(BYTES[s])), slices), strict=True):
            np.testing.assert_allclose(found, expected[part], atol=1e-5)


def test_any_leaf_may_be_traced(made):
    leaves, structure = jax.tree.flatten(made.variables)

    def total(leaf):
        changed = jax.tree.unflatten(structure, [*leaves[:3], leaf, *leaves[4:]])
        return Representation(changed, made.spec).encode(BYTES[:5]).sum()

    assert np.isfinite(jax.grad(total)(jnp.asarray(leaves[3]))).all()


def test_it_is_frozen(made):
    with pytest.raises(AttributeError):
        made.variables = {}


def test_a_towers_backbone_is_taken_without_its_head():
    tower = towers.build(MODEL | {"head": dict(kind="mlp", dim=5)})
    variables = tower.init(jax.random.key(0), (16, 16, 3))
    found = from_tower(variables, MODEL | {"head": dict(kind="mlp", dim=5)}, **PIXELS)
    assert "head" not in found.spec["model"] and set(found.variables["params"]) == {
        "conv1",
        "bn1",
        "conv2",
        "bn2",
        "conv3",
        "bn3",
    }
    x = jnp.asarray((BYTES[:8] / 255 - np.array(PIXELS["mean"])) / PIXELS["std"], jnp.float32)
    expected = jax.jit(lambda v: tower.encode(v, x, train=False).features)(variables)
    np.testing.assert_allclose(found.encode(BYTES[:8]), expected, atol=1e-5)


SPLIT = MODEL | {"split": "lab"}
LAB = dict(mean=(50, 6.025, -6.6895), std=(50, 92.208, 101.1675), size=16)


def test_a_split_puts_both_networks_features_side_by_side():
    """scikit-image's Lab, normalised; channel 0 through the first backbone, 1 and 2 through the second."""
    color = pytest.importorskip("skimage.color")
    found = Representation(twins.random_variables(SPLIT), make_spec(SPLIT, **LAB))
    assert found.dim == 16 and found.spec["split"] == "lab"
    x = jnp.asarray((color.rgb2lab(BYTES[:65]) - LAB["mean"]) / LAB["std"], jnp.float32)

    @jax.jit
    def alone(x, view):
        return found.backbone.apply(view, x, False)

    views = [{name: tree[view] for name, tree in found.variables.items()} for view in ("first", "second")]
    expected = np.concatenate([alone(x[..., :1], views[0]), alone(x[..., 1:], views[1])], axis=1)
    for images in (BYTES[:65], BYTES[:65] / np.float32(255), jnp.asarray(BYTES[:65])):
        np.testing.assert_allclose(found.encode(images), expected, atol=1e-4)
    as_rgb = Representation(found.variables, make_spec(MODEL | {"split": "rgb"}, **LAB))
    assert np.abs(as_rgb.encode(BYTES[:65]) - expected).max() > 0.1, "the space counts"


def test_both_backbones_of_a_split_are_taken_with_the_statistics_of_one_pass():
    """Untrained, with the statistics of a batch: what training sees of that batch, but for the unbiased variance."""
    tower = towers.build(SPLIT)
    x = preprocess(BYTES[:64], division.parse("lab"), LAB["mean"], LAB["std"])
    born = tower.init(jax.random.key(0), (16, 16, 3))
    variables = towers.calibrate_statistics(tower, born, x)
    found = from_tower(variables, SPLIT, **LAB)
    assert set(found.variables["params"]) == {"first", "second"}
    assert not {"head", "predictor", "jigsaw"} & set(found.spec["model"])

    @jax.jit
    def in_training(x):
        seen = (("first", x[..., :1]), ("second", x[..., 1:]))
        return jnp.concatenate([tower.encode(born, y, train=True, view=view).features for view, y in seen], axis=1)

    as_trained = in_training(x)
    np.testing.assert_allclose(found.encode(BYTES[:64]), as_trained, atol=0.05)
    assert np.abs(from_tower(born, SPLIT, **LAB).encode(BYTES[:64]) - as_trained).max() > 0.2


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (BYTES[0], "images of shape"),
        (BYTES[:0], "images of shape"),
        (BYTES[:2].transpose(0, 3, 1, 2), "images of shape"),
        (BYTES[:2].astype(np.int32), "dtype int32"),
        (BYTES[:2].astype(np.float32), "range from 0 to 255"),
        (BYTES[:2] / 255 - 0.5, "range from -0.5"),
        (jnp.full((2, 16, 16, 3), jnp.nan), "range from nan"),
    ],
)
def test_mistakes_are_named(made, images, message):
    with pytest.raises(UserError, match=message):
        made.encode(images)


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.2,) * 3), ((0.5,) * 3, (0.2, 0.0, 0.2))])
def test_pixels_are_three_numbers_with_deviations_above_0(mean, std):
    with pytest.raises(UserError, match="three numbers"):
        make_spec(MODEL, mean=mean, std=std, size=16)


ON_EIGHT = """
import jax, numpy as np
from mi_contrast.core.mesh import make_mesh, replicated
from mi_contrast.models.representation import Representation, make_spec
from tests.models.test_representation import BYTES, MODEL, PIXELS
from tests.models import twins
variables = twins.random_variables(MODEL)
alone = Representation(variables, make_spec(MODEL, **PIXELS))
spread = Representation(jax.device_put(variables, replicated(make_mesh())), alone.spec)
for batch in (1, 64, 300):
    found = spread.encode(BYTES[:batch])
    assert len(found.sharding.device_set) == 8 and found.is_fully_replicated
    np.testing.assert_allclose(found, alone.encode(BYTES[:batch]), atol=1e-5)
print("equal")
"""


@pytest.mark.slow
def test_eight_devices_share_a_batch():
    command, environment = [sys.executable, "-c", ON_EIGHT], devices.environment(8)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "equal", done.stderr[-2000:]


@pytest.mark.parametrize("split", [None, "lab"])
def test_the_map_is_what_the_pooled_features_are_the_mean_of(split):
    model = dict(MODEL, split=split)
    found = Representation(twins.random_variables(model), make_spec(model, **PIXELS))
    images = BYTES[:5]
    mapped = np.asarray(found.encode(images, layer="map")).reshape(5, 2, 2, -1)
    pooled = np.asarray(found.encode(images))
    np.testing.assert_allclose(mapped.mean(axis=(1, 2)), pooled, atol=1e-6)
    assert mapped.std(axis=(1, 2)).min() >= 0 and np.abs(mapped - pooled[:, None, None]).max() > 0.01


def test_an_unknown_layer_is_named(made):
    with pytest.raises(UserError, match="unknown layer 'pool'; did you mean 'pooled'"):
        made.encode(BYTES[:2], layer="pool")
