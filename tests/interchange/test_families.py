"""Which network a state dict holds: by the words before its names, every other tensor accounted for."""

import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.interchange import families
from mi_contrast.interchange.names import flatten, to_foreign_name
from mi_contrast.models import towers

NAMES = [to_foreign_name(p) for p in flatten(towers.template(dict(backbone="resnet18", width=4)))]
COUNTERS = [n.replace("running_var", "num_batches_tracked") for n in NAMES if "running_var" in n]
OWN = NAMES + COUNTERS


def under(prefix, names=OWN):
    return [prefix + name for name in names]


def numbered(prefix, start=4):
    """As nn.Sequential(*resnet.children()) names them."""
    numbers = {"conv1": "0", "bn1": "1", **{f"layer{i + 1}": str(start + i) for i in range(4)}}
    return [prefix + ".".join((numbers[n.split(".")[0]], *n.split(".")[1:])) for n in OWN]


CASES = {
    "torchvision": ([*OWN, "fc.weight", "fc.bias"], "", ("fc.* (2)",)),
    "headless": (OWN, "", ()),
    "DDP": ([*under("module."), "module.fc.weight", "module.fc.bias"], "", ("module.fc.* (2)",)),
    "compiled": (under("_orig_mod."), "", ()),
    "MoCo v2": (
        under("module.encoder_q.")
        + under("module.encoder_k.")
        + [f"module.encoder_{x}.fc.{i}.{w}" for x in "qk" for i in (0, 2) for w in ("weight", "bias")]
        + ["module.queue", "module.queue_ptr"],
        "the query encoder, 'module.encoder_q.'",
        ("module.encoder_k.* (104)", "module.encoder_q.fc.* (4)", "module.queue", "module.queue_ptr"),
    ),
    "MoCo v3": (
        [
            *under("module.base_encoder."),
            "module.base_encoder.fc.0.weight",
            "module.predictor.0.weight",
            *under("module.momentum_encoder."),
        ],
        "the base encoder, 'module.base_encoder.'",
        ("module.base_encoder.fc.* (1)", "module.predictor.* (1)", "module.momentum_encoder.* (100)"),
    ),
    "only the momentum one": (under("encoder_k."), "the key encoder, 'encoder_k.'", ()),
    "PyContrast": (
        [*under("module.encoder."), "module.head.0.weight", "module.head_jig.fc1.0.weight"],
        "the encoder, 'module.encoder.'",
        ("module.head.* (1)", "module.head_jig.* (1)"),
    ),
    "SupContrast": (
        [n.replace("downsample", "shortcut") for n in under("encoder.module.")] + ["head.0.weight", "head.0.bias"],
        "the encoder, 'encoder.module.'",
        ("head.* (2)",),
    ),
    "SimCLR": ([*under("backbone."), "backbone.fc.0.weight"], "the backbone, 'backbone.'", ("backbone.fc.* (1)",)),
    "SimCLR convnet": ([*under("convnet."), "projection.0.weight"], "the convnet, 'convnet.'", ("projection.* (1)",)),
    "Lightning": ([*under("model."), "memory_bank._bank"], "", ("memory_bank.* (1)",)),
    "Lightning deep": (
        [*under("model.backbone."), "model.projector.0.weight", "loss_fn.weight"],
        "the backbone, 'model.backbone.'",
        ("model.projector.* (1)", "loss_fn.* (1)"),
    ),
    "Sequential": ([*numbered("encoder."), "encoder.9.weight"], "the encoder, 'encoder.'", ("encoder.9.* (1)",)),
    "Sequential without pool": ([*numbered("f.", 3), "g.0.weight"], "the encoder, 'f.'", ("g.* (1)",)),
    "Sequential alone": (numbered(""), "", ()),
}


@pytest.mark.parametrize("case", CASES)
def test_every_family_is_found_and_the_rest_named(case):
    names, what, left_out = CASES[case]
    found = families.find_backbone(names, "x.pth")
    assert sorted(found.names.values()) == sorted(OWN)
    assert (found.description, set(found.unused_parts)) == (what, set(left_out))
    assert found.max_pool == (False if case == "Sequential without pool" else None)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*under("module."), "other.fc.weight"], "'other.fc.weight', which belongs neither to the backbone"),
        ([*under("backbone."), "projectr.0.weight"], "did you mean 'projector'?"),
        (under("backbonne."), "'backbonne' is no name of a known family; did you mean 'backbone'?"),
        (under("encoder.module.l_to_ab.") + under("encoder.module.ab_to_l."), "'l_to_ab' is no name"),
        (under("encoder.") + under("backbone."), "several networks: 'encoder.', 'backbone.'"),
        (["encoder.layers.encoder_layer_0.mlp.0.weight"], "holds no ResNet and no ViT"),
        ([], "holds no ResNet"),
    ],
)
def test_what_no_table_knows_is_refused(names, message):
    with pytest.raises(UserError) as caught:
        families.find_backbone(names, "x.pth")
    assert message in str(caught.value) and "\n" not in str(caught.value)


class Shaped:
    shape = (1,)


@pytest.mark.parametrize(
    "tree",
    [
        {"conv1.weight": Shaped(), "queue": Shaped()},
        {
            "state_dict": {"conv1.weight": Shaped(), "queue": Shaped()},
            "optimizer": {"state": {0: Shaped()}},
            "epoch": 3,
        },
        {"model": {"state_dict": {"conv1.weight": Shaped(), "queue": Shaped()}}, "opt": None},
        {"net": {"conv1.weight": Shaped(), "queue": Shaped()}, "acc": 0.5},
    ],
)
def test_the_state_dict_is_found_in_its_container(tree):
    assert list(families.find_state_dict(tree, "x.pth")) == ["conv1.weight", "queue"]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"epoch": 3, "weights": {"a.b": Shaped()}}, "no state dict, but epoch, weights"),
        ([1], "no state dict, but list"),
        ({}, "no state dict, but nothing"),
        ({"model": {"model": {"model": {}}}}, "no state dict"),
        ({"a.b": Shaped(), "epoch": 3}, "has 'epoch' among its tensors"),
    ],
)
def test_what_holds_no_state_dict_is_refused(tree, message):
    with pytest.raises(UserError, match=message):
        families.find_state_dict(tree, "x.pth")


def shapes(model):
    return {to_foreign_name(p): tuple(x.shape[i] for i in ((3, 2, 0, 1) if x.ndim == 4 else range(x.ndim)))
            for p, x in flatten(towers.template(model)).items()}  # fmt: skip


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize(("width", "stem"), [(64, "imagenet"), (8, "small"), (128, "imagenet")])
def test_the_network_is_told_by_its_tensors(backbone, width, stem):
    model = dict(backbone=backbone, width=width, stem=stem)
    assert families.describe_resnet(shapes(model), None, "x.pth") == model


def test_the_tiny_network_is_told_by_its_tensors():
    model = dict(backbone="tiny", width=8, stem="small")
    names = shapes(model)
    assert families.find_backbone(names, "x.pth").names.keys() == names.keys()
    assert families.describe_resnet(names, None, "x.pth") == model


def test_other_networks_are_refused():
    good = shapes(dict(backbone="resnet18", width=4))
    for change, pooled, message in [
        ({f"layer3.{i}.conv1.weight": (1,) for i in range(2, 23)}, None, r"\(2, 2, 23, 2\) basic blocks"),
        ({"layer1.0.conv3.weight": (1,)}, None, r"\(2, 2, 2, 2\) bottleneck blocks"),
        ({"conv1.weight": (4, 1, 7, 7)}, None, "'conv1.weight' has shape"),
        ({"conv1.weight": (4, 3, 5, 5)}, None, "begins with a 5x5 convolution"),
        ({}, False, "begins with a 7x7 without a max pool"),
    ]:
        with pytest.raises(UserError, match=message):
            families.describe_resnet(good | change, pooled, "x.pth")


@pytest.mark.parametrize(
    ("momentum", "beside"),
    [
        ("momentum_backbone", ["projector.0.weight", "momentum_projector.0.weight", "classifier.weight", "queue"]),
        ("momentum_backbone", ["momentum_classifier.weight", "predictor.0.weight"]),
        ("backbone_momentum", ["projection_head_momentum.layers.0.weight", "online_classifier.linear.weight"]),
    ],
)
def test_the_online_backbone_of_lightning_modules_is_chosen(momentum, beside):
    networks = [
        f"{root}.{name}" for root in ("backbone", momentum) for name in ("conv1.weight", families.RESNET_TENSOR)
    ]
    found = families.find_backbone([*networks, *beside], "x.ckpt")
    assert set(found.names) == {"backbone.conv1.weight", f"backbone.{families.RESNET_TENSOR}"}
    assert found.description == "the backbone, 'backbone.'" and f"{momentum}.* (2)" in found.unused_parts


def test_a_deep_stem_is_called_so():
    with pytest.raises(UserError, match="deep stem"):
        families.describe_resnet(
            {"conv1.0.weight": (32, 3, 3, 3), families.RESNET_TENSOR: (64, 64, 3, 3)}, None, "x.pth"
        )
