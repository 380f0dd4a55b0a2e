"""The table of names against torchvision's own state dicts, and every mismatch refused by name."""

import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.interchange import names
from mi_contrast.models import towers
from tests.models import twins

SMALL = dict(backbone="resnet18", width=4, stem="small")


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_names_and_shapes_are_torchvisions(backbone):
    torchvision = twins.torchvision()
    import torch

    with torch.device("meta"):
        state = getattr(torchvision.models, backbone)().state_dict()
    theirs = {n: tuple(t.shape) for n, t in state.items() if not n.startswith("fc.") and not n.endswith(names.COUNTER)}
    assert {n: e.foreign_shape for n, e in names.make_table(towers.template(dict(backbone=backbone))).items()} == theirs


def test_layouts_are_told_by_hand():
    kernel = np.arange(3 * 3 * 2 * 5, dtype=np.float32).reshape(3, 3, 2, 5)
    variables = {
        "params": {"layer1": {"0": {"conv1": {"kernel": kernel}, "bn1": {"scale": np.ones(5), "bias": np.zeros(5)}}}},
        "batch_stats": {"layer1": {"0": {"bn1": {"mean": np.full(5, 2.0), "var": np.full(5, 3.0)}}}},
    }
    tensors = names.to_foreign(variables)
    assert set(tensors) == {
        "layer1.0.conv1.weight", "layer1.0.bn1.weight", "layer1.0.bn1.bias", "layer1.0.bn1.running_mean",
        "layer1.0.bn1.running_var", "layer1.0.bn1.num_batches_tracked",
    }  # fmt: skip
    weight = tensors["layer1.0.conv1.weight"]
    assert weight.shape == (5, 2, 3, 3) and weight.flags.c_contiguous
    assert all(
        weight[o, i, y, x] == kernel[y, x, i, o] for y in range(3) for x in range(3) for i in range(2) for o in range(5)
    )
    assert tensors["layer1.0.bn1.running_var"][0] == 3 and tensors["layer1.0.bn1.num_batches_tracked"].dtype == np.int64


@pytest.fixture(scope="module")
def variables():
    return twins.random_variables(SMALL)


def back(tensors):
    return names.from_foreign(tensors, towers.template(SMALL), "the file")


def test_there_and_back_is_exact(variables):
    found, count = back(names.to_foreign(variables))
    assert names.flatten(found).keys() == names.flatten(variables).keys()
    for path, leaf in names.flatten(variables).items():
        np.testing.assert_array_equal(names.flatten(found)[path], leaf)
    assert count == len(names.flatten(variables)) == 20 * 5  # 20 convolutions, each with four tensors of batch norm
    without_counters = {n: t for n, t in names.to_foreign(variables).items() if not n.endswith(names.COUNTER)}
    assert back(without_counters)[1] == 100


def without(tensors, name):
    return {n: t for n, t in tensors.items() if n != name}


def renamed(tensors):
    return {n.replace("layer2.1.bn2.weight", "layer2.1.norm2.weight"): t for n, t in tensors.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: without(t, "layer3.0.conv2.weight"), "lacks 'layer3.0.conv2.weight' (99 of 100"),
        (lambda t: t | {"fc.weight": np.zeros(3, np.float32)}, "has 'fc.weight', which the network does not have (100"),
        (renamed, "lacks 'layer2.1.bn2.weight' (99 of 100 tensors match); did you mean 'layer2.1.norm2.weight'?"),
        (lambda t: t | {"conv1.weight": t["conv1.weight"][:, 1:]}, "float32[4, 2, 3, 3], the network's is"),
        (lambda t: t | {"bn1.bias": t["bn1.bias"].astype(np.float64)}, "'bn1.bias' is float64[4]"),
        (lambda t: t | {"bn9.num_batches_tracked": np.zeros((), np.int64)}, "has 'bn9.num_batches_tracked'"),
        (lambda t: {}, "(0 of 100 tensors match)"),
    ],
)  # fmt: skip
def test_every_mismatch_is_refused_by_name(variables, change, message):
    with pytest.raises(UserError) as caught:
        back(change(names.to_foreign(variables)))
    assert message in str(caught.value)
