"""Transformers in and out: timm's names and features in every format that holds them, timm's and MoCo v3's files."""

import jax
import numpy as np
import pytest
import safetensors.numpy

from mi_contrast.core.errors import UserError
from mi_contrast.interchange import convert, open_source, write_export
from mi_contrast.interchange.names import collect_tensors
from mi_contrast.models import vit
from mi_contrast.models.representation import Representation, make_spec
from tests.interchange.conftest import CONFIG
from tests.interchange.test_formats import by_torch, images, made, needs
from tests.models import twins

FIXED = dict(backbone="vit_tiny", width=8, depth=2)  # 3 heads, patches of 4
LEARNED = FIXED | dict(positions=dict(kind="learned", grid=8))
SIDE = dict(size=32)


@pytest.mark.parametrize(
    ("word", "model", "modules"),
    [
        ("native", FIXED, ()),
        ("torch", LEARNED, ("torchvision", "timm")),
        ("timm", FIXED, ("torchvision", "timm")),
        ("stablehlo", FIXED, ("flatbuffers",)),
        pytest.param("onnx", FIXED, ("torchvision", "timm", "onnxscript", "onnxruntime"), marks=pytest.mark.nightly),
    ],
)
def test_every_format_that_holds_one_gives_the_same_features(tmp_path, word, model, modules):
    needs(*modules)
    loaded = made(model, **SIDE)
    manifest = convert(loaded, word, tmp_path / word)
    found = manifest["parity"]
    assert found["max_difference"] <= 1e-5 * found["max_feature"] and found["max_feature"] > 0.01
    assert found["tool"].startswith({"native": "mi_contrast", "stablehlo": "jax", "onnx": "onnx"}.get(word, "timm"))
    assert manifest["names"] == ("timm" if word in ("native", "torch", "timm") else "none")
    if word in ("native", "torch", "timm"):
        assert manifest["tensors"]["pos_embed"]["shape"] == [1, 65, 24]
        again = open_source(tmp_path / word)
        assert again.representation.spec == loaded.representation.spec
        np.testing.assert_array_equal(again.representation.encode(images(24)), loaded.representation.encode(images(24)))


def test_what_a_training_leaves_loads_into_timm_strictly(tmp_path):
    net = twins.timm_vit(32, 4, 24, 2, 3)
    from safetensors.torch import load_file

    given = made(FIXED, **SIDE).representation
    write_export(tmp_path / "export", given, config=CONFIG, commit=None)
    net.load_state_dict(load_file(tmp_path / "export" / "backbone.safetensors"), strict=True)
    np.testing.assert_allclose(given.encode(images(32)), by_torch(net, images(32), given.spec), atol=1e-5)


def test_a_split_has_the_positions_of_both(tmp_path):
    given = made(FIXED | dict(depth=1, split="lab"), **SIDE).representation
    write_export(tmp_path / "export", given, config=CONFIG, commit=None)
    held = safetensors.numpy.load_file(tmp_path / "export" / "backbone.safetensors")
    assert {"first.pos_embed", "second.pos_embed"} <= set(held)
    again = open_source(tmp_path / "export").representation
    jax.tree.map(np.testing.assert_array_equal, again.variables, given.variables)


def saved(path, state):
    import torch

    torch.save({"state_dict": state}, path)
    return path


def test_the_names_of_a_whole_network_are_timms():
    """And the shapes: vit_small_patch16_224."""
    needs("torchvision", "timm")
    import timm
    import torch

    with torch.device("meta"):
        theirs = timm.create_model("vit_small_patch16_224", num_classes=0).state_dict()
    spec = make_spec(dict(backbone="vit_small"), mean=(0.5,) * 3, std=(0.5,) * 3, size=224)
    zeros = twins.random_variables(dict(backbone="vit_small"))
    ours = collect_tensors(Representation(zeros, spec))
    assert {n: tuple(t.shape) for n, t in theirs.items()} == {n: t.shape for n, t in ours.items()}


@pytest.mark.parametrize("side", [48, 64])
def test_a_file_of_timms_gives_timms_features(tmp_path, side):
    net = twins.timm_vit(48, 16, 192, 1, 3, dynamic_img_size=True)
    loaded = open_source(saved(tmp_path / "net.pth", net.state_dict() | {"head.weight": net.cls_token[0]}))
    spec = loaded.representation.spec
    assert spec["model"]["positions"] == {"kind": "learned", "grid": 3} and spec["size"] == 48
    said = (
        "taken for vit_tiny, 1 blocks of 3 heads of 64 channels (assumed), patches of 16 pixels, positions learned for"
    )
    assert said in str(loaded) and "left out: head.* (1)" in str(loaded)
    theirs = by_torch(net, images(side), spec)
    np.testing.assert_allclose(loaded.representation.encode(images(side)), theirs, atol=1e-4, rtol=0)


def test_moco_v3s_file_has_its_twelve_heads_and_fixed_positions(tmp_path):
    """Released ViT-S has 12 heads of 32 channels where timm's has 6 of 64, and no tensor tells: as timm's it would give
    other features, without a word.
    """
    net = twins.timm_vit(32, 16, 384, 1, 12)
    import torch

    for matrix in (net.blocks[0].attn.qkv, net.blocks[0].attn.proj):
        matrix.weight.data.normal_(0, 0.2)
    net.pos_embed.data.copy_(torch.from_numpy(vit.fixed_positions(2, 384)))
    state = {f"module.base_encoder.{n}": t for n, t in net.state_dict().items()}
    state |= {n.replace("base_encoder", "momentum_encoder"): t + 1 for n, t in state.items()}
    state |= {
        f"module.{n}.0.weight": net.cls_token[0] for n in ("base_encoder.head", "momentum_encoder.head", "predictor")
    }
    loaded = open_source(saved(tmp_path / "vit-s-300ep.pth.tar", state))
    model, spec = loaded.representation.spec["model"], loaded.representation.spec
    assert (model["backbone"], model["heads"], model["width"], model["positions"]) == (
        ("vit_small", 12, 32, {"kind": "sincos"})
    )  # fmt: skip
    assert "of several, the base encoder, 'module.base_encoder.'" in loaded.remarks and spec["size"] == 32
    theirs = by_torch(net, images(32), spec)
    np.testing.assert_allclose(loaded.representation.encode(images(32)), theirs, atol=1e-4, rtol=0)
    six = Representation(loaded.representation.variables, spec | {"model": model | dict(heads=6, width=64)})
    assert np.abs(six.encode(images(32)) - theirs).max() > 1e-2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t | {"blocks.0.ls1.gamma": t["norm.bias"]}, "'blocks.0.ls1.gamma', which the network does not have"),
        (lambda t: {n: x for n, x in t.items() if n != "cls_token"}, "a transformer whose 'cls_token' is absent"),
        (lambda t: t | {"pos_embed": t["pos_embed"][:, :9]}, "has 9 positions, which are not a class token's"),
        (lambda t: {n: x for n, x in t.items() if n != "blocks.0.norm1.bias"}, "lacks 'blocks.0.norm1.bias'"),
        (lambda t: {n: x[..., :8] if x.ndim == 3 else x for n, x in t.items()}, "a transformer of 8 channels"),
    ],
)
def test_another_transformer_is_refused(tmp_path, change, said):
    model = dict(backbone="vit_tiny", depth=1)
    held = collect_tensors(made(model, **SIDE).representation)
    safetensors.numpy.save_file(change(dict(held)), tmp_path / "x.safetensors")
    with pytest.raises(UserError) as caught:
        open_source(tmp_path / "x.safetensors")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_positions_that_are_not_the_fixed_ones_are_seen(tmp_path, monkeypatch):
    from mi_contrast.interchange import export

    honest = export.collect_tensors
    monkeypatch.setattr(export, "collect_tensors", lambda r: honest(r) | {"pos_embed": honest(r)["pos_embed"] + 1e-3})
    write_export(tmp_path / "export", made(FIXED, **SIDE).representation, config=CONFIG, commit=None)
    with pytest.raises(UserError, match="'pos_embed' is not the fixed positions that the network computes"):
        open_source(tmp_path / "export")


@pytest.mark.parametrize("word", ["torchvision", "detectron2"])
def test_what_has_other_names_is_refused(tmp_path, word):
    with pytest.raises(UserError, match=r"timm's names \(--format=timm, or torch\)|Detectron2 has no vit_tiny"):
        convert(made(FIXED, **SIDE), word, tmp_path / "out")


def test_without_timm_the_formats_that_need_it_say_so(tmp_path, monkeypatch):
    import sys

    needs("torch")
    for module in ("timm", "onnxscript"):
        monkeypatch.setitem(sys.modules, module, None)
    manifest = convert(made(FIXED, **SIDE), "timm", tmp_path / "timm")
    assert manifest["parity"] == {"not_run": "features not compared: timm is not installed"}
    monkeypatch.setitem(sys.modules, "onnxscript", sys)
    with pytest.raises(UserError, match="can't write ONNX: timm is not installed; pip install"):
        convert(made(FIXED, **SIDE), "onnx", tmp_path / "onnx")
