"""Towers: what encode returns, statistics from one pass, and every mistake in a description named."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mi_contrast.core.errors import UserError
from mi_contrast.models import towers
from mi_contrast.models.convolution import direct
from mi_contrast.models.description import resolve
from tests.models import twins

TINY = dict(backbone="tiny", width=16, head=dict(kind="mlp", hidden=24, dim=8))
X = twins.images(6, 16) * 3 + 1


@partial(jax.jit, static_argnames=("tower", "train"))
def encode(tower, variables, *, train, key=None):
    return tower.encode(variables, X, train=train, key=key)


@pytest.fixture(scope="module")
def tower():
    return towers.build(TINY)


@pytest.fixture(scope="module")
def variables(tower):
    return tower.init(jax.random.key(0), (16, 16, 3))


def test_a_tower_is_built_from_a_config_dict_too():
    assert towers.build(ConfigDict(TINY)) == towers.build(TINY)
    assert hash(towers.build(TINY)) == hash(towers.build(TINY))
    assert towers.build(TINY) != towers.build(TINY | {"width": 32})


def test_variables_have_the_parts_of_the_contract(variables):
    assert {name: set(parts) for name, parts in variables.items()} == {
        "params": {"backbone", "head"},
        "batch_stats": {"backbone", "head"},
    }
    assert variables["params"]["head"]["0"]["kernel"].shape == (16, 24)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), {n: variables[n]["backbone"] for n in variables})
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), towers.template(TINY))


def test_one_key_is_one_network(tower, variables):
    again, other = (tower.init(jax.random.key(seed), (16, 16, 3)) for seed in (0, 1))
    jax.tree.map(np.testing.assert_array_equal, variables, again)
    assert float(jnp.abs(variables["params"]["backbone"]["conv1"]["kernel"]
                         - other["params"]["backbone"]["conv1"]["kernel"]).max()) > 0.1  # fmt: skip


def test_encode_returns_features_unit_embeddings_and_statistics(tower, variables):
    trained = encode(tower, variables, train=True, key=jax.random.key(0))
    evaluated = encode(tower, variables, train=False)
    for encoded in (trained, evaluated):
        assert encoded.features.shape == (6, 16) and encoded.embedding.shape == (6, 8)
        assert encoded.features.dtype == encoded.embedding.dtype == jnp.float32
        np.testing.assert_allclose(np.linalg.norm(encoded.embedding, axis=1), 1, atol=1e-6)
        assert jax.tree.structure(encoded.batch_stats) == jax.tree.structure(variables["batch_stats"])
    jax.tree.map(np.testing.assert_array_equal, evaluated.batch_stats, variables["batch_stats"])
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), trained.batch_stats, variables["batch_stats"])
    assert min(jax.tree.leaves(moved)) > 0
    head, h = variables["params"]["head"], np.asarray(trained.features, np.float64)
    h = np.maximum(h @ head["0"]["kernel"] + head["0"]["bias"], 0) @ head["2"]["kernel"] + head["2"]["bias"]
    np.testing.assert_allclose(trained.embedding, h / np.linalg.norm(h, axis=1, keepdims=True), atol=1e-5)


def test_unit_of_zero_is_zero_with_a_finite_gradient():
    x = jnp.stack([jnp.zeros(3), jnp.array([3.0, 0.0, 4.0])])
    np.testing.assert_allclose(towers.unit(x), [[0, 0, 0], [0.6, 0, 0.8]], atol=1e-7)
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda x: jnp.sum(towers.unit(x) ** 3))(x))))


@pytest.mark.parametrize("norm", [dict(kind="batch", groups=3), dict(kind="frozen")])
def test_statistics_of_one_pass_make_evaluation_equal_training(norm, variables):
    """With the batch's own statistics, evaluation differs from training only by the unbiased variance."""
    tower = towers.build(TINY | {"norm": norm})
    calibrated = towers.with_statistics_of(tower, variables, X)
    jax.tree.map(np.testing.assert_array_equal, calibrated["params"], variables["params"])
    whole = towers.build(TINY)
    trained, evaluated = (encode(whole, calibrated, train=train).features for train in (True, False))
    before = encode(whole, variables, train=False).features
    assert float(jnp.abs(evaluated - trained).max()) < 0.1 * float(jnp.abs(before - trained).max())
    conv = np.asarray(direct(jnp.asarray(X), variables["params"]["backbone"]["conv1"]["kernel"], 2), np.float64)
    first = calibrated["batch_stats"]["backbone"]["bn1"]
    np.testing.assert_allclose(first["mean"], np.mean(conv, (0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(first["var"], np.var(conv, (0, 1, 2), ddof=1), rtol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "dim", "count"),
    [("resnet18", 512, 11_176_512), ("resnet34", 512, 21_284_672), ("resnet50", 2048, 23_508_032)],
)
def test_parameters_are_as_many_as_torchvisions(backbone, dim, count):
    """The published counts less the classifier's (dim + 1) x 1,000."""
    params = towers.template(dict(backbone=backbone))["params"]
    assert sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)) == count
    assert towers.build_backbone(resolve(dict(backbone=backbone))).dim == dim


def test_a_description_is_resolved_with_its_defaults():
    assert resolve(dict(backbone="resnet18")) == dict(
        backbone="resnet18", width=64, stem="imagenet", norm=dict(kind="batch", groups=1),
        head=dict(kind="linear", dim=128), dtype="float32", remat=False,
        predictor=None, jigsaw=None, split=None,
    )  # fmt: skip
    loose = dict(kind="linear", hidden=None, dim=4)
    assert resolve(TINY | {"head": loose, "norm": dict(kind="frozen", groups=1)})["norm"] == dict(kind="frozen")
    assert resolve(resolve(TINY)) == resolve(TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(backbone="resnet19"), "unknown config.model.backbone 'resnet19'; did you mean 'resnet18'"),
        (dict(backbone=["tiny"]), "unknown config.model.backbone"),
        (dict(wdith=8), "unknown field of config.model 'wdith'; did you mean 'width'"),
        (dict(width=0), "config.model.width is 0"),
        (dict(width=6), "width of tiny is 6"),
        (dict(width=True), "config.model.width is True"),
        (dict(stem="imagnet"), "did you mean 'imagenet'"),
        (dict(stem="imagenet"), "tiny has no stem 'imagenet'"),
        (dict(remat=True), "tiny has no remat True"),
        (dict(remat="yes"), "config.model.remat is 'yes'"),
        (dict(dtype="bfloat"), "did you mean 'bfloat16'"),
        (dict(norm="batch"), "config.model.norm is 'batch'"),
        (dict(norm=dict(kind="group")), "unknown config.model.norm.kind 'group'"),
        (dict(norm=dict(kind="batch", groups=0)), "config.model.norm.groups is 0"),
        (dict(norm=dict(kind="frozen", groups=4)), "kind 'frozen' has no groups"),
        (dict(head=dict(kind="linear", hidden=64)), "kind 'linear' has no hidden"),
        (dict(head=dict(kind="mlp", dim=1.5)), "config.model.head.dim is 1.5"),
        (dict(head=dict(kind="mlp", dims=5)), "did you mean 'dim'"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(UserError) as caught:
        towers.build(TINY | change)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_description_without_a_backbone_is_refused():
    with pytest.raises(UserError, match="names no backbone"):
        towers.build(dict(width=8))
