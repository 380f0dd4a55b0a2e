"""Recipes: every field a run has, and what a variant sets of them: data, sizes, temperature, queue and optimiser.

A config file takes a recipe and adds its row, so that the same method runs on any of these data and the same data
serve any method; a variant never touches terms or supports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mi_contrast.core.config import plain
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.schedules import Schedule, cosine
from mi_contrast.methods.skeletons import make_split_batch_method
from mi_contrast.views import policies
from mi_contrast.views.colour import JITTERS
from mi_contrast.views.two_crops import LOCAL, SOURCES


class Recipe(NamedTuple):
    """What a variant gives a config file: the config but for its row, and the sizes for the row to use.

    queue: rows of a queue; temperature, of_bank, of_batch: temperatures against a queue, a bank and a batch; drawn:
    candidates that an anchor draws from a bank; clusters: of one k-means over the bank, one for each 43 examples as
    released for ImageNet; start: of a bank's rows, 'random' as released, or 'forward', one pass of the untrained
    network, where a run has a few epochs and the first would go to random rows; groups: of batch statistics, for rows
    whose keys are shuffled between groups. Any other row needs the whole batch's: there an anchor and its positive
    would share a group.
    """

    config: ConfigDict
    queue_size: int
    queue_temperature: float
    bank_temperature: float = 0.1
    batch_temperature: float = 0.5
    num_draws: int = 4095
    num_clusters: int = 552
    bank_start: str = "random"
    norm_groups: int = 1
    target_momentum: Schedule = 0.999


# For the variants of a few hundred or thousand steps. Features are means of ReLUs, so that those of any two images
# point the same way: a head without batch norm keeps that, cosines of .87 +- .08 between the first embeddings of
# different digits, and a softmax at temperature .2 hardly tells them apart, for hundreds of steps. Batch norm centres
# and scales each unit: 0 +- .28, and learning begins at once.
SHORT_RUN_HEAD = dict(kind="mlp_bn", hidden=None, dim=128, layers=2)
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def _base() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 1000
    config.data = ConfigDict(
        dict(
            name="moving_digits", dir=None, split="train", test_split="test", size=None, options={}, label=None,
            shared=(), partner=None, batch=256, resident=None, order="epochs", broken=0.0,
        )
    )  # fmt: skip
    config.views = ConfigDict(policies.moco_v2(32))
    config.model = ConfigDict(
        dict(
            backbone="resnet18", width=64, stem="small", norm=dict(kind="batch", groups=1),
            head=dict(kind="mlp", hidden=None, dim=128), predictor=None, twin=None, jigsaw=None, split=None,
            dtype="float32",
            remat=False, patch=None, depth=None, heads=None, positions=None, patch_embed=None,
        )
    )  # fmt: skip
    config.method = ConfigDict()
    config.optim = ConfigDict(
        dict(
            kind="sgd", lr=cosine(0.03, 0.0), warmup=0, decay_after_warmup=True, momentum=0.9, weight_decay=1e-4,
            decay_all=None, clip=None, patience=20, microbatches=1,
        )
    )  # fmt: skip
    config.eval = ConfigDict(dict(every=1000, pairs=1024, knn_k=200, knn_bank=20000, probe_lr=1e-3))
    config.checkpoint = ConfigDict(dict(every=1000, keep=2, start_from=None, time_limit=None))
    config.generator = ConfigDict(dict(start_from=None, learn=None))
    config.export = ConfigDict(dict(weights="online"))
    config.log = ConfigDict(dict(every=50, tensorboard=True, wandb=None, profile=None))
    return config


def _digits() -> Recipe:
    """Four minutes on two cores: embedded frames of 32 px, a tiny network."""
    config = _base()
    config.steps = 3000
    config.data.shared = ("digit",)
    config.data.options = ConfigDict(dict(size=32, length=8))
    light = {"crop": {"area": (0.8, 1.0), "aspect": (1.0, 1.0)}, "jitter": dict.fromkeys(JITTERS, 0.2) | {"p": 0.8}}
    config.views = ConfigDict(policies.two_crops(32, light, (0.35, 0.35, 0.35), (0.25, 0.25, 0.25)))
    config.model.backbone, config.model.width = "tiny", 64
    config.model.head = ConfigDict(SHORT_RUN_HEAD)
    config.optim.kind, config.optim.lr, config.optim.warmup = "adamw", cosine(0.003, 0.0), 200
    config.log.every = 100
    return Recipe(
        config, queue_size=1024, queue_temperature=0.2, bank_temperature=0.2, batch_temperature=0.2, num_draws=1023,
        num_clusters=500, target_momentum=0.99,
    )  # fmt: skip


def _cifar10() -> Recipe:
    """200 epochs of 50,000 images less the held-out twentieth, ResNet-18 with the small stem, a queue of 4,096."""
    config = _base()
    config.data.name = "cifar10"
    config.views = ConfigDict(policies.moco_v2(32))
    config.views.mean, config.views.std = CIFAR_MEAN, CIFAR_STD
    config.steps = 200 * (47500 // 256)
    config.optim.lr = cosine(0.06, 0.0)
    config.optim.weight_decay = 5e-4
    return Recipe(config, queue_size=4096, queue_temperature=0.1)


def _cifar10_small() -> Recipe:
    """Five to ten minutes on two cores: a ResNet-18 of width 16. Too few epochs for banks to begin at random, or to be
    written in turn.
    """
    recipe = _cifar10()
    config = recipe.config
    config.data.order = "draws"
    config.model.width = 16
    config.model.head = ConfigDict(SHORT_RUN_HEAD)
    config.steps = 400
    config.eval.every = 200
    return recipe._replace(bank_start="forward")


def _cifar100() -> Recipe:
    """200 epochs of 50,000 images less the held-out twentieth, as CIFAR-10."""
    recipe = _cifar10()
    recipe.config.data.name = "cifar100"
    return recipe


def _stl10() -> Recipe:
    """200 epochs of the 100,000 images without labels, at 64 pixels; labels and their judges want split='train'."""
    recipe = _cifar10()
    config = recipe.config
    config.data.name, config.data.split, config.data.size = "stl10", "unlabelled", 64
    config.views = ConfigDict(policies.moco_v2(64))
    config.steps = 200 * (95000 // 256)
    return recipe._replace(queue_size=16384)


def _imagenet() -> Recipe:
    """200 epochs of 1,281,167 images less the held-out twentieth, ResNet-50, as MoCo v2."""
    config = _base()
    config.data.name, config.data.test_split, config.data.size = "imagenet2012", "validation", 256
    config.views = ConfigDict(policies.moco_v2(224))
    config.model.backbone, config.model.stem, config.model.dtype = "resnet50", "imagenet", "bfloat16"
    config.steps = 200 * (1217109 // 256)
    config.eval.every = config.checkpoint.every = 5000
    return Recipe(
        config, queue_size=65536, queue_temperature=0.2, bank_temperature=0.07, batch_temperature=0.1,
        num_clusters=30000, norm_groups=8,
    )  # fmt: skip


def set_views(config: ConfigDict, policy: Callable[[int], dict[str, Any]]) -> None:
    """Gives the config a policy's ops, at the variant's size, with its mean and std. Digits keep their light crops, and
    take the policy's jigsaw alone: a crop of a fifth of the area has no digit in it.
    """
    views, made = config.views, policy(config.views.size)
    if config.data.name == "moving_digits":
        made = {**views.to_dict(), **({"jigsaw": made["jigsaw"]} if "jigsaw" in made else {})}
    with config.unlocked():
        config.views = ConfigDict({**made, "mean": views.mean, "std": views.std})


def set_split(config: ConfigDict, division: Any) -> None:
    """Two views of one crop, divided (see `core.division`), by the constants released for the colour space, each with a
    network of half the variant's width.
    """
    digits = config.data.name == "moving_digits"
    made = policies.cmc(config.views.size, division, 0.8 if digits else 0.2)
    if digits:  # a mirrored digit is another
        del made["both"]["flip"]
        made["both"]["order"] = ("crop",)
    with config.unlocked():
        config.views = ConfigDict(made)
        config.model.split = ConfigDict(division) if isinstance(division, dict) else division
    config.model.width //= 2


def multi_crop(config: ConfigDict, count: int = 4, size: int | None = None) -> None:
    """Gives a row of two crops `count` local crops of `size` pixels a side (see `policies.multi_crop`), the row being
    in the config already. Every term is scored for each of them too, a local crop standing in for the anchor, or for
    the positive where the anchor is looked up and carries no gradient; they and the term share its weight, so that the
    objective stays an average. The target and the pools see the two large crops alone.

    Source: Caron et al. 2020 (SwAV). Raises UserError where the views are not two crops.
    """
    views, method = plain(config.views), plain(config.method)
    if views.get("kind") != "two_crops" or not method.get("terms"):
        fix = "call it after config.method is set, on a row of two crops"
        raise UserError(f"there are no two crops of kind {views.get('kind')!r} to set local crops beside", fix=fix)
    whole, local = [], []
    for term in method["terms"]:
        side = "positive" if term.get("look_up") else "anchor"
        among = count + 1 if term[side] in SOURCES else 1
        term = {**term, "weight": divide_schedule(term["weight"], among)}
        whole.append(term)
        local += [{**term, side: f"{LOCAL}_{i}"} for i in range(among - 1)]
    with config.unlocked():
        config.views = ConfigDict(policies.multi_crop(views, count, size))
        config.method = {**method, "terms": (*whole, *local)}


def divide_schedule(schedule: Schedule, divisor: int) -> Schedule:
    """The schedule's values divided by a number."""
    return map_schedule(schedule, lambda value: value / divisor)


def map_schedule(schedule: Schedule, change: Callable[[float], float]) -> Schedule:
    """The schedule with `change` done to each of its values, a linear one."""
    if not isinstance(schedule, Mapping):
        return change(schedule)
    values = {name: change(schedule[name]) for name in ("a", "b", "v") if name in schedule}
    steps = {"values": tuple(map(change, schedule["values"]))} if "values" in schedule else {}
    return {**schedule, **values, **steps}


GENERATOR = dict(kind="generator", space="rgb", flow="additive", couplings=6, hidden=16)  # what divides, if learned


def make_split_config(variant: str, division: Any) -> ConfigDict:
    """The config of a variant whose examples are divided in two, a network each, against the batch."""
    base = recipe(variant)
    pair_with_itself(base.config)
    set_split(base.config, division)
    base.config.method = make_split_batch_method(dict(kind="all"), base.bank_temperature)
    return base.config


def pair_with_itself(config: ConfigDict) -> None:
    """Every example its own pair, as methods of one row an example have it."""
    config.data.shared = ()


VARIANTS = {
    "digits": _digits,
    "cifar10_small": _cifar10_small,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "stl10": _stl10,
    "imagenet": _imagenet,
}


def recipe(variant: str) -> Recipe:
    """The recipe of a variant: a locked config whose `method` is empty, a queue size, a temperature.

    Raises UserError on an unknown variant.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    made = VARIANTS[variant]()
    made.config.lock()
    return made
