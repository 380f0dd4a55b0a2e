"""Other trainers' files: features are torchvision's, what was taken and what was left is said, the rest is refused."""

import json
import logging

import numpy as np
import pytest
import safetensors.numpy

import mi_contrast
from mi_contrast.core.errors import UserError
from mi_contrast.interchange import open_source
from mi_contrast.interchange.names import to_foreign
from mi_contrast.models.representation import Representation, make_spec
from tests.models import twins

MODEL = dict(backbone="resnet18", width=4, stem="small")
IMAGENET = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
BYTES = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
ASSUMED = "preprocessing assumed: mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225), 224 pixels"


@pytest.fixture(scope="module")
def tensors():
    """A small ResNet-18 in torchvision's names."""
    return to_foreign(twins.random_variables(MODEL))


@pytest.fixture(scope="module")
def expected():
    return Representation(twins.random_variables(MODEL), make_spec(MODEL, **IMAGENET, size=224)).encode(BYTES)


def moco(tensors, seed=5):
    """The state dict of a MoCo v2 run: both encoders under DDP, their heads, the queue."""
    rng = np.random.default_rng(seed)
    head = {f"fc.{i}.{w}": rng.normal(size=(4,)).astype(np.float32) for i in (0, 2) for w in ("weight", "bias")}
    other = {n: t + 1 for n, t in tensors.items()}
    return {
        **{f"module.encoder_q.{n}": t for n, t in (tensors | head).items()},
        **{f"module.encoder_k.{n}": t for n, t in (other | head).items()},
        "module.queue": np.ones((4, 8), np.float32),
        "module.queue_ptr": np.zeros(1, np.int64),
    }


def write(path, tensors, **more):
    """Writes a file of weights of the kind that its name says."""
    if path.suffix == ".safetensors":
        path.write_bytes(safetensors.numpy.save({n: np.ascontiguousarray(t) for n, t in tensors.items()}))
        return path
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    state = {n: torch.from_numpy(np.array(t)) for n, t in tensors.items()}
    legacy = path.suffix == ".tar"
    tree = {"state_dict": state, "epoch": 200, "arch": "resnet50", **more} if legacy else state
    torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth", "x.pt", "x.ckpt", "x.pth.tar"])
def test_a_moco_checkpoint_loads_its_query_encoder(tmp_path, tensors, expected, name, caplog):
    path = write(tmp_path / name, moco(tensors), optimizer={"state": {}, "param_groups": [{"lr": 0.03}]})
    with caplog.at_level(logging.INFO, logger="mi_contrast"):
        loaded = open_source(path)
    np.testing.assert_array_equal(loaded.representation.encode(BYTES), expected)
    assert str(loaded) == caplog.messages[-1]
    assert str(loaded).startswith(f"loaded 100 of 210 tensors from {path}; left out: ")
    for word in (
        *("module.encoder_k.* (104)", "module.queue", "module.queue_ptr", "module.encoder_q.fc.* (4)"),
        *("of several, the query encoder, 'module.encoder_q.'", "taken for resnet18, width 4, stem small", ASSUMED),
    ):
        assert word in str(loaded), word
    assert (loaded.step, loaded.config, len(loaded.sha256)) == (None, {}, 64)


def test_the_preprocessing_may_be_given(tmp_path, tensors):
    path = write(tmp_path / "x.safetensors", tensors)
    pixels = dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), size=16)
    loaded = open_source(path, preprocessing=pixels)
    assert loaded.representation.spec == make_spec(MODEL, **pixels)
    assert "preprocessing as given" in str(loaded) and str(loaded).startswith("loaded 100 of 100 tensors from")
    ours = Representation(twins.random_variables(MODEL), make_spec(MODEL, **pixels))
    found = mi_contrast.load(path, preprocessing=pixels)
    np.testing.assert_array_equal(found.encode(BYTES), ours.encode(BYTES))
    partly = open_source(path, preprocessing=dict(size=96))
    assert partly.representation.spec["size"] == 96
    assert str(partly).endswith("preprocessing assumed: mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225)")
    with pytest.raises(UserError, match="did you mean 'mean'"):
        open_source(path, preprocessing=dict(means=(0.4, 0.5, 0.6)))


def other(tensors):
    """Another network of the same form."""
    return {name: tensor + 1 if tensor.dtype.kind == "f" else tensor for name, tensor in tensors.items()}


HEAD = {"layers.0.weight": np.ones((4, 8), np.float32)}
# The networks and heads of each trainer's module, by the names under which it saves them. The first one is the trained.
LAYOUTS = {
    "torchvision": ("", {"fc": HEAD}, None),
    "lightly SimCLR": ("backbone", {"projection_head": HEAD, "online_classifier": HEAD}, None),
    "lightly MoCo": ("backbone", {"projection_head": HEAD, "projection_head_momentum": HEAD}, "backbone_momentum"),
    "lightly DINO": ("student_backbone", {"student_head": HEAD, "teacher_head": HEAD}, "teacher_backbone"),
    "Lightning": ("backbone", {"projector": HEAD, "online_linear_classifier": HEAD}, None),
    "solo-learn": (
        "backbone",
        {"projector": HEAD, "momentum_projector": HEAD, "classifier": HEAD, "momentum_classifier": HEAD},
        "momentum_backbone",
    ),
    "MoCo v3": ("module.base_encoder", {"module.predictor": HEAD}, "module.momentum_encoder"),
    "SupContrast": ("encoder.module", {"head": HEAD}, None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_of_each_layout_gives_the_trained_network(tmp_path, tensors, expected, layout):
    root, heads, average = LAYOUTS[layout]
    parts = {root: tensors, **heads} | ({average: other(tensors)} if average else {})
    named = {".".join(filter(None, (part, name))): t for part, names in parts.items() for name, t in names.items()}
    loaded = open_source(write(tmp_path / "x.safetensors", dict(reversed(named.items()))))
    np.testing.assert_array_equal(loaded.representation.encode(BYTES), expected)
    if average:
        alone = {name: tensor for name, tensor in named.items() if not name.startswith(f"{root}.")}
        averaged = mi_contrast.load(write(tmp_path / "y.safetensors", alone)).encode(BYTES)
        assert np.abs(averaged - expected).max() > 0.1, "control: the averaged network is another"


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 2e-2), ("bfloat16", 1e-1), ("float64", 1e-6)])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_other_precisions_become_float32(tmp_path, tensors, expected, name, precision, tolerance):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    from safetensors.torch import save_file

    kind = getattr(torch, precision)
    state = {n: torch.from_numpy(np.array(t)) for n, t in tensors.items()}
    state = {n: t.to(kind) if t.is_floating_point() else t for n, t in state.items()}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    loaded = open_source(tmp_path / name)
    kernel = loaded.representation.variables["params"]["layer1"]["0"]["conv1"]["kernel"]
    theirs = state["layer1.0.conv1.weight"].float().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(kernel, theirs)
    found = loaded.representation.encode(BYTES)
    np.testing.assert_allclose(found, expected, atol=tolerance * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"layer5.0.conv1.weight": t["conv1.weight"]}, "has 'layer5.0.conv1.weight', which the network"),
        (lambda t: {n: x for n, x in t.items() if n != "bn1.bias"}, "lacks 'bn1.bias' (99 of 100 tensors match)"),
        (lambda t: t | {"bn1.bias": np.zeros(3, np.float32)}, "'bn1.bias' is float32[3], the network's is float32[4]"),
        (lambda t: t | {"bn1.bias": np.zeros(4, np.int32)}, "'bn1.bias' is int32[4]"),
        (lambda t: {f"first.{n}": x for n, x in t.items()}, "the two networks of a split"),
        (lambda t: {"weight": t["conv1.weight"]}, "holds no ResNet"),
    ],
)
def test_whatever_does_not_match_is_refused(tmp_path, tensors, change, message):
    with pytest.raises(UserError) as caught:
        open_source(write(tmp_path / "x.safetensors", change(tensors)))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_an_export_tells_its_own_preprocessing(export):
    with pytest.raises(UserError, match="has its own preprocessing"):
        open_source(export, preprocessing=dict(size=16))


def test_weights_of_an_export_without_their_manifest_say_what_is_assumed(export):
    manifest = json.loads((export / "manifest.json").read_text())
    (export / "manifest.json").unlink()
    loaded = open_source(export / "backbone.safetensors")
    assert ASSUMED in str(loaded) and loaded.sha256 == manifest["sha256"]


SIDES = (64, 96, 130)


@pytest.mark.filterwarnings("ignore:images of 64 x 64:UserWarning")
@pytest.mark.parametrize(
    ("backbone", "legacy"),
    [
        pytest.param("resnet18", True, marks=pytest.mark.nightly),
        pytest.param("resnet50", False, marks=pytest.mark.nightly),
    ],
)
def test_torchvisions_own_checkpoint_gives_torchvisions_features(tmp_path, backbone, legacy):
    net = twins.perturbed(backbone)
    import torch

    torch.save(net.state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=not legacy)
    loaded = open_source(tmp_path / "net.pth")
    assert loaded.unused_parts == ("fc.* (2)",) and "stem imagenet" in str(loaded)
    net.fc = torch.nn.Identity()
    for side in SIDES:
        images = np.random.default_rng(side).integers(0, 256, (2, side, side, 3)).astype(np.uint8)
        x = ((images / 255 - IMAGENET["mean"]) / IMAGENET["std"]).astype(np.float32)
        with torch.no_grad():
            theirs = net(twins.to_torch(x)).numpy()
        np.testing.assert_allclose(loaded.representation.encode(images), theirs, atol=1e-4, rtol=0)
