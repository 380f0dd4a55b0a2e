"""configs/infoaug.py over seven methods of two crops, each with a ResNet and with a transformer."""

import jax
import numpy as np
import pytest

from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from tests.training import rows

SEVEN = ("moco", "ring_moco", "simclr", "ir", "moco_v3", "nnclr", "dcl")
NETWORKS = {
    "resnet": dict(backbone="resnet18", width=8),
    "vit": dict(backbone="vit_tiny", width=8, depth=1, heads=2, patch=8),
}
CASES = [(method, network) for network in NETWORKS for method in SEVEN]


def load(variant):
    return to_plain_data(load_config(f"configs/infoaug.py:{variant}")[0])


@pytest.mark.parametrize(
    ("method", "network"),
    [case if case == ("simclr", "vit") else pytest.param(*case, marks=pytest.mark.nightly) for case in CASES],
)
def test_a_method_trains_its_second_branch(method, network):
    config = rows.shrink(load(f"{method}/digits"))
    config["model"] |= NETWORKS[network]
    config["optim"] |= dict(kind="sgd", lr=0.1, momentum=0.0, weight_decay=0.0, warmup=0)
    _, first, _ = rows.begin(config)
    born = jax.tree.map(np.array, first.online["params"])
    _, state, scalars = rows.train(config, 2)
    terms = config["method"]["terms"]
    assert [t.get("head", "head") for t in terms].count("twin") == len(terms) // 2
    for found in scalars:
        assert found["bad_steps"] == 0 and np.isfinite(found["objective"])
        assert all(np.isfinite(found[f"term_{i}"]) for i in range(len(terms)))
    for part in ("backbone", "head", "twin"):  # with an empty queue the first step reads 0 nats, the second moves
        pairs = zip(*map(jax.tree.leaves, (born[part], state.online["params"][part])), strict=True)
        assert max(float(np.abs(before - after).max()) for before, after in pairs) > 0, part


def test_a_variant_alone_is_over_ring_moco():
    assert load("digits") == load("ring_moco/digits") == load_default()
    assert load("cifar10") == load("ring_moco/cifar10") and load("cifar10") != load("moco/cifar10")


def load_default():
    return to_plain_data(load_config("configs/infoaug.py")[0])


def test_the_older_names_are_rows_of_it():
    for name in ("ir", "simclr"):
        for variant in ("digits", "imagenet"):
            assert to_plain_data(load_config(f"configs/infoaug_{name}.py:{variant}")[0]) == load(f"{name}/{variant}")


@pytest.mark.parametrize(
    ("variant", "said"),
    [
        ("simcrl/digits", "'configs/simcrl.py' does not exist; did you mean 'configs/simclr.py'"),
        ("simclr/digit", "unknown variant 'digit'; did you mean 'digits'"),
        ("simclr/", "variant 'simclr/' is not METHOD/VARIANT; write one such as simclr/digits"),
        ("/digits", "variant '/digits' is not METHOD/VARIANT"),
        ("a/simclr/digits", "is not METHOD/VARIANT"),
        ("simclr", "'simclr' is a method, not a variant; name its variant too, such as simclr/digits"),
        ("cmc/digits", "take a method of two crops"),
        ("pirl/digits", "take a method of two crops"),
        ("infoaug_ir/digits", "has a second branch already"),
    ],
)
def test_a_variant_that_names_no_row_of_two_crops_is_refused(variant, said):
    with pytest.raises(UserError) as error:
        load(variant)
    assert said in str(error.value) and "\n" not in str(error.value)
