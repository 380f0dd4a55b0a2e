"""Detectron2's file: names as the published converters make them, read by plain pickle, and a net with those names."""

import pickle

import numpy as np
import pytest

from mi_contrast.interchange import detectron2
from mi_contrast.interchange.names import to_foreign
from mi_contrast.models.description import resolve
from mi_contrast.models.representation import Representation, make_spec
from tests.models import twins

PLAIN = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=96)


def published(name):
    """The renaming of MoCo's convert-pretrain-to-detectron2.py and of Detectron2's convert-torchvision-to-d2.py."""
    k = name
    if "layer" not in k:
        k = "stem." + k
    for t in [1, 2, 3, 4]:
        k = k.replace(f"layer{t}", f"res{t + 1}")
    for t in [1, 2, 3]:
        k = k.replace(f"bn{t}", f"conv{t}.norm")
    k = k.replace("downsample.0", "shortcut")
    return k.replace("downsample.1", "shortcut.norm")


@pytest.fixture(scope="module")
def tensors():
    return to_foreign(twins.random_variables(dict(backbone="resnet50", width=4)))


def test_names_are_the_published_converters(tensors):
    for name in tensors:
        assert detectron2.detectron2_name(name) == published(name)


def test_the_file_is_a_plain_pickle_that_numpy_1_reads_too(tensors):
    data = detectron2.pickled(tensors)
    held = pickle.loads(data, encoding="latin1")
    assert (held["__author__"], held["matching_heuristics"]) == ("mi_contrast", True) and data[:2] == b"\x80\x02"
    assert b"numpy._core" not in data and set(held) == {"model", "__author__", "matching_heuristics"}
    wanted = {published(n): t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
    read = detectron2.read_back(data)
    assert set(held["model"]) == set(wanted) == set(read)
    for name, array in held["model"].items():
        assert array.dtype == np.float32 and array.flags.c_contiguous
        np.testing.assert_array_equal(array, wanted[name])
        np.testing.assert_array_equal(array, read[name])
    assert detectron2.same(data, tensors) == len(wanted)


@pytest.mark.parametrize(
    "change",
    [lambda t: t | {"bn1.bias": t["bn1.bias"] + 1e-3}, lambda t: {n: x for n, x in t.items() if n != "bn1.bias"}],
)
def test_another_file_is_noticed(tensors, change):
    data = detectron2.pickled(change(tensors))
    with pytest.raises(RuntimeError, match=r"stem\.conv1\.norm\.bias of the file is not the backbone's"):
        detectron2.same(data, tensors)


def test_the_config_that_goes_with_it():
    spec = make_spec(dict(backbone="resnet50", width=64), **PLAIN)
    assert detectron2.config_of(spec) == {
        "INPUT.FORMAT": "RGB",
        "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
        "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
        "MODEL.WEIGHTS": "backbone.pkl",
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    }
    assert detectron2.config_of(make_spec(dict(backbone="resnet18"), **PLAIN))["MODEL.RESNETS.RES2_OUT_CHANNELS"] == 64


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (dict(backbone="resnet18"), None),
        (dict(backbone="resnet50", width=32), None),
        (dict(backbone="resnet18", stem="small"), "stem"),
        (dict(backbone="resnet34", width=32), "has width 64, this one 32"),
        (dict(backbone="tiny", width=8), "has no tiny"),
    ],
)
def test_what_its_resnet_cannot_be_is_said(model, reason):
    found = detectron2.why_not(resolve(model))
    assert found is None if reason is None else reason in found


def net_of_detectron2(model):
    """A net with Detectron2's names and arithmetic, from its backbone/resnet.py: norms are inside convolutions."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    nn, F = torch.nn, torch.nn.functional
    wide = model["backbone"] == "resnet50"
    blocks = {"resnet18": (2, 2, 2, 2)}.get(model["backbone"], (3, 4, 6, 3))

    class Conv2d(nn.Conv2d):
        def __init__(self, inside, outside, kernel, stride=1):
            super().__init__(inside, outside, kernel, stride, kernel // 2, bias=False)
            self.norm = nn.BatchNorm2d(outside, track_running_stats=True)

        def forward(self, x):
            return self.norm(super().forward(x))

    class Stem(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.conv1 = Conv2d(3, width, 7, 2)

        def forward(self, x):
            return F.max_pool2d(F.relu(self.conv1(x)), 3, 2, 1)

    class Block(nn.Module):
        def __init__(self, inside, inner, outside, stride):
            super().__init__()
            self.shortcut = Conv2d(inside, outside, 1, stride) if inside != outside else None
            self.conv1 = Conv2d(inside, inner, 1 if wide else 3, 1 if wide else stride)
            self.conv2 = Conv2d(inner, inner, 3, stride if wide else 1)
            self.conv3 = Conv2d(inner, outside, 1) if wide else None

        def forward(self, x):
            y = self.conv2(F.relu(self.conv1(x)))
            y = y if self.conv3 is None else self.conv3(F.relu(y))
            return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            inside, width = model["width"], model["width"]
            self.stem = Stem(width)
            for i, count in enumerate(blocks):
                outside, stage = width * 2**i * (4 if wide else 1), []
                for j in range(count):
                    stage.append(Block(inside, width * 2**i, outside, 2 if i and not j else 1))
                    inside = outside
                setattr(self, f"res{i + 2}", nn.Sequential(*stage))

        def forward(self, x):
            return self.res5(self.res4(self.res3(self.res2(self.stem(x))))).mean((2, 3))

    return Net().eval()


@pytest.mark.parametrize(("backbone", "width"), [("resnet18", 8), pytest.param("resnet50", 8, marks=pytest.mark.slow)])
def test_a_net_of_its_names_loads_every_tensor_and_agrees(backbone, width):
    """Not Detectron2, but its names and arithmetic, fed as its config feeds it: 0 to 255, PIXEL_MEAN and PIXEL_STD."""
    model = resolve(dict(backbone=backbone, width=width))
    net = net_of_detectron2(model)
    import torch

    ours = Representation(twins.random_variables(model), make_spec(model, **PLAIN))
    held = pickle.loads(detectron2.pickled(to_foreign(ours.variables)), encoding="latin1")["model"]
    counters = {n for n in net.state_dict() if n.endswith("num_batches_tracked")}
    result = net.load_state_dict({n: torch.from_numpy(t) for n, t in held.items()}, strict=False)
    assert set(result.missing_keys) <= counters and not result.unexpected_keys
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype(np.uint8)
    config = detectron2.config_of(ours.spec)
    x = (images.astype(np.float32) - config["MODEL.PIXEL_MEAN"]) / config["MODEL.PIXEL_STD"]
    with torch.no_grad():
        theirs = net(twins.to_torch(x.astype(np.float32))).numpy()
    np.testing.assert_allclose(ours.encode(images), theirs, atol=1e-5 * np.abs(theirs).max())
