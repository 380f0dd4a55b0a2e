"""Recipes: every field a run has, and what a variant sets of them: data, sizes, temperature, queue and optimiser.

A config file takes a recipe and adds its row, so that the same method runs on any of these data and the same data
serve any method; a variant never touches terms or supports.
"""

from __future__ import annotations

from typing import NamedTuple

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.core.schedules import cosine
from mi_contrast.views import policies
from mi_contrast.views.colour import JITTERS


class Recipe(NamedTuple):
    """What a variant gives a config file: the config but for its row, and the sizes for the row to use."""

    config: ConfigDict
    queue: int
    temperature: float


CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def _base() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 1000
    config.data = ConfigDict(
        dict(
            name="moving_digits", dir=None, split="train", test_split="test", size=None, options={}, label=None,
            shared=(), batch=256, resident=None,
        )
    )  # fmt: skip
    config.views = ConfigDict(policies.moco_v2(32))
    config.model = ConfigDict(
        dict(
            backbone="resnet18", width=64, stem="small", norm=dict(kind="batch", groups=1),
            head=dict(kind="mlp", hidden=None, dim=128), dtype="float32", remat=False,
        )
    )  # fmt: skip
    config.method = ConfigDict()
    config.optim = ConfigDict(
        dict(
            kind="sgd", lr=cosine(0.03, 0.0), warmup=0, momentum=0.9, weight_decay=1e-4, decay_all=True, clip=None,
            patience=20,
        )
    )  # fmt: skip
    config.eval = ConfigDict(dict(every=1000, pairs=1024, knn_k=200, knn_bank=20000, probe_lr=1e-3))
    config.checkpoint = ConfigDict(dict(every=1000, keep=2, start_from=None, time_limit=None))
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
    config.optim.kind, config.optim.lr, config.optim.warmup = "adamw", cosine(0.003, 0.0), 200
    config.log.every = 100
    return Recipe(config, queue=1024, temperature=0.2)


def _cifar10() -> Recipe:
    """200 epochs of 25,000 images, ResNet-18 with the small stem; the queue a sixth of the data at hand."""
    config = _base()
    config.data.name = "cifar10"
    config.views = ConfigDict(policies.moco_v2(32))
    config.views.mean, config.views.std = CIFAR_MEAN, CIFAR_STD
    config.steps = 200 * (23750 // 256)
    config.optim.lr = cosine(0.06, 0.0)
    config.optim.weight_decay = 5e-4
    return Recipe(config, queue=4096, temperature=0.1)


def _cifar10_small() -> Recipe:
    """Five to ten minutes on two cores: a ResNet-18 of width 16."""
    config, queue, temperature = _cifar10()
    config.model.width = 16
    config.steps = 400
    config.eval.every = 200
    return Recipe(config, queue, temperature)


def _imagenet() -> Recipe:
    """200 epochs of 1,281,167 images less the held-out twentieth, ResNet-50, as MoCo v2."""
    config = _base()
    config.data.name, config.data.test_split, config.data.size = "imagenet2012", "validation", 256
    config.views = ConfigDict(policies.moco_v2(224))
    config.model.backbone, config.model.stem, config.model.dtype = "resnet50", "imagenet", "bfloat16"
    config.model.norm.groups = 8
    config.steps = 200 * (1217109 // 256)
    config.eval.every = config.checkpoint.every = 5000
    return Recipe(config, queue=65536, temperature=0.2)


VARIANTS = {"digits": _digits, "cifar10_small": _cifar10_small, "cifar10": _cifar10, "imagenet": _imagenet}


def recipe(variant: str) -> Recipe:
    """The recipe of a variant: a locked config whose `method` is empty, a queue size, a temperature.

    Raises UserError on an unknown variant.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    found = VARIANTS[variant]()
    found.config.lock()
    return found
