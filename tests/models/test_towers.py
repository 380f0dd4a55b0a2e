"""Towers: what encode returns, statistics from one pass, and every mistake in a description named."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from mi_contrast.core.errors import UserError
from mi_contrast.models import towers
from mi_contrast.models.convolution import convolve_direct
from mi_contrast.models.description import resolve
from tests.models import twins

TINY = dict(backbone="tiny", width=16, head=dict(kind="mlp", hidden=24, dim=8))
X = twins.images(6, 16) * 3 + 1


@partial(jax.jit, static_argnames=("tower", "train"))
def encode(tower, variables, *, train, rng=None):
    return tower.encode(variables, X, train=train, rng=rng)


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
    trained = encode(tower, variables, train=True, rng=jax.random.key(0))
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


FULL = TINY | dict(predictor=dict(hidden=12), jigsaw=dict(dim=5))
SPLIT = TINY | dict(head=dict(kind="mlp_bn", dim=8), split="lab")
PATCHES = np.random.default_rng(2).normal(size=(6, 9, 8, 8, 3)).astype(np.float32)


@partial(jax.jit, static_argnames=("tower", "train", "view"))
def apply(tower, variables, images, *, train=True, view=None):
    return tower.encode(variables, images, train=train, view=view)


@pytest.fixture(scope="module")
def full():
    tower = towers.build(FULL)
    return tower, tower.init(jax.random.key(0), (16, 16, 3))


def test_the_prediction_is_the_predictors_of_the_head(full, tower, variables):
    """Against the equation in float64: Linear, batch norm by its own batch, ReLU, Linear, unit length."""
    whole, made = full
    encoded = apply(whole, made, X)
    plain = encode(tower, variables, train=True)
    np.testing.assert_allclose(encoded.embedding, plain.embedding, atol=1e-6)
    np.testing.assert_array_equal(plain.prediction, plain.embedding)
    head, predictor = (jax.tree.map(np.float64, made["params"][part]) for part in ("head", "predictor"))
    h = np.float64(encoded.features) @ head["0"]["kernel"] + head["0"]["bias"]
    h = np.maximum(h, 0) @ head["2"]["kernel"] + head["2"]["bias"]
    hidden = h @ predictor["0"]["kernel"]
    y = np.maximum((hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5), 0) @ predictor["3"]["kernel"]
    np.testing.assert_allclose(encoded.prediction, y / np.linalg.norm(y, axis=1, keepdims=True), atol=2e-4)
    moved = encoded.batch_stats["predictor"]["1"]
    np.testing.assert_allclose(moved["mean"], 0.1 * hidden.mean(0), atol=1e-5)
    np.testing.assert_allclose(moved["var"], 0.9 + 0.1 * hidden.var(0, ddof=1), atol=1e-5)


def test_further_parts_leave_the_others_as_they_were_born(full, variables):
    whole, made = full
    of_head = jax.random.split(jax.random.key(0))[1]  # a seed's networks stay what they were before there were parts
    by_hand = jax.jit(lambda key: whole.head.init(key, jnp.zeros((1, 16)), False))(of_head)["params"]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), by_hand, made["params"]["head"])
    assert set(made["params"]) == set(made["batch_stats"]) == {"backbone", "head", "predictor", "jigsaw"}
    for part in ("backbone", "head"):
        jax.tree.map(np.testing.assert_array_equal, made["params"][part], variables["params"][part])
    assert made["params"]["jigsaw"]["patch"]["0"]["kernel"].shape == (16, 5)
    assert made["params"]["jigsaw"]["joint"]["kernel"].shape == (45, 8)


@pytest.mark.slow
def test_a_second_head_has_a_space_of_its_own_and_changes_nothing_else(tower, variables):
    """Against the equation in float64; its gradient reaches the backbone and itself, and no other part."""
    two = towers.build(TINY | dict(twin=dict(kind="mlp_bn", hidden=12, dim=5)))
    made = two.init(jax.random.key(0), (16, 16, 3))
    assert set(made["params"]) == set(made["batch_stats"]) == {"backbone", "head", "twin"}
    for part in ("backbone", "head"):
        jax.tree.map(np.testing.assert_array_equal, made["params"][part], variables["params"][part])
    found, plain = apply(two, made, X), encode(tower, variables, train=True)
    assert plain.twin is None and found.twin.shape == (6, 5)
    np.testing.assert_allclose(found.embedding, plain.embedding, atol=1e-6)
    head = jax.tree.map(np.float64, made["params"]["twin"])
    h = np.float64(found.features) @ head["0"]["kernel"]
    h = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5), 0) @ head["3"]["kernel"]
    h = (h - h.mean(0)) / np.sqrt(h.var(0) + 1e-5)
    np.testing.assert_allclose(found.twin, h / np.linalg.norm(h, axis=1, keepdims=True), atol=2e-3)

    @jax.jit
    def slope(params):
        return jax.grad(lambda p: two.encode(made | {"params": p}, X, train=True).twin[:, 0].sum())(params)

    reached = {
        part: max(float(jnp.abs(x).max()) for x in jax.tree.leaves(g)) for part, g in slope(made["params"]).items()
    }
    assert reached["head"] == 0 and reached["twin"] > 0 and reached["backbone"] > 0
    settled = towers.calibrate_statistics(two, made, X)
    assert (settled["batch_stats"]["twin"]["1"]["mean"] != 0).any()
    with pytest.raises(UserError, match="did you mean 'mlp_bn'"):
        towers.build(TINY | dict(twin=dict(kind="mlp_bm")))
    with pytest.raises(UserError, match="twin is 64; give None or dict"):
        towers.build(TINY | dict(twin=64))
    for other in (dict(split="lab"), dict(jigsaw=dict(dim=5))):
        with pytest.raises(UserError, match=f"twins and {next(iter(other))}"):
            towers.build(TINY | dict(twin=dict(kind="mlp")) | other)
    assert resolve(TINY)["twin"] is None


def test_patches_pass_the_backbone_as_one_batch_and_in_order(full):
    whole, made = full
    expected = [apply(whole, made, PATCHES[:, n], train=False).features for n in range(9)]
    found = apply(whole, made, PATCHES, train=False)
    np.testing.assert_allclose(found.features, np.mean(expected, axis=0), atol=1e-5)
    params = made["params"]["jigsaw"]
    each = [f @ params["patch"]["0"]["kernel"] + params["patch"]["0"]["bias"] for f in expected]
    raw = np.concatenate(each, axis=1) @ params["joint"]["kernel"] + params["joint"]["bias"]
    np.testing.assert_allclose(found.embedding, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-5)
    trained = apply(whole, made, PATCHES)
    as_images = apply(whole, made, PATCHES.reshape(54, 8, 8, 3))
    jax.tree.map(
        partial(np.testing.assert_allclose, atol=1e-6),
        trained.batch_stats["backbone"],
        as_images.batch_stats["backbone"],
    )
    np.testing.assert_allclose(
        trained.features, np.reshape(as_images.features, (6, 9, 16)).mean(1), atol=1e-5
    )  # one batch of 54


def test_the_order_of_two_passes_is_the_order_of_their_statistics(full):
    """By hand: each pass moves a tenth of the way from what the one before left."""
    whole, made = full

    def passes(*batches):
        statistics = made["batch_stats"]
        for images in batches:
            statistics = apply(whole, {"params": made["params"], "batch_stats": statistics}, images).batch_stats
        return statistics["backbone"]["bn1"]["mean"]

    of_crop, of_patches = (10 * passes(images) for images in (X, PATCHES))  # moved from 0
    np.testing.assert_allclose(passes(X, PATCHES), 0.9 * 0.1 * of_crop + 0.1 * of_patches, atol=1e-6)
    np.testing.assert_allclose(passes(PATCHES, X), 0.9 * 0.1 * of_patches + 0.1 * of_crop, atol=1e-6)
    assert float(jnp.abs(passes(X, PATCHES) - passes(PATCHES, X)).max()) > 1e-3


@pytest.fixture(scope="module")
def split():
    tower = towers.build(SPLIT)
    return tower, tower.init(jax.random.key(3), (16, 16, 3))


def of_view(variables, view):
    return {name: {part: tree[view] for part, tree in variables[name].items()} for name in variables}


@pytest.mark.parametrize(("view", "other", "channels"), [("first", "second", [0]), ("second", "first", [1, 2])])
def test_a_split_is_two_single_towers(split, view, other, channels):
    tower, made = split
    single = towers.build(SPLIT | dict(split=None))
    assert single.views == (None,) and tower.views == ("first", "second")
    assert made["params"]["backbone"][view]["conv1"]["kernel"].shape == (3, 3, len(channels), 4)
    for train in (True, False):
        found = apply(tower, made, X[..., channels], train=train, view=view)
        expected = apply(single, of_view(made, view), X[..., channels], train=train)
        for name in ("features", "embedding", "prediction"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-6)
        kept = {part: tree[other] for part, tree in found.batch_stats.items()}
        moved = {part: tree[view] for part, tree in found.batch_stats.items()}
        jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), moved, expected.batch_stats)
        jax.tree.map(np.testing.assert_array_equal, kept, of_view(made, other)["batch_stats"])
    assert jax.tree.structure(found.batch_stats) == jax.tree.structure(made["batch_stats"])


def test_calls_of_a_split_are_threaded_one_after_another(split):
    tower, made = split
    first = apply(tower, made, X[..., :1], view="first").batch_stats
    second = apply(tower, made | {"batch_stats": first}, X[..., 1:], view="second").batch_stats
    for part in ("backbone", "head"):
        jax.tree.map(np.testing.assert_array_equal, second[part]["first"], first[part]["first"])
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), second[part], made["batch_stats"][part])
        assert min(jax.tree.leaves(moved)) > 0


def test_the_two_networks_of_a_split_are_born_apart(split):
    _, made = split
    first, second = (made["params"]["head"][view]["0"]["kernel"] for view in ("first", "second"))
    assert first.shape == second.shape and float(jnp.abs(first - second).max()) > 0.1
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), {n: made[n]["backbone"] for n in made})
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), towers.template(SPLIT))


@pytest.mark.parametrize("norm", [dict(kind="batch", groups=3), dict(kind="frozen")])
def test_statistics_of_one_pass_reach_every_part(norm):
    """Both networks' backbones, heads and predictors: the last statistics are those of what enters them."""
    words = SPLIT | dict(predictor=dict(hidden=12), jigsaw=dict(dim=5))
    tower, whole = towers.build(words | dict(norm=norm)), towers.build(words)
    made = tower.init(jax.random.key(3), (16, 16, 3))
    calibrated = towers.calibrate_statistics(tower, made, X)
    jax.tree.map(np.testing.assert_array_equal, calibrated["params"], made["params"])
    for view, images in (("first", X[..., :1]), ("second", X[..., 1:])):
        given = {"params": made["params"], "batch_stats": jax.tree.map(jnp.zeros_like, made["batch_stats"])}
        tenth = of_view({"batch_stats": apply(whole, given, images, view=view).batch_stats}, view)["batch_stats"]
        found = of_view({"batch_stats": calibrated["batch_stats"]}, view)["batch_stats"]
        assert len(jax.tree.leaves(found)) == 2 * (3 + 2 + 1)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 10 * b, rtol=1e-4, atol=1e-5), found, tenth)


def test_groups_and_frozen_statistics_hold_for_the_heads_too():
    words = SPLIT | dict(predictor=dict(hidden=12), norm=dict(kind="batch", groups=3))
    tower = towers.build(words)
    assert tower.head.statistics == tower.predictor.statistics == tower.backbone.statistics
    assert tower.head.statistics.groups == 3
    frozen = towers.build(words | dict(norm=dict(kind="frozen")))
    assert frozen.head.statistics.frozen and frozen.predictor.statistics.frozen


def test_unit_of_zero_is_zero_with_a_finite_gradient():
    x = jnp.stack([jnp.zeros(3), jnp.array([3.0, 0.0, 4.0])])
    np.testing.assert_allclose(towers.normalise(x), [[0, 0, 0], [0.6, 0, 0.8]], atol=1e-7)
    assert bool(jnp.all(jnp.isfinite(jax.grad(lambda x: jnp.sum(towers.normalise(x) ** 3))(x))))


@pytest.mark.parametrize("norm", [dict(kind="batch", groups=3), dict(kind="frozen")])
def test_statistics_of_one_pass_make_evaluation_equal_training(norm, variables):
    """With the batch's own statistics, evaluation differs from training only by the unbiased variance."""
    tower = towers.build(TINY | {"norm": norm})
    calibrated = towers.calibrate_statistics(tower, variables, X)
    jax.tree.map(np.testing.assert_array_equal, calibrated["params"], variables["params"])
    whole = towers.build(TINY)
    trained, evaluated = (encode(whole, calibrated, train=train).features for train in (True, False))
    before = encode(whole, variables, train=False).features
    assert float(jnp.abs(evaluated - trained).max()) < 0.1 * float(jnp.abs(before - trained).max())
    conv = np.asarray(
        convolve_direct(jnp.asarray(X), variables["params"]["backbone"]["conv1"]["kernel"], 2), np.float64
    )
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
        predictor=None, twin=None, jigsaw=None, split=None,
        patch=None, depth=None, heads=None, positions=None, patch_embed=None,
    )  # fmt: skip
    words = TINY | dict(head=dict(kind="mlp_bn"), predictor={}, jigsaw={}, split="ycbcr")
    assert {n: v for n, v in resolve(words).items() if n in ("head", "predictor", "jigsaw", "split")} == dict(
        head=dict(kind="mlp_bn", layers=2, hidden=None, dim=128, last_bn=True),
        predictor=dict(hidden=None, layers=2), jigsaw=dict(kind="linear", dim=128), split="ycbcr",
    )  # fmt: skip
    assert resolve(resolve(words)) == resolve(words) == resolve(ConfigDict(words))
    assert towers.build(words | dict(predictor=dict(layers=2))).predictor.hidden == 16, "None is the features' width"
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
        (dict(head=dict(kind="mlp", layers=3)), "kind 'mlp' has no layers"),
        (dict(head=dict(kind="mlp_bn", layers=0)), "config.model.head.layers is 0"),
        (dict(head=dict(kind="mlp_bn", last_bn=1)), "config.model.head.last_bn is 1"),
        (dict(predictor=True), "config.model.predictor is True; give None or dict("),
        (dict(predictor=dict(layer=2)), "unknown field of config.model.predictor 'layer'; did you mean 'layers'"),
        (dict(predictor=dict(hidden=0)), "config.model.predictor.hidden is 0"),
        (dict(jigsaw=9), "config.model.jigsaw is 9; give None or dict(dim=128)"),
        (dict(jigsaw=dict(kind="mlp_bn")), "unknown config.model.jigsaw.kind 'mlp_bn'"),
        (dict(jigsaw=dict(hidden=5)), "config.model.jigsaw: kind 'linear' has no hidden"),
        (dict(split="laab"), "unknown config.model.split 'laab'; did you mean 'lab'"),
        (dict(split=True), "config.model.split is True; give a colour space, or dict(kind=...)"),
        (dict(split=dict(kind="band")), "unknown kind of config.model.split 'band'; did you mean 'bands'"),
        (dict(split=dict(kind="bands", space="rgb")), "config.model.split has no 'sigma'"),
        (dict(split=dict(kind="bands", space="rgb", sigma=0)), "config.model.split.sigma is 0; give a number"),
        (dict(split=dict(kind="generator", space="rgb", flow="affin", couplings=4, hidden=8)), "did you mean 'affine'"),
    ],
)
def test_mistakes_are_named(change, message):
    with pytest.raises(UserError) as caught:
        towers.build(TINY | change)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "shape", "view", "message"),
    [
        (TINY, (6, 16, 16, 3), "first", "unknown view of this tower 'first'"),
        (SPLIT, (6, 16, 16, 1), None, "unknown view of this tower None; one of: first, second"),
        (SPLIT, (6, 16, 16, 3), "first", "view 'first' has 1 channels"),
        (TINY, (6, 9, 8, 8, 3), None, "this tower takes [B, H, W, C]"),
        (FULL, (6, 4, 8, 8, 3), None, "or 9 patches of each, [B, 9, h, w, C]"),
    ],
)
def test_images_that_a_tower_does_not_take_are_refused(words, shape, view, message):
    with pytest.raises(UserError) as caught:
        towers.build(words).encode({}, jnp.zeros(shape), train=False, view=view)
    assert message in str(caught.value)


def test_a_description_without_a_backbone_is_refused():
    with pytest.raises(UserError, match="names no backbone"):
        towers.build(dict(width=8))


def test_patches_of_a_jigsaw_may_be_smaller_than_the_stem_is_made_for():
    tower = towers.build(TINY | dict(backbone="resnet18", stem="imagenet", jigsaw=dict(dim=5)))
    made = jax.eval_shape(lambda: tower.init(jax.random.key(0), (96, 96, 3)))
    encode = partial(tower.encode, train=True)
    patches = jax.ShapeDtypeStruct((2, 9, 32, 32, 3), jnp.float32)
    jax.eval_shape(encode, made, patches)  # warnings are errors here
    with pytest.warns(UserWarning, match="32 x 32 pixels meet the ImageNet stem"):
        jax.eval_shape(encode, made, jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32))
