"""ResNets against torchvision's on the same weights: features, running statistics, gradients."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.models import resnet, towers
from mi_contrast.models.description import resolve
from mi_contrast.models.normalisation import Statistics
from tests.models import twins

slow = pytest.mark.nightly
CASES = [
    ("resnet18", 8, "small", 32, 3),
    ("resnet18", 8, "imagenet", 70, 3),
    pytest.param("resnet18", 16, "imagenet", 96, 2, marks=slow),
    pytest.param("resnet18", 64, "imagenet", 224, 2, marks=slow),
    pytest.param("resnet18", 64, "small", 33, 2, marks=slow),
    pytest.param("resnet34", 64, "imagenet", 96, 2, marks=slow),
    pytest.param("resnet50", 8, "small", 32, 3, marks=slow),
    pytest.param("resnet50", 64, "imagenet", 128, 2, marks=slow),
]


DEPTH = {"resnet18": 20, "resnet34": 36, "resnet50": 53}  # convolutions one after another


def rounding(backbone, width):
    """Returns how far two float32 sums in other orders may lie apart, for values near 1, on any kind of processor.

    Errors of n terms grow as sqrt(n), those of layers one after another as the square root of their number.
    """
    terms = 9 * 8 * width  # of the widest 3 x 3 convolution
    return max(2e-5, float(np.finfo(np.float32).eps) * np.sqrt(terms * DEPTH[backbone]))


def described(backbone, width, stem, **more):
    return resolve(dict(backbone=backbone, width=width, stem=stem, **more))


@partial(jax.jit, static_argnums=(0, 3))
def forward(backbone, variables, x, train):
    return backbone.apply(variables, x, train, mutable=["batch_stats"])


@pytest.mark.parametrize(("backbone", "width", "stem", "side", "batch"), CASES)
def test_features_and_statistics_are_torchvisions(backbone, width, stem, side, batch):
    net = twins.twin(backbone, width, stem)
    import torch

    model = described(backbone, width, stem)
    variables = twins.random_variables(model)
    twins.put(net, variables)
    ours, x = towers.build_backbone(model), twins.images(batch, side)
    with torch.no_grad():
        evaluated = net.eval()(twins.to_torch(x)).numpy()
        trained = net.train()(twins.to_torch(x)).numpy()
    features, kept = forward(ours, variables, x, False)
    assert features.shape == (batch, ours.dim) and features.dtype == jnp.float32
    np.testing.assert_allclose(
        features / np.abs(evaluated).max(), evaluated / np.abs(evaluated).max(), atol=rounding(backbone, width)
    )
    jax.tree.map(np.testing.assert_array_equal, kept["batch_stats"], variables["batch_stats"])

    features, moved = forward(ours, variables, x, True)
    np.testing.assert_allclose(features / np.abs(trained).max(), trained / np.abs(trained).max(), atol=1e-3)
    twins.compare(net, {"params": variables["params"], **moved}, "statistics", atol=rounding(backbone, width))


def test_gradient_is_torchs():
    net = twins.twin("resnet18", 8, "small").train()
    import torch

    model = described("resnet18", 8, "small")
    variables = twins.random_variables(model, seed=3)
    twins.put(net, variables)
    ours, x = towers.build_backbone(model), twins.images(4, 16)
    target = np.random.default_rng(5).normal(size=(4, ours.dim)).astype(np.float32)

    @jax.jit
    def gradient(params):
        def loss(params):
            features, _ = ours.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
            return jnp.sum(features * target)

        return jax.grad(loss)(params)

    (net(twins.to_torch(x)) * torch.from_numpy(target)).sum().backward()
    found = gradient(variables["params"])
    count = twins.compare(net, {**variables, "params": found}, "gradients", atol=2e-3)
    assert count == len(jax.tree.leaves(found))


def test_remat_changes_no_number():
    x, rng = np.random.default_rng(0).normal(size=(4, 8, 8, 4)).astype(np.float32), jax.random.key(0)
    gradients = []
    for remat in (False, True):
        stage = resnet.Stage(resnet.BasicBlock, 2, 8, 2, Statistics(), jnp.float32, remat)
        variables = stage.init(rng, x, False)

        def loss(params, stage=stage, variables=variables):
            out, moved = stage.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
            return jnp.sum(out**2), moved

        gradient = jax.jit(jax.grad(loss, has_aux=True))
        gradients.append(gradient(variables["params"]))
        assert ("remat" in str(jax.make_jaxpr(gradient)(variables["params"]))) == remat
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), *gradients)


def test_bfloat16_is_close_and_keeps_float32_outside():
    model = described("resnet18", 8, "small")
    variables, x = twins.random_variables(model), twins.images(4, 32)
    wide, _ = forward(towers.build_backbone(model), variables, x, True)
    half = towers.build_backbone(described("resnet18", 8, "small", dtype="bfloat16"))
    narrow, moved = forward(half, variables, x, True)
    assert narrow.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(moved)} == {jnp.dtype("float32")}
    made = jax.eval_shape(lambda: half.init(jax.random.key(0), x, True))
    assert {leaf.dtype for leaf in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    error = float(jnp.linalg.norm(narrow - wide) / jnp.linalg.norm(wide))
    assert 1e-4 < error < 0.05, "computed in bfloat16, and close"


@pytest.mark.parametrize("side", [32, 64])
def test_small_images_with_the_imagenet_stem_warn(side):
    net = towers.build_backbone(described("resnet18", 4, "imagenet"))
    with pytest.warns(UserWarning, match=f"{side} x {side} pixels meet the ImageNet stem"):
        jax.eval_shape(lambda: net.init(jax.random.key(0), twins.images(1, side), False))


@pytest.mark.parametrize(("stem", "side"), [("imagenet", 65), ("small", 32)])
def test_others_dont_warn(stem, side):
    net = towers.build_backbone(described("resnet18", 4, stem))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jax.eval_shape(lambda: net.init(jax.random.key(0), twins.images(1, side), False))
