"""A run starts from an export, a run without checkpoints, or weights as torchvision and timm save them."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.interchange import load
from mi_contrast.models import towers
from mi_contrast.training import weights
from mi_contrast.training.state import State

EXPORT = Path(__file__).parents[1] / "fixtures" / "v0_1_0" / "moco_export"
HEAD = dict(kind="mlp_bn", hidden=16, dim=8, layers=2)
TINY = dict(backbone="tiny", width=8, stem="small", head=HEAD)
RESNET = dict(backbone="resnet18", width=64, stem="imagenet", head=HEAD)


def make_state(model):
    online = towers.build(model).init(jax.random.key(3), (96, 96, 3))
    empty = {field: {} for field in State.__dataclass_fields__}
    return State(**{**empty, "online": online, "target": jax.tree.map(np.copy, online)})


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("place", ["export", "file", "run"])
def test_an_export_gives_the_backbone_and_heads_stay_fresh(place, tmp_path):
    path = {"export": EXPORT, "file": EXPORT / "backbone.safetensors", "run": tmp_path / "run"}[place]
    if place == "run":
        shutil.copytree(EXPORT, path / "export")
    first, published = make_state(TINY), load(EXPORT)
    assert weights.has_backbone(path)
    loaded, line = weights.load_backbone(first, TINY, path)
    for network in (loaded.online, loaded.target):
        for name in ("params", "batch_stats"):
            for ours, theirs in zip(leaves(network[name]["backbone"]), leaves(published.variables[name]), strict=True):
                assert np.array_equal(ours, theirs)
            assert all(map(np.array_equal, leaves(network[name]["head"]), leaves(first.online[name]["head"])))
    assert not all(map(np.array_equal, leaves(first.online), leaves(loaded.online)))
    count = len(leaves(published.variables))
    assert f"{count} of {len(leaves(first.online))} tensors loaded" in line and "new: head" in line


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(width=16), r"config\.model\.width is 16, and the weights of .* have 8; set --config\.model\.width=8"),
        (dict(backbone="resnet18"), r"config\.model\.backbone is 'resnet18', and the weights of .* have 'tiny'"),
    ],
)
def test_another_network_is_refused(change, message):
    config = to_plain_data(load_config("simclr:digits")[0])
    config["model"] |= {**TINY, **change}
    config["checkpoint"]["start_from"] = str(EXPORT)
    with pytest.raises(UserError, match=message):
        weights.check_weights(config)
    config["model"] |= TINY
    weights.check_weights(config)


def make_resnet18():
    """Returns random arrays with the names and shapes of torchvision's resnet18, which timm's has, too."""
    draw = np.random.default_rng(0).standard_normal
    arrays = {"conv1.weight": draw((64, 3, 7, 7)), "fc.weight": draw((1000, 512)), "fc.bias": draw(1000)}

    def add_norm(name, size):
        for part in ("weight", "bias", "running_mean"):
            arrays[f"{name}.{part}"] = draw(size)
        arrays[f"{name}.running_var"] = np.abs(draw(size)) + 0.5

    add_norm("bn1", 64)
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            below = width // 2 if block == 0 and layer > 1 else width
            for number, size in ((1, below), (2, width)):
                arrays[f"layer{layer}.{block}.conv{number}.weight"] = draw((width, size, 3, 3))
                add_norm(f"layer{layer}.{block}.bn{number}", width)
        if layer > 1:
            arrays[f"layer{layer}.0.downsample.0.weight"] = draw((width, width // 2, 1, 1))
            add_norm(f"layer{layer}.0.downsample.1", width)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


@pytest.mark.parametrize("trainer", ["torchvision", "timm"])
def test_published_files_give_their_backbone(trainer, tmp_path):
    arrays = make_resnet18()
    if trainer == "torchvision":
        torch = pytest.importorskip("torch")
        file = tmp_path / "resnet18.pth"
        torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, file)
    else:
        file = tmp_path / "model.safetensors"
        save_file(arrays, file)
    loaded, line = weights.load_backbone(make_state(RESNET), RESNET, file)
    found = leaves([loaded.online[name]["backbone"] for name in ("params", "batch_stats")])
    for name, array in arrays.items():
        wanted = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
        is_there = any(leaf.shape == wanted.shape and np.array_equal(leaf, wanted) for leaf in found)
        assert is_there is not name.startswith("fc."), name
    assert "new: head" in line and "resnet18" in line
    published = weights.describe_weights(str(file))
    assert published["model"]["width"] == 64 and published["size"] == 224


def test_a_folder_that_is_neither_is_said_to_be_none(tmp_path):
    with pytest.raises(UserError, match="neither a run directory nor an export nor a file of weights"):
        weights.describe_weights(str(tmp_path))
