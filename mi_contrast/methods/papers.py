"""Recipes of papers: optimiser, backbone, normalisation, views, temperature and number of steps, each with its source.

A recipe begins with the data of one of our variants and replaces everything that a paper or its released code sets. A
value's comment quotes a note on where the value is from: the released code where nothing else is said. `recalled` marks
what is known from memory of the paper alone; `ours` marks a choice where the paper's value is not known.

The recipes never choose terms or supports, and these differences hold for all of them:
  - a twentieth of the training examples is held out, so a run of 200 epochs has 5 % fewer steps than the paper's;
  - ImageNet's images are cropped to their central square of 256 pixels when they are read, and smaller images enlarged
    where views have 224 pixels, so that a crop is interpolated twice;
  - the objective is averaged over directions where the released code adds them, but for optimisers whose step scales
    with the loss (`objective_weight`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ml_collections import ConfigDict

from mi_contrast.core.schedules import constant, cosine, step
from mi_contrast.methods.recipes import CIFAR_MEAN, EXAMPLES, VARIANTS, Recipe, steps_per_epoch
from mi_contrast.views import policies

Paper = Mapping[str, Callable[[], Recipe]]

DATA = ("cifar10", "cifar100", "stl10", "imagenet")
SGD = dict(kind="sgd", warmup=0, momentum=0.9, weight_decay=1e-4)


def make_base(data: str, views: Mapping[str, Any], *, batch_size: int, epochs: int) -> ConfigDict:
    """Returns a config of a variant's data with the views, batch size and number of epochs given, in float32."""
    config = VARIANTS[data.removesuffix("_all")]().config
    config.views = ConfigDict(dict(views))
    config.data.batch = batch_size
    config.steps = epochs * steps_per_epoch(data, batch_size)
    config.model.dtype = "float32"
    return config


def enlarge(config: ConfigDict, data: str) -> None:
    """Reads small images at 224 pixels, to measure them at the size of the views; takes the labelled part of STL-10.

    5,000 labelled images leave 250 that are held out, and as many pairs to measure.
    """
    if data != "imagenet":
        config.data.size = 224
    if data == "stl10":
        config.data.split, config.eval.pairs = "train", 250


def share(time: int, total: int) -> float:
    """Returns time / total rounded down, so that a schedule changes at the step meant and not one step later."""
    return math.floor(time / total * 1e12) / 1e12


def set_optimiser(config: ConfigDict, **fields: Any) -> None:
    """Replaces fields of the optimiser, schedules as a whole."""
    for name, value in fields.items():
        config.optim[name] = value


def make_ring_recipe(data: str) -> Recipe:
    """Wu et al. 2021 (Ring) and, but for its head and its constant rate, Wu et al. 2020.

    One recipe serves CIFAR-10, CIFAR-100 and STL-10 (config/pretrain). No code was released for ImageNet, which is
    trained by the same recipe here, nor for channels and for neighbours as positives beyond a flag.
    """
    # "InsDis aug at 224 (RRC .2-1, gray .2, jitter .4x4 always, flip) even for CIFAR/STL", "ImageNet mean/std
    # everywhere" (datasets.py, load_default_transforms); "batch 256", "epochs 200" (config/pretrain).
    config = make_base(data, policies.moco_v1(224), batch_size=256, epochs=200)
    config.seed = 1337  # config/pretrain
    enlarge(config, data)  # STL-10: "split 'train' (5k labelled) only"; the paper's is unknown
    # "ResNet-18 (torchvision), 7x7 stem + maxpool by default"; "Linear(512,512)-ReLU-Linear(512,128) ALWAYS".
    config.model.backbone, config.model.width, config.model.stem = "resnet18", 64, "imagenet"
    config.model.head = ConfigDict(dict(kind="mlp", hidden=None, dim=128))
    # "SGD lr .03, momentum .9, wd 1e-4"; "x0.1 at int(.68E)=136 and int(.83E)=166 for E=200; no cosine" (run.py).
    set_optimiser(config, **SGD, lr=step((0.03, 0.003, 0.0003), (0.68, 0.83)))
    return Recipe(
        config,
        queue_size=65536,  # moco_ring.json; moco.json has 4,096, and one size for all is fair
        queue_temperature=0.07,  # "tau .07 (IR, MoCo; also for MoCo-v2 ring, not .2)"
        bank_temperature=0.07,
        num_draws=4095,  # "4096 (incl. positive)"
        num_clusters=30_000 * EXAMPLES[data] // EXAMPLES["imagenet"],  # ours: as many examples each as on ImageNet
        bank_start="random",  # uniform, then of unit length (memory.py)
        norm_groups=1,  # keys are shuffled on one device, to no effect
        target_momentum=0.999,  # config/pretrain/mocov2
    )


def make_cmc_recipe(data: str) -> Recipe:
    """Tian et al. 2020 (Contrastive Multiview Coding), with the backbone and the size of Wu et al. 2021 (Ring).

    What Wu et al. 2021 set for channels is not known but for their ResNet-18 and their temperature, which is the same.
    All else is the code of Tian et al. 2020: train_CMC.py, models/resnet.py. A method of channels sets the views and
    halves the width itself.
    """
    # "batch 128 (256 AlexNet), 240 epochs"; 224 pixels on small images are ours, as for the other methods.
    config = make_base(data, policies.cmc(224), batch_size=128, epochs=240)
    enlarge(config, data)
    # "ResNet width .5 'v1'"; "ResNet-18 [recalled M]"; a linear layer to 128 (models/resnet.py).
    config.model.backbone, config.model.width, config.model.stem = "resnet18", 64, "imagenet"
    config.model.head = ConfigDict(dict(kind="linear", dim=128))
    # "SGD .03, mom .9, wd 1e-4", "/10 after 120,160,200".
    boundaries = tuple(share(epoch, 240) for epoch in (120, 160, 200))
    set_optimiser(config, **SGD, lr=step((0.03, 0.003, 0.0003, 0.00003), boundaries))
    return Recipe(
        config,
        queue_size=65536,  # not its own
        queue_temperature=0.07,
        bank_temperature=0.07,  # "tau .07 (STL10 .1)", and .07 throughout in Wu et al. 2021
        num_draws=4096,  # "nce_k 4096 in README", the positive not counted; 16,384 by the code's default
        least_area=0.08 if data == "imagenet" else 0.2,  # "crop_low .2, forced .08 for ResNets on ImageNet"
        objective_weight=2.0,  # "loss = loss_l + loss_ab"
    )


def make_aggregation_recipe() -> Recipe:
    """Zhuang et al. 2019 (Local Aggregation), ResNet-18 on ImageNet: exp_configs/la_final.json, param_setter.py."""
    # "batch 128", "2001800 steps total (200 epochs)"; views ours, those of instance discrimination.
    config = make_base("imagenet", policies.moco_v1(224), batch_size=128, epochs=200)
    config.model.backbone, config.model.stem = "resnet18", "imagenet"
    config.model.head = ConfigDict(dict(kind="linear", dim=128))  # a dense layer of 128 units (instance_model.py)
    # "lr .03, /10 at steps 1600000 and 1873411 (R18)" of 2001800; "mom .9, wd 1e-4 (BN excluded)".
    boundaries = share(1_600_000, 2_001_800), share(1_873_411, 2_001_800)
    set_optimiser(config, **SGD, lr=step((0.03, 0.003, 0.0003), boundaries), decay_all=False)
    # "tau .07"; "top-k (k=4096)"; "10 k-means of 30000". A queue is not its own.
    return Recipe(config, queue_size=65536, queue_temperature=0.07, bank_temperature=0.07, num_clusters=30_000)


def make_infomin_recipe(epochs: int) -> Recipe:
    """Tian et al. 2020 (InfoMin Aug), ResNet-50 on ImageNet: pycontrast/options."""
    config = make_base("imagenet", policies.infomin(224), batch_size=256, epochs=epochs)  # "batch 256 global"
    config.model.backbone, config.model.stem = "resnet50", "imagenet"
    config.model.head = ConfigDict(dict(kind="mlp", hidden=None, dim=128))  # "2048->2048, ReLU, 2048->128"
    # "lr 0.03; SGD momentum 0.9; wd 1e-4 (on everything, BN and biases too)"; "lr_min = lr * 0.1^3", per epoch there.
    set_optimiser(config, **SGD, lr=cosine(0.03, 0.03 * 0.1**3))
    return Recipe(
        config,
        queue_size=65536,  # "nce_k 65536"
        queue_temperature=0.15,  # "tau 0.15"
        norm_groups=8,  # ours: keys are shuffled within a node, of 8 devices at most in its scripts
        target_momentum=0.999,  # "alpha 0.999"
    )


def make_simclr_recipe(data: str) -> Recipe:
    """Chen et al. 2020 (SimCLR) on CIFAR-10 and ImageNet: README.md, run.py, model_util.py, data_util.py."""
    cifar = data == "cifar10"
    # CIFAR-10: "B 512, 1000 ep, no blur, jitter strength .5". ImageNet: "B 4096", "R50 v1 1000-epoch".
    batch_size, epochs = 512 if cifar else 4096, 1000
    views = policies.simclr(32, strength=0.5, blur=0.0) if cifar else policies.simclr(224)
    config = make_base(data, views, batch_size=batch_size, epochs=epochs)
    # "R18", "R50"; the stem is small at 32 pixels (run.py, cifar_stem).
    config.model.backbone, config.model.stem = ("resnet18", "small") if cifar else ("resnet50", "imagenet")
    # "num_proj_layers=3, mid width = feature width, out 128"; the last norm keeps its scale there.
    config.model.head = ConfigDict(dict(kind="mlp_bn", layers=3, hidden=None, dim=128))
    # "LARS (momentum .9, eeta 1e-3, wd 1e-4, BN/bias excluded from wd AND adaptation)"; "lr linear .3*B/256", CIFAR-10
    # "lr 1.0", "per batch size of 256" as well (run.py); "warmup 10 epochs then cosine per step".
    rate = (1.0 if cifar else 0.3) * batch_size / 256
    warmup = 10 * steps_per_epoch(data, batch_size)
    set_optimiser(config, kind="lars", lr=cosine(rate, 0.0), warmup=warmup, momentum=0.9, weight_decay=1e-4)
    # "tau .1 ImageNet, .5 CIFAR"; a queue is not its own. Directions are added, which does not matter to LARS.
    return Recipe(config, queue_size=65536, queue_temperature=0.1, batch_temperature=0.5 if cifar else 0.1)


def make_simclr_of_supcon_recipe() -> Recipe:
    """SimCLR on CIFAR-100 as Khosla et al. 2020 (SupCon) compare with it: README.md, main_supcon.py, util.py."""
    # Crops of .2 or more, flip, jitter (.4,.4,.4,.1) p .8, grey .2 (recalled); mean and std of main_supcon.py.
    query = policies.moco_v2(32)["query"]
    ops = {name: query[name] for name in ("crop", "flip", "jitter", "grey")}
    views = policies.two_crops(32, ops, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
    config = make_base("cifar100", views, batch_size=1024, epochs=1000)  # "B 1024", "1000 ep"
    # "R50 3x3 stem, head Linear-ReLU-Linear(128) no BN".
    config.model.backbone, config.model.stem = "resnet50", "small"
    config.model.head = ConfigDict(dict(kind="mlp", hidden=None, dim=128))
    # "lr .5, cosine, wd 1e-4; warmup 10 epochs from .01 if B>256", and the cosine, from the first epoch on, ends at a
    # thousandth of the rate (util.py).
    warmup = 10 * steps_per_epoch("cifar100", 1024)
    set_optimiser(config, **SGD | dict(warmup=warmup), lr=cosine(0.5, 0.5 * 0.1**3), decay_after_warmup=False)
    # "SimCLR tau .5"; "value and gradient are scaled by tau/.07".
    return Recipe(config, queue_size=65536, queue_temperature=0.5, batch_temperature=0.5, objective_weight=0.5 / 0.07)


def make_simclr_of_hcl_recipe() -> Recipe:
    """SimCLR on STL-10 as Robinson et al. 2021 and Chuang et al. 2020 compare with it: HCL, image/main.py, utils.py."""
    # "crop 32 RRC default scale, flip, jitter(.4,.4,.4,.1) p.8, gray .2, blur"; normalised as CIFAR-10 (utils.py).
    views = policies.simclr(32, strength=0.5) | dict(mean=CIFAR_MEAN, std=(0.2023, 0.1994, 0.2010))
    config = make_base("stl10_all", views, batch_size=256, epochs=400)  # "B 256, 400 (HCL) / 500 (DEB) ep"
    config.data.split, config.data.size = "train+unlabelled", None  # "STL10 uses train+unlabeled at 32 px"
    # "R50 3x3 stem, no maxpool, head 2048-512(BN,ReLU)-128".
    config.model.backbone, config.model.stem = "resnet50", "small"
    config.model.head = ConfigDict(dict(kind="mlp_bn", layers=2, hidden=512, dim=128, last_bn=False))
    # "Adam 1e-3 wd 1e-6", at a constant rate. Its decay is a part of the gradient; ours is decoupled.
    set_optimiser(config, kind="adamw", lr=constant(1e-3), warmup=0, weight_decay=1e-6)
    return Recipe(config, queue_size=65536, queue_temperature=0.5, batch_temperature=0.5)  # "t .5"


def make_moco_v3_recipe(epochs: int, rate: float = 0.3, decay: float = 1e-6, momentum: float = 0.99) -> Recipe:
    """Chen, Xie and He 2021 (MoCo v3), ResNet-50 on ImageNet: main_moco.py, CONFIG.md.

    Args:
      rate: learning rate for 256 images.
    """
    # "B 4096", "crop-min .2 for R50", "Aug1 blur p1.0; aug2 blur p.1, solarize p.2".
    config = make_base("imagenet", policies.moco_v3(224), batch_size=4096, epochs=epochs)
    # "proj (R50 2-layer 4096->256, hidden BN-ReLU, last BN no affine), predictor 2-layer (R50 last BN off)".
    config.model.backbone, config.model.stem = "resnet50", "imagenet"
    config.model.head = ConfigDict(dict(kind="mlp_bn", layers=2, hidden=4096, dim=256))
    config.model.predictor = ConfigDict(dict(hidden=4096, layers=2))
    # "LARS lr .6*B/256 (100 ep) or .3 (300, 1000), wd 1e-6 (1.5e-6 at 1000), warmup 10".
    warmup = 10 * steps_per_epoch("imagenet", 4096)
    set_optimiser(config, kind="lars", lr=cosine(rate * 16, 0.0), warmup=warmup, momentum=0.9, weight_decay=decay)
    return Recipe(
        config,
        queue_size=65536,  # not its own
        queue_temperature=0.2,  # not its own
        batch_temperature=1.0,  # "default tau 1.0"
        norm_groups=1,  # synchronised over devices (main_moco.py)
        target_momentum=cosine(momentum, 1.0),  # "m .99, cosine to 1; .996 for 1000 ep"
    )


def make_moco_v3_vit_recipe() -> Recipe:
    """Chen, Xie and He 2021 (MoCo v3), ViT-S/16 on ImageNet, 300 epochs: CONFIG.md."""
    recipe = make_moco_v3_recipe(300)
    config = recipe.config
    config.views = ConfigDict(policies.moco_v3(224, low=0.08))  # "crop-min .2 for R50", .08 for transformers
    config.model.update(backbone="vit_small", heads=12, width=32)  # 384 = 12 x 32, patches of 16 pixels
    config.model.head.layers = 3  # "ViT 3-layer"
    # "AdamW 1.5e-4, wd .1, warmup 40 for ViT, stop-grad patch embed".
    warmup = 40 * steps_per_epoch("imagenet", 4096)
    set_optimiser(config, kind="adamw", lr=cosine(1.5e-4 * 16, 0.0), warmup=warmup, weight_decay=0.1)
    return recipe._replace(batch_temperature=0.2)  # "tau 1.0 (ViT .2)"


RING: Paper = {f"paper_{data}": partial(make_ring_recipe, data) for data in DATA}
CMC: Paper = {f"paper_{data}": partial(make_cmc_recipe, data) for data in DATA}
LOCAL_AGGREGATION: Paper = {**RING, "paper_imagenet": make_aggregation_recipe}
INFOMIN: Paper = {
    "paper_imagenet": partial(make_infomin_recipe, 200),
    "paper_imagenet_800": partial(make_infomin_recipe, 800),
}
SIMCLR: Paper = {
    "paper_cifar10": partial(make_simclr_recipe, "cifar10"),
    "paper_cifar100": make_simclr_of_supcon_recipe,
    "paper_stl10": make_simclr_of_hcl_recipe,
    "paper_imagenet": partial(make_simclr_recipe, "imagenet"),
}
MOCO_V3: Paper = {
    "paper_imagenet": partial(make_moco_v3_recipe, 100, rate=0.6),
    "paper_imagenet_300": partial(make_moco_v3_recipe, 300),
    "paper_imagenet_1000": partial(make_moco_v3_recipe, 1000, decay=1.5e-6, momentum=0.996),
    "paper_imagenet_vit": make_moco_v3_vit_recipe,
}
