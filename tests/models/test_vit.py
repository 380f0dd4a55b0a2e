"""The transformer against timm's: features, tokens, gradients, positions; and what of it learns."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.models import towers, vit
from mi_contrast.models.description import resolve
from tests.models import twins

SMALL = dict(backbone="vit_tiny", width=8, depth=2, patch=4)  # 3 heads of 8 channels


def by_hand(rows, columns, dim):
    """The positions in float64, number by number."""
    found = np.zeros((rows * columns, dim))
    for r in range(rows):
        for c in range(columns):
            for i in range(dim // 4):
                wave = 10000.0 ** (-i / (dim // 4))
                four = (math.sin(r * wave), math.cos(r * wave), math.sin(c * wave), math.cos(c * wave))
                for part, value in enumerate(four):
                    found[r * columns + c, part * (dim // 4) + i] = value
    return found


@pytest.mark.parametrize("shape", [(8, 8, 24), (2, 5, 384), (14, 14, 192)])
def test_fixed_positions_are_the_formulas(shape):
    np.testing.assert_allclose(vit.sine_cosine(*shape), by_hand(*shape), atol=2e-6)
    assert not np.any(vit.fixed_positions(3, 8)[0, 0]) and vit.fixed_positions(3, 8).shape == (1, 10, 8)


def features(model, variables, x, pooled=True):
    ours = towers.build_backbone(resolve(model))
    return np.asarray(jax.jit(lambda v: ours.apply(v, x, False, pooled))(variables))


def test_features_tokens_and_gradients_are_timms():
    """Fixed positions, 32 px by 4; every gradient too, the patch embedding's among them: the tower holds it."""
    net = twins.timm_vit(32, 4, 24, 2, 3)
    import torch

    variables, x = twins.random_variables(SMALL), twins.images(3, 32)
    twins.put_in_timm(net, variables["params"], vit.fixed_positions(8, 24))
    ours = towers.build_backbone(resolve(SMALL))
    target = np.random.default_rng(5).normal(size=(3, 24)).astype(np.float32)
    theirs = net(twins.to_torch(x))
    tokens = net.forward_features(twins.to_torch(x))[:, 1:].detach().numpy().reshape(3, 8, 8, 24)
    (theirs * torch.from_numpy(target)).sum().backward()

    @jax.jit
    def both(params):
        def loss(params):
            found = ours.apply({"params": params, "batch_stats": {}}, x, True)
            return jnp.sum(found * target), found

        return *jax.grad(loss, has_aux=True)(params), ours.apply({"params": params}, x, False, False)

    gradient, found, map_ = both(variables["params"])
    np.testing.assert_allclose(found, theirs.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(map_, tokens, atol=1e-5)
    for name, parameter in net.named_parameters():
        if name != "pos_embed":
            scale = float(parameter.grad.abs().max())
            own = twins.of_timm(gradient, name)
            np.testing.assert_allclose(own / scale, parameter.grad.numpy() / scale, atol=1e-4, err_msg=name)


def test_learned_positions_are_resized_as_timm_resizes_them():
    net = twins.timm_vit(32, 4, 24, 1, 3, dynamic_img_size=True)
    import torch

    model = SMALL | dict(depth=1, positions=dict(kind="learned", grid=8))
    variables = twins.random_variables(model)
    twins.put_in_timm(net, variables["params"])
    for side in (32, 48, 20):
        x = twins.images(2, side)
        with torch.no_grad():
            theirs = net(twins.to_torch(x)).numpy()
        np.testing.assert_allclose(features(model, variables, x), theirs, atol=2e-5)


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("model", "side"), [(dict(backbone="vit_small"), 224), (dict(backbone="vit_tiny"), 32)], ids=["S/16", "tiny/4"]
)
def test_whole_networks_are_timms_and_another_is_not(model, side):
    """Two images, 1e-4, on weights at random; negative control: q and k of one block of twelve exchanged."""
    described = resolve(model)
    patch, dim = described["patch"], described["width"] * described["heads"]
    net = twins.timm_vit(side, patch, dim, 12, described["heads"])
    import torch

    variables, x = twins.random_variables(model), twins.images(2, side)
    twins.put_in_timm(net, variables["params"], vit.fixed_positions(side // patch, dim))
    with torch.no_grad():
        theirs = net(twins.to_torch(x)).numpy()
    ours = features(model, variables, x)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
    of_block = variables["params"]["blocks"]["7"]["attn"]["qkv"]
    q, k, v = np.split(of_block["kernel"], 3, axis=1)
    of_block["kernel"] = np.concatenate([k, q, v], axis=1)
    assert np.abs(features(model, variables, x) - theirs).max() > 1e-3


def test_first_weights_are_moco_v3s():
    params = towers.build(SMALL | dict(width=64, depth=1)).init(jax.random.key(0), (16, 16, 3))["params"]["backbone"]
    block = params["blocks"]["0"]
    for kernel, bound in (
        (params["patch_embed"]["proj"]["kernel"], math.sqrt(6 / (3 * 16 + 192))),
        (block["attn"]["qkv"]["kernel"], math.sqrt(6 / (2 * 192))),
        (block["attn"]["proj"]["kernel"], math.sqrt(6 / (2 * 192))),
        (block["mlp"]["fc1"]["kernel"], math.sqrt(6 / (5 * 192))),
    ):
        assert 0.98 * bound < np.abs(kernel).max() <= bound
        assert np.std(kernel) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert np.abs(params["cls_token"]).max() < 1e-5
    assert all(not np.any(x) for p, x in jax.tree_util.tree_leaves_with_path(params) if p[-1].key == "bias")


@pytest.mark.nightly
def test_bfloat16_and_remat_compute_the_same_more_or_less():
    variables, x = twins.random_variables(SMALL), twins.images(4, 16)
    plain = features(SMALL, variables, x)
    found = features(SMALL | dict(dtype="bfloat16"), variables, x)
    assert found.dtype == np.float32 and 0 < np.abs(found - plain).max() < 0.05 * np.abs(plain).max()
    gradients = []
    for remat in (False, True):
        ours = towers.build_backbone(resolve(SMALL | dict(remat=remat)))
        loss = lambda p, ours=ours: jnp.sum(jnp.sin(ours.apply({"params": p}, x, True)))  # noqa: E731
        gradients.append(jax.jit(jax.grad(loss))(variables["params"]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4), *gradients)


@pytest.mark.parametrize("split", [None, "lab"])
def test_the_patch_embedding_is_held_unless_asked(split):
    """No gradient reaches it, and `trainable_mask` is False for it alone. It has one with patch_embed='trained'."""
    model = SMALL | dict(depth=1, split=split, head=dict(kind="linear", dim=4))
    view, channels = (None, 3) if split is None else ("second", 2)
    x, seen = twins.images(2, 8)[..., :channels], {}
    for word in ("frozen", "trained"):
        tower = towers.build(model | dict(patch_embed=word))
        variables = jax.jit(lambda t=tower: t.init(jax.random.key(0), (8, 8, 3)))()

        def loss(params, tower=tower, variables=variables):
            encoded = tower.encode({**variables, "params": params}, x, train=True, view=view)
            assert not jax.tree.leaves(encoded.batch_stats)
            return jnp.sum(encoded.features + encoded.embedding.sum())

        gradient = jax.jit(jax.grad(loss))(variables["params"])["backbone"]
        gradient = gradient if view is None else gradient[view]
        learns = tower.trainable_mask(variables["params"])
        seen[word] = gradient["patch_embed"]["proj"]
        assert np.any(gradient["cls_token"]) and np.any(gradient["blocks"]["0"]["mlp"]["fc2"]["kernel"])
        still = ["patch_embed" in jax.tree_util.keystr(p) for p, moves in flat(learns) if not moves]
        assert still == ([True] * (2 if view is None else 4) if word == "frozen" else [])
    assert not any(np.any(x) for x in jax.tree.leaves(seen["frozen"]))
    assert all(np.any(x) for x in jax.tree.leaves(seen["trained"]))


def flat(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


def test_its_words_are_checked_and_filled_in():
    assert resolve(dict(backbone="vit_small"))["patch"] == 16 and resolve(dict(backbone="vit_tiny"))["patch"] == 4
    found = resolve(dict(backbone="vit_small", stem="small"))
    assert (found["patch"], found["depth"], found["heads"], found["positions"]) == (4, 12, 6, {"kind": "sincos"})
    assert resolve(found) == found and resolve(dict(backbone="tiny"))["patch"] is None
    assert towers.build_backbone(resolve(dict(backbone="vit_base"))).dim == 768


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (dict(backbone="resnet18", patch=4), "resnet18 has no patch; set model.patch=None, or take: vit_tiny"),
        (dict(backbone="tiny", positions=dict(kind="sincos")), "tiny has no positions"),
        (dict(backbone="vit_smal"), "did you mean 'vit_small'"),
        (dict(backbone="vit_small", depth=0), "config.model.depth is 0"),
        (dict(backbone="vit_small", width=3, heads=2), "2 heads of config.model.width 3"),
        (dict(backbone="vit_small", positions=dict(kind="sincos", grid=8)), "kind 'sincos' has no grid"),
        (dict(backbone="vit_small", patch_embed="train"), "did you mean 'trained'"),
        (dict(backbone="vit_small", dept=3), "did you mean 'depth'"),
    ],
)
def test_mistakes_are_named(model, said):
    with pytest.raises(UserError) as caught:
        resolve(model)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_images_that_cannot_be_cut_are_refused():
    tower = towers.build(SMALL)
    with pytest.raises(UserError, match="images of 30 x 32 pixels can't be cut into patches of 4"):
        tower.init(jax.random.key(0), (30, 32, 3))
