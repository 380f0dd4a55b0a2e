"""The base of every config file: all fields of a run, and what each variant sets of them.

A variant such as :cifar10 chooses data and sizes, with settings of our own that suit them. A recipe of a paper, a
variant such as :paper_cifar10, has the optimiser, backbone, normalisation, views, temperature and number of steps of
the paper or its released code (`papers`). A config file takes one of them and adds its method, so that any one runs on
any data. Neither chooses terms or supports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mi_contrast.core.config import to_plain_data
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.schedules import Schedule, cosine
from mi_contrast.methods.skeletons import make_split_bank_method, make_split_batch_method
from mi_contrast.views import policies
from mi_contrast.views.colour import JITTERS
from mi_contrast.views.two_crops import LOCAL, SOURCES


class Recipe(NamedTuple):
    """What a variant gives a config file.

    Attributes:
      config: every field of a run; `method` is empty, for the config file to fill.
      queue_size: number of rows of a queue. Sizes are None where they are open until the pictures are seen.
      queue_temperature, bank_temperature, batch_temperature: temperature of the scores against a queue, a bank and the
        batch.
      num_draws: number of candidates that an anchor draws from a bank.
      num_clusters: number of clusters of one k-means over the bank.
      bank_start: 'random' rows, as released; or 'forward', the embeddings of one pass of the untrained network, for
        runs of a few epochs, which would spend the first on random rows.
      norm_groups: number of groups of the batch that have batch statistics of their own, for methods that shuffle keys
        between the groups. Without shuffling an anchor and its positive would share a group, so any other method
        normalises over the whole batch.
      target_momentum: momentum of the target network's moving average.
      least_area: least area of the crop of a method of channels, a share of the image.
      objective_weight: sum of the weights of the method's terms. The step of SGD scales with it, so the recipe of a
        paper whose loss is a multiple of ours has that multiple.
    """

    config: ConfigDict
    queue_size: int | None
    queue_temperature: float
    bank_temperature: float = 0.1
    batch_temperature: float = 0.5
    num_draws: int | None = 4095
    num_clusters: int | None = 552
    bank_start: str = "random"
    norm_groups: int = 1
    target_momentum: Schedule = 0.999
    least_area: float = 0.2
    objective_weight: float = 1.0

    def __getattr__(self, name: str) -> Any:
        """Returns the field that 0.1.0 knew under this name, for config files that were written then."""
        if name not in OLD_FIELDS:
            raise AttributeError(f"a recipe has no field {name!r}; it has {', '.join(self._fields)}")
        return getattr(self, OLD_FIELDS[name])


OLD_FIELDS = {
    "queue": "queue_size", "temperature": "queue_temperature", "of_bank": "bank_temperature",
    "of_batch": "batch_temperature", "drawn": "num_draws", "clusters": "num_clusters", "start": "bank_start",
    "groups": "norm_groups",
}  # fmt: skip


# For runs of a few hundred or thousand steps. Features are means of ReLUs, so the features of any two images point in
# nearly the same direction. A head without batch norm keeps that: the first embeddings of different digits have cosines
# of .87 +- .08, and a softmax at temperature .2 cannot separate them for hundreds of steps. Batch norm centres and
# scales each unit; the cosines are then 0 +- .28, and learning begins at once.
SHORT_RUN_HEAD = dict(kind="mlp_bn", hidden=None, dim=128, layers=2)
# Training examples of a set or of parts of it.
EXAMPLES = {
    "cifar10": 50_000, "cifar100": 50_000, "stl10": 5_000, "stl10_unlabelled": 100_000, "stl10_all": 105_000,
    "imagenet": 1_281_167,
}  # fmt: skip
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def steps_per_epoch(data: str, batch_size: int) -> int:
    """Returns the number of whole batches of the training examples that are not held out."""
    return (EXAMPLES[data] - round(EXAMPLES[data] / 20)) // batch_size


def _base() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0
    config.steps = 1000
    config.data = ConfigDict(
        dict(
            name="moving_digits", dir=None, split="train", test_split="test", size=None, options={}, label=None,
            shared=(), partner=None, batch=256, resident=None, order="epochs", broken=0.0,
            crop="whole", labels=None, group=None, test_share=0.0,
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
    config.eval = ConfigDict(dict(every=1000, held_out=2, pairs=1024, knn_k=200, knn_bank=20000, probe_lr=1e-3))
    config.checkpoint = ConfigDict(dict(every=1000, keep=2, start_from=None, time_limit=None))
    config.generator = ConfigDict(dict(start_from=None, learn=None))
    config.export = ConfigDict(dict(weights="online"))
    config.log = ConfigDict(dict(every=50, tensorboard=True, wandb=None, profile=None))
    return config


def _digits() -> Recipe:
    """Embedded frames of 32 pixels and a tiny network: about four minutes on two cores."""
    config = _base()
    config.steps = 1500
    config.eval.every, config.checkpoint.every = 500, 500
    config.data.shared = ("digit",)
    config.data.options = ConfigDict(dict(size=32, length=8))
    light = {"crop": {"area": (0.8, 1.0), "aspect": (1.0, 1.0)}, "jitter": dict.fromkeys(JITTERS, 0.2) | {"p": 0.8}}
    config.views = ConfigDict(policies.two_crops(32, light, (0.35, 0.35, 0.35), (0.25, 0.25, 0.25)))
    config.model.backbone, config.model.width = "tiny", 128
    config.model.head = ConfigDict({**SHORT_RUN_HEAD, "hidden": 256})
    config.optim.kind, config.optim.lr, config.optim.warmup = "adamw", cosine(0.006, 0.0), 200
    config.optim.weight_decay = 0.05
    config.log.every = 100
    return Recipe(
        config, queue_size=1024, queue_temperature=0.2, bank_temperature=0.2, batch_temperature=0.2, num_draws=1023,
        num_clusters=500, target_momentum=0.99,
    )  # fmt: skip


def _cifar10() -> Recipe:
    """ResNet-18 with the small stem, 200 epochs of CIFAR-10's 50,000 images less the twentieth that is held out."""
    config = _base()
    config.data.name = "cifar10"
    config.views = ConfigDict(policies.moco_v2(32))
    config.views.mean, config.views.std = CIFAR_MEAN, CIFAR_STD
    config.steps = 200 * steps_per_epoch("cifar10", 256)
    config.optim.lr = cosine(0.06, 0.0)
    config.optim.weight_decay = 5e-4
    return Recipe(config, queue_size=4096, queue_temperature=0.1)


def _cifar10_small() -> Recipe:
    """A ResNet-18 of width 16 and 400 steps: five to ten minutes on two cores.

    These are too few epochs for a bank that begins with random rows, or whose rows are all rewritten in turn.
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
    """As CIFAR-10."""
    recipe = _cifar10()
    recipe.config.data.name = "cifar100"
    return recipe


def _stl10() -> Recipe:
    """200 epochs of the 100,000 unlabelled images at 64 pixels. Methods that need labels take data.split='train'."""
    recipe = _cifar10()
    config = recipe.config
    config.data.name, config.data.split, config.data.size = "stl10", "unlabelled", 64
    config.views = ConfigDict(policies.moco_v2(64))
    config.steps = 200 * steps_per_epoch("stl10_unlabelled", 256)
    return recipe._replace(queue_size=16384)


def _imagenet() -> Recipe:
    """ResNet-50, 200 epochs of 1,281,167 images less the twentieth that is held out, with MoCo v2's settings."""
    config = _base()
    config.data.name, config.data.test_split, config.data.size = "imagenet2012", "validation", 256
    config.views = ConfigDict(policies.moco_v2(224))
    config.model.backbone, config.model.stem, config.model.dtype = "resnet50", "imagenet", "bfloat16"
    config.steps = 200 * steps_per_epoch("imagenet", 256)
    config.eval.every = config.checkpoint.every = 5000
    return Recipe(
        config, queue_size=65536, queue_temperature=0.2, bank_temperature=0.07, batch_temperature=0.1,
        num_clusters=30000, norm_groups=8,
    )  # fmt: skip


def _folder() -> Recipe:
    """One's own pictures. What depends on them is None, until `training.fitting` fills it at the first start."""
    config = _base()
    config.steps = None
    for field in ("name", "split", "test_split", "batch", "broken", "test_share"):
        config.data[field] = None
    config.views = ConfigDict({**policies.moco_v2(32), "size": None, "mean": None, "std": None})
    for field in ("backbone", "width", "stem", "dtype"):
        config.model[field] = None
    config.model.head = ConfigDict(SHORT_RUN_HEAD)
    config.optim.kind, config.optim.lr, config.optim.warmup = "adamw", cosine(0.001, 0.0), None
    config.eval = ConfigDict(dict(every=None, held_out=None, pairs=None, knn_k=None, knn_bank=20000, probe_lr=1e-3))
    config.checkpoint.every = config.log.every = None
    return Recipe(
        config, queue_size=None, queue_temperature=0.2, bank_temperature=0.2, batch_temperature=0.2, num_draws=None,
        num_clusters=None, bank_start="forward", target_momentum=0.99,
    )  # fmt: skip


def set_views(config: ConfigDict, policy: Callable[[int], dict[str, Any]]) -> None:
    """Sets the views to a policy's at the variant's size, normalised by the variant's mean and std.

    Digits take only the jigsaw of the policy and keep their light crops: a crop of a fifth of the area has no digit.
    """
    views, made = config.views, policy(config.views.size)
    if config.data.name == "moving_digits":
        made = {**views.to_dict(), **({"jigsaw": made["jigsaw"]} if "jigsaw" in made else {})}
    with config.unlocked():
        config.views = ConfigDict({**made, "mean": views.mean, "std": views.std})


def set_split(config: ConfigDict, division: Any, low: float = 0.2) -> None:
    """Sets the views to the two parts of one crop, each with a network of half the variant's width.

    Args:
      config: changed in place.
      division: what divides the crop (`core.division`); its channels are normalised by the released constants.
      low: least area of the crop, a share of the image; digits take .8.
    """
    digits = config.data.name == "moving_digits"
    made = policies.cmc(config.views.size, division, 0.8 if digits else low)
    if digits:  # a mirrored digit is another shape
        del made["both"]["flip"]
        made["both"]["order"] = ("crop",)
    if config.views.mean is None:
        made |= {"mean": None, "std": None}
    with config.unlocked():
        config.views = ConfigDict(made)
        config.model.split = ConfigDict(division) if isinstance(division, dict) else division
        if config.model.width is not None:
            config.model.width //= 2


def multi_crop(config: ConfigDict, count: int = 4, size: int | None = None) -> None:
    """Adds local crops, and a term for each of them, to a method of two crops.

    Each term is repeated with every local crop in place of the anchor, or in place of the positive where the anchor is
    looked up and carries no gradient. The term and its repetitions share its weight, so the objective stays an average.
    The target network and the pools see only the two large crops.

    Args:
      config: with its method set; changed in place.
      count: number of local crops.
      size: pixels a side (see `policies.multi_crop`).
    Raises:
      UserError: the views are not two crops.
    Source: Caron et al. 2020 (SwAV).
    """
    views, method = to_plain_data(config.views), to_plain_data(config.method)
    if views.get("kind") != "two_crops" or not method.get("terms"):
        fix = "call it after config.method is set, on a method of two crops"
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
    """Returns the schedule with each of its values divided by `divisor`."""
    return map_schedule(schedule, lambda value: value / divisor)


def map_schedule(schedule: Schedule, change: Callable[[float], float]) -> Schedule:
    """Returns the schedule with each of its values changed by a linear function."""
    if not isinstance(schedule, Mapping):
        return change(schedule)
    values = {name: change(schedule[name]) for name in ("a", "b", "v") if name in schedule}
    steps = {"values": tuple(map(change, schedule["values"]))} if "values" in schedule else {}
    return {**schedule, **values, **steps}


# The division of methods whose views are learned.
GENERATOR = dict(kind="generator", space="rgb", flow="additive", couplings=6, hidden=16)


def make_split_config(variant: str, division: Any) -> ConfigDict:
    """Returns the config of a variant whose crops are divided in two parts, each scored against the batch's others."""
    base = recipe(variant)
    pair_with_itself(base.config)
    set_split(base.config, division)
    base.config.method = make_split_batch_method(dict(kind="all"), base.bank_temperature)
    return base.config


def make_split_bank_config(
    variant: str, paper: Mapping[str, Callable[[], Recipe]], support: Mapping[str, Any]
) -> ConfigDict:
    """Returns the config of a variant whose crops are divided into Lab's lightness and colours, each with a bank.

    Each part is scored against draws from a support of the other part's bank.

    Args:
      paper: recipes beside the variants (see `recipe`).
      support: what is drawn from.
    """
    base = recipe(variant, paper)
    pair_with_itself(base.config)
    set_split(base.config, "lab", base.least_area)
    draws = dict(kind="drawn", k=base.num_draws, of=support)
    base.config.method = make_split_bank_method(draws, base.bank_temperature, base.bank_start, base.objective_weight)
    return base.config


def pair_with_itself(config: ConfigDict) -> None:
    """Makes both views of an example from one image, as methods with one bank row for each example need it."""
    config.data.shared = ()


VARIANTS = {
    "digits": _digits,
    "cifar10_small": _cifar10_small,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "stl10": _stl10,
    "imagenet": _imagenet,
}


# One's own pictures, the variant whose sizes are open until its pictures are seen.
OWN = {"folder": _folder}


def recipe(variant: str, paper: Mapping[str, Callable[[], Recipe]] | None = None) -> Recipe:
    """Returns a variant's recipe; its config is locked and has an empty `method`.

    Args:
      variant: one of `VARIANTS`, 'folder', or of the paper's own.
      paper: the recipes of a paper by the names of their variants, such as `papers.RING`.
    Raises:
      UserError: an unknown variant.
    """
    variants = {**VARIANTS, **OWN, **(paper or {})}
    if variant not in variants:
        raise unknown("variant", variant, variants)
    made = variants[variant]()
    made.config.lock()
    return made


# Names that 0.1.0 had, for config files that were written then.
alone, viewed = pair_with_itself, set_views
