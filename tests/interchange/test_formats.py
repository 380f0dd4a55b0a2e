"""Every format: written whole, loaded by its own tool, features ours, the manifest true; what can't be is refused."""

import hashlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.interchange import FORMATS, convert, onnx, open_source, parity, stablehlo, torch_formats
from mi_contrast.interchange.loaded import Loaded
from mi_contrast.models.representation import Representation, make_spec
from tests.interchange.conftest import CONFIG
from tests.models import twins

slow = pytest.mark.slow
BACKBONES = ["resnet18", pytest.param("resnet50", marks=pytest.mark.nightly)]
PIXELS = dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), size=24)
TINY = dict(backbone="tiny", width=8)
SMALL = dict(backbone="resnet18", width=4, stem="small")


BANDS = dict(kind="bands", space="rgb", sigma=1.0)
GENERATOR = dict(kind="generator", space="ydbdr", flow="affine", couplings=3, hidden=8)


def made(model, **pixels):
    variables = jax.tree.map(np.asarray, twins.random_variables(model))
    return Loaded(
        Representation(variables, make_spec(model, **PIXELS | pixels)), Path("runs/x"), 9, 40, CONFIG, None, "abc"
    )


def needs(*modules):
    """The modules, or a skip that says which is missing."""
    if "torchvision" in modules:
        twins.torchvision()
    for module in modules:
        pytest.importorskip(module, reason=f"{module} is not installed")


def images(side, batch=2):
    return np.random.default_rng(side).integers(0, 256, (batch, side, side, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("word", "model", "modules"),
    [
        ("native", TINY, ()),
        ("torchvision", TINY, ("torch",)),
        ("torchvision", SMALL, ("torchvision",)),
        ("torch", SMALL, ("torchvision",)),
        ("stablehlo", TINY, ("flatbuffers",)),
        pytest.param("onnx", TINY, ("torchvision", "onnxscript", "onnxruntime"), marks=slow),
    ],
)
def test_a_format_is_whole_and_its_manifest_true(tmp_path, word, model, modules):
    needs(*modules)
    loaded, folder = made(model), tmp_path / word
    manifest = convert(loaded, word, folder)
    assert manifest == json.loads((folder / "manifest.json").read_text())
    found = manifest["parity"]
    assert found["max_difference"] <= 1e-5 * found["max_feature"] and found["max_feature"] > 0.01
    assert found["tool"].startswith({"native": "mi_contrast", "stablehlo": "jax", "onnx": "onnx"}.get(word, "torch"))
    data = (folder / manifest["file"]).read_bytes()
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest() and manifest["made_for"] == word
    assert manifest["preprocessing"]["mean"] == [0.4, 0.5, 0.6] and manifest["model"]["stem"] == "small"
    assert (manifest["step"], manifest["commit"], manifest["config"]["seed"]) == (40, "abc", 3)
    others = {"build.py"} if word in ("torchvision", "torch") else set()
    assert {p.name for p in folder.iterdir()} == {manifest["file"], "manifest.json"} | others
    assert [p.name for p in tmp_path.iterdir()] == [word]
    if word in ("native", "torchvision", "torch"):
        again = open_source(folder)
        assert again.representation.spec == loaded.representation.spec and (again.step, again.commit) == (40, "abc")
        np.testing.assert_array_equal(again.representation.encode(images(24)), loaded.representation.encode(images(24)))
        assert open_source(folder / manifest["file"]).tensors == again.tensors
    else:
        with pytest.raises(UserError, match=f"was written for {word}, which is not read back"):
            open_source(folder)


def test_a_builder_beside_the_weights_builds_and_loads_as_the_manifest_says(tmp_path, monkeypatch):
    needs("torchvision")
    loaded = made(SMALL)
    manifest = convert(loaded, "torchvision", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    monkeypatch.syspath_prepend(tmp_path / "out")
    monkeypatch.delitem(sys.modules, "build", raising=False)
    import safetensors.torch
    import torch

    names = {"torch": torch, "safetensors": safetensors, "build": __import__("build")}
    exec(manifest["usage"], names)
    x = (images(40) / 255 - manifest["preprocessing"]["mean"]) / manifest["preprocessing"]["std"]
    with torch.no_grad():
        theirs = names["net"].eval()(twins.to_torch(x.astype(np.float32))).numpy()
    monkeypatch.delitem(sys.modules, "build")
    np.testing.assert_allclose(loaded.representation.encode(images(40)), theirs, atol=1e-5)


def test_detectron2_says_it_was_not_run(tmp_path):
    manifest = convert(made(dict(backbone="resnet50", width=4)), "detectron2", tmp_path / "out")
    assert manifest["parity"] == {"not_run": "not run in Detectron2: names by its table, tensors read back"}
    assert manifest["read_back"].startswith("265 of 265 tensors identical")
    assert manifest["config_of_detectron2"]["INPUT.FORMAT"] == "RGB"
    assert manifest["config_of_detectron2"]["MODEL.PIXEL_MEAN"] == [102.0, 127.5, 153.0]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["backbone.pkl", "manifest.json"]


@pytest.mark.parametrize(
    ("word", "model", "reason"),
    [
        *[
            (w, TINY | {"split": split}, "two networks")
            for split in ("ydbdr", BANDS, GENERATOR)
            for w in ("torchvision", "torch", "timm", "detectron2", "onnx")
        ],
        ("timm", SMALL, "timm has no resnet18 of width 4 with the 'small' stem"),
        ("timm", dict(backbone="resnet18", stem="small"), "with the 'small' stem"),
        ("detectron2", SMALL, "stem"),
        ("detectron2", TINY, "no tiny"),
        ("torchvison", TINY, "did you mean 'torchvision'"),
    ],
)
def test_what_a_format_cannot_express_is_refused(tmp_path, word, model, reason):
    with pytest.raises(UserError) as caught:
        convert(made(model), word, tmp_path / "out")
    assert reason in str(caught.value) and "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", ["ydbdr", BANDS, GENERATOR], ids=["ydbdr", "bands", "generator"])
def test_a_split_leaves_natively_and_as_stablehlo(tmp_path, split):
    loaded = made(TINY | {"split": split})
    assert convert(loaded, "native", tmp_path / "native")["parity"]["max_difference"] == 0
    needs("flatbuffers")
    found = convert(loaded, "stablehlo", tmp_path / "hlo")["parity"]
    assert found["max_difference"] <= 1e-5 * found["max_feature"]


def test_features_that_differ_are_an_error_and_nothing_is_kept(tmp_path, monkeypatch):
    """The negative control of every parity figure: the file is changed behind the writer's back."""
    needs("torch")
    convert(made(TINY), "torchvision", tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    honest = torch_formats.tensors_of

    def dishonest(representation):
        return {n: t * np.float32(1.01) if n == "conv2.weight" else t for n, t in honest(representation).items()}

    monkeypatch.setattr(torch_formats, "tensors_of", dishonest)
    with pytest.raises(RuntimeError, match="torch gives features that differ by"):
        convert(made(TINY), "torchvision", tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_missing_tool_is_said_in_the_manifest_or_refused_with_the_fix(tmp_path, monkeypatch):
    for module in ("torch", "torchvision", "onnxscript"):
        monkeypatch.setitem(sys.modules, module, None)
    loaded = made(TINY)
    manifest = convert(loaded, "torchvision", tmp_path / "out")
    assert manifest["parity"] == {"not_run": "features not compared: torch is not installed"}
    assert parity.said(manifest["parity"]) == "features not compared: torch is not installed"
    for word in ("torch", "onnx"):
        with pytest.raises(UserError, match="torch is not installed; pip install"):
            convert(loaded, word, tmp_path / word)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_weights_trained_in_bfloat16_are_compared_in_float32(tmp_path):
    needs("torch")
    found = convert(made(TINY | {"dtype": "bfloat16"}), "torchvision", tmp_path / "out")["parity"]
    assert found["max_difference"] <= 1e-5 * found["max_feature"]


def perturbed(backbone):
    net = twins.perturbed(backbone)
    import torch

    net.fc = torch.nn.Identity()
    return net


def by_torch(net, pixels, spec):
    import torch

    x = ((pixels / 255 - np.array(spec["mean"])) / spec["std"]).astype(np.float32)
    with torch.no_grad():
        return net(twins.to_torch(x)).numpy()


SIDES = (64, 96, 130)


@slow
@pytest.mark.filterwarnings("ignore:images of 64 x 64:UserWarning")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_in_and_out_and_in_again(tmp_path, backbone):
    """Torchvision's network imported, exported and imported again; and its exports in torchvision: 3 sizes, 1e-4."""
    net = perturbed(backbone)
    import torch
    from safetensors.torch import load_file

    torch.save(net.state_dict(), tmp_path / "net.pth")
    loaded = open_source(tmp_path / "net.pth", preprocessing=PIXELS | dict(size=96))
    assert loaded.beside == 0 and loaded.representation.spec["size"] == 96
    for word in ("torchvision", "torch"):
        convert(loaded, word, tmp_path / word)
    again = [open_source(tmp_path / word).representation for word in ("torchvision", "torch")]
    out = perturbed(backbone)
    out.load_state_dict(load_file(tmp_path / "torchvision" / "backbone.safetensors"), strict=True)
    for name, tensor in torch.load(tmp_path / "torch" / "backbone.pth", weights_only=True).items():
        assert torch.equal(tensor, out.state_dict()[name]) and torch.equal(tensor, net.state_dict()[name])
    for side in SIDES:
        theirs = by_torch(net, images(side), loaded.representation.spec)
        for ours in (loaded.representation, *again):
            np.testing.assert_allclose(ours.encode(images(side)), theirs, atol=1e-4, rtol=0)
        np.testing.assert_allclose(by_torch(out, images(side), loaded.representation.spec), theirs, atol=1e-4, rtol=0)


@slow
@pytest.mark.filterwarnings("ignore:images of 64 x 64:UserWarning")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_onnx_and_stablehlo_give_torchvisions_features(tmp_path, backbone):
    net = perturbed(backbone)
    import torch

    torch.save(net.state_dict(), tmp_path / "net.pth")
    loaded = open_source(tmp_path / "net.pth", preprocessing=PIXELS | dict(size=96))
    spec, checks = loaded.representation.spec, 0
    if all(_importable(m) for m in ("onnxscript", "onnxruntime")):
        convert(loaded, "onnx", tmp_path / "onnx")
        for side in SIDES:
            found = onnx.run(tmp_path / "onnx" / onnx.FILE, images(side, 3).astype(np.float32) / 255)
            np.testing.assert_allclose(found, by_torch(net, images(side, 3), spec), atol=1e-4, rtol=0)
        checks += 1
    if _importable("flatbuffers"):
        for side in SIDES:
            sized = Representation(loaded.representation.variables, {**spec, "size": side})
            stablehlo.write(sized, tmp_path)
            found = stablehlo.run(tmp_path / stablehlo.FILE, images(side, 3).astype(np.float32) / 255)
            np.testing.assert_allclose(found, by_torch(net, images(side, 3), spec), atol=1e-4, rtol=0)
        checks += 1
    if not checks:
        pytest.skip("neither onnxscript and onnxruntime nor flatbuffers are installed")


def _importable(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True


@slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_timm_loads_the_folder_with_its_preprocessing(tmp_path, backbone):
    needs("torchvision", "timm")
    import timm

    manifest = convert(made(dict(backbone=backbone), size=96), "timm", tmp_path / "out")
    found = manifest["parity"]
    assert found["tool"].startswith("timm ") and found["max_difference"] <= 1e-5 * found["max_feature"]
    net = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True, num_classes=0)
    config = timm.data.resolve_model_data_config(net)
    assert (list(config["mean"]), list(config["std"])) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    assert tuple(config["input_size"]) == (3, 96, 96) and config["crop_pct"] == 1


def test_timms_names_are_torchvisions():
    needs("torchvision", "timm")
    import timm
    import torch

    with torch.device("meta"):
        for backbone in ("resnet18", "resnet34", "resnet50"):
            theirs = timm.create_model(backbone, num_classes=0).state_dict()
            ours = getattr(twins.torchvision().models, backbone)().state_dict()
            assert {n: t.shape for n, t in theirs.items()} == {n: t.shape for n, t in ours.items() if n[:2] != "fc"}


def test_every_format_is_in_the_jobs_help():
    from mi_contrast.export import FLAGS

    assert all(word in FLAGS["format="] for word in FORMATS)
