"""Exports: the manifest tells the truth, torchvision loads them strictly, and a folder is whole or absent."""

import hashlib
import json
import os

import numpy as np
import pytest
import safetensors.numpy

from mi_contrast.core.errors import UserError
from mi_contrast.interchange import export as module
from mi_contrast.interchange import load, write_export
from mi_contrast.models.representation import Representation, make_spec
from tests.interchange.conftest import CONFIG, MODEL, PIXELS, SPLIT, YDBDR
from tests.models import twins

BYTES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)


def test_the_manifest_tells_the_truth(export):
    manifest = json.loads((export / "manifest.json").read_text())
    data = (export / "backbone.safetensors").read_bytes()
    tensors = safetensors.numpy.load(data)
    assert sorted(p.name for p in export.iterdir()) == ["backbone.safetensors", "manifest.json"]
    assert manifest["sha256"] == hashlib.sha256(data).hexdigest()
    listed = {n: (tuple(t["shape"]), t["dtype"]) for n, t in manifest["tensors"].items()}
    assert listed == {n: (t.shape, str(t.dtype)) for n, t in tensors.items()}
    pixels = manifest["preprocessing"]
    assert (pixels["mean"], pixels["std"], pixels["size"]) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3], 16)
    assert pixels["channel_order"] == "RGB" and pixels["range"] == [0, 1]
    assert (manifest["model"]["stem"], manifest["model"]["width"], manifest["features"]) == ("small", 4, 32)
    assert manifest["config"] == json.loads(json.dumps(CONFIG))
    assert (manifest["commit"], manifest["step"]) == ("abc123", 7)
    assert {"mi_contrast", "jax", "python"} <= set(manifest["versions"])


@pytest.mark.parametrize(
    ("backbone", "width", "stem", "side"),
    [
        ("resnet18", 4, "small", 32),
        ("tiny", 8, "small", 32),
        pytest.param("resnet18", 64, "imagenet", 96, marks=pytest.mark.nightly),
        pytest.param("resnet50", 64, "imagenet", 65, marks=pytest.mark.nightly),
    ],
)
def test_torchvision_loads_it_strictly_and_agrees(tmp_path, backbone, width, stem, side):
    net = twins.twin(backbone, width, stem).eval()
    import torch
    from safetensors.torch import load_file

    model = dict(backbone=backbone, width=width, stem=stem)
    ours = Representation(twins.random_variables(model), make_spec(model, **PIXELS))
    write_export(tmp_path / "export", ours, config={}, commit=None)
    state = load_file(tmp_path / "export" / "backbone.safetensors")
    assert set(state) == set(net.state_dict())
    net.load_state_dict(state, strict=True)
    images = np.random.default_rng(1).integers(0, 256, (3, side, side, 3)).astype(np.uint8)
    with torch.no_grad():
        x = (images / 255 - np.array(PIXELS["mean"])) / PIXELS["std"]
        theirs = net(twins.to_torch(x.astype(np.float32))).numpy()
    found = load(tmp_path / "export").encode(images)
    np.testing.assert_allclose(found / np.abs(theirs).max(), theirs / np.abs(theirs).max(), atol=1e-4)


def test_a_missing_name_is_noticed_by_torchvision(export):
    """The negative control of the strict load above."""
    net = twins.twin("resnet18", 4, "small")
    from safetensors.torch import load_file

    state = load_file(export / "backbone.safetensors")
    del state["layer4.1.bn2.running_var"]
    with pytest.raises(RuntimeError, match="running_var"):
        net.load_state_dict(state, strict=True)


def test_an_older_export_is_replaced_and_nothing_is_left_beside(export, representation):
    write_export(export, representation, config={}, commit="def456")
    assert json.loads((export / "manifest.json").read_text())["commit"] == "def456"
    assert [p.name for p in export.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("fails_at", ["file", "manifest", "rename"])
def test_a_failure_leaves_the_older_export_whole(export, representation, monkeypatch, fails_at):
    before = {p.name: p.read_bytes() for p in export.iterdir()}
    full = OSError(28, "No space left on device")

    def fail(*arguments):
        raise full

    rename = os.rename

    def fail_on_new(source, target):
        if ".new." in str(source):
            raise full
        rename(source, target)

    if fails_at == "rename":
        monkeypatch.setattr(module.os, "rename", fail_on_new)
    else:
        monkeypatch.setattr(module, {"file": "write_safetensors", "manifest": "write_json"}[fails_at], fail)
    with pytest.raises(UserError, match="No space left on device"):
        write_export(export, representation, config={}, commit=None)
    assert {p.name: p.read_bytes() for p in export.iterdir()} == before
    assert [p.name for p in export.parent.iterdir()] == ["export"]


def test_a_failure_where_there_was_none_leaves_none(representation, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "write_json", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(UserError):
        write_export(tmp_path / "export", representation, config={}, commit=None)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_an_export_is_not_replaced(representation, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("dear")
    for path in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.tex"):
        with pytest.raises(UserError, match="is not an export"):
            write_export(path, representation, config={}, commit=None)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "dear"


def test_load_gives_back_every_bit(export, representation):
    found = load(export)
    assert found.spec == representation.spec == make_spec(MODEL, **PIXELS)
    np.testing.assert_array_equal(found.encode(BYTES), representation.encode(BYTES))


def test_a_split_comes_back_with_every_bit(split, tmp_path):
    write_export(tmp_path / "export", split, config={}, commit=None)
    found = load(tmp_path / "export")
    assert found.spec == split.spec == make_spec(SPLIT, **YDBDR) and found.dim == split.dim == 16
    np.testing.assert_array_equal(found.encode(BYTES), split.encode(BYTES))
    manifest = json.loads((tmp_path / "export" / "manifest.json").read_text())
    assert manifest["split"] == {
        "division": "ydbdr",
        "channels": {"first": [0], "second": [1, 2]},
        "features": "first, then second",
    }
    assert manifest["features"] == 16 and "first." in manifest["names"]
    assert manifest["preprocessing"]["formula"] == "(ydbdr of pixel in [0, 1] - mean) / std"
    assert {name.split(".")[0] for name in manifest["tensors"]} == {"first", "second"}


def test_torch_agrees_with_a_split_read_as_its_manifest_says(split, tmp_path):
    """Two strict loads, scikit-image's YDbDr, torch's features side by side."""
    nets = {view: twins.twin("tiny", 8, channels=n).eval() for view, n in (("first", 1), ("second", 2))}
    color = pytest.importorskip("skimage.color")
    import torch
    from safetensors.torch import load_file

    write_export(tmp_path / "export", split, config={}, commit=None)
    state = load_file(tmp_path / "export" / "backbone.safetensors")
    x = ((color.rgb2ydbdr(BYTES) - YDBDR["mean"]) / YDBDR["std"]).astype(np.float32)
    theirs = []
    for (view, net), channels in zip(nets.items(), ([0], [1, 2]), strict=True):
        own = {n.removeprefix(f"{view}."): t for n, t in state.items() if n.startswith(f"{view}.")}
        net.load_state_dict(own, strict=True)
        with torch.no_grad():
            theirs.append(net(twins.to_torch(x[..., channels])).numpy())
    np.testing.assert_allclose(split.encode(BYTES), np.concatenate(theirs, axis=1), atol=1e-4)


def test_one_network_alone_says_it_is_no_split(export):
    manifest = json.loads((export / "manifest.json").read_text())
    assert manifest["split"] is None and manifest["model"]["split"] is None and manifest["names"] == "torchvision"
