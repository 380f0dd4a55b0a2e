"""Fits a config to one's own pictures: fills the fields that its variant :folder leaves open, each with a reason.

`fit` is a pure function of the config and of what is there (`Facts`). A field that is set stays as it is; where it
can't be, `fit` refuses it. The result is what config.json holds, and a later start takes the open fields from there
(`take_stored`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mi_contrast.core.errors import UserError
from mi_contrast.core.paths import get_field, has_field, is_none, set_field
from mi_contrast.data.readers import RESIDENT_BYTES
from mi_contrast.data.survey import HELD_OUT, TRAINED, choose_held_out
from mi_contrast.training.forecast import count_epochs
from mi_contrast.views.policies import jigsaw_sides

# Fields of which at least one is None in a config that is to be fitted, and none in one that was.
OPEN = (
    "steps", "data.name", "data.split", "data.test_split", "data.batch", "data.broken", "data.test_share",
    "views.size", "views.mean", "views.std", "model.backbone", "model.width", "model.stem", "model.dtype",
    "optim.warmup", "eval.every", "eval.held_out", "eval.pairs", "eval.knn_k", "checkpoint.every", "log.every",
)  # fmt: skip
MINUTES = 5  # of a run on a CPU
LEAST_STEPS, MOST_EPOCHS = 200, 400  # of a run on a CPU
RESERVE = 4  # a set that stays in memory takes at most this part of it
STORED = {64: 80, 96: 128, 224: 256}  # the short side at which pictures are kept, by the size of the views
# Pictures a second that a processor core trains on, two views each: at 96 pixels a ResNet-18 of width 16 with the 7x7
# stem, at 64 pixels `tiny` of width 64. A picture took 13 ms and 2.3 ms of a core's time, of which these rates leave a
# tenth and a quarter for cores that wait for each other.
RESNET_RATE, TINY_RATE = 68.0, 340.0
OVERHEAD = 40.0  # seconds of a run on two cores beside its steps: to start, compile, measure and write the page
GPU_EPOCHS, GPU_STEPS = 200, (2_000, 100_000)


@dataclass(frozen=True)
class Facts:
    """What a config is fitted to.

    Attributes:
      train, held_out: number of examples that are trained on, and that are held out to measure.
      classes: number of classes; 0 without labels.
      short_side: median of the pictures' shorter sides in pixels.
      image_shape: (H, W) if all pictures have one size, else None.
      backend: 'cpu', 'gpu' or 'tpu'.
      devices, cores: number of devices, and of processor cores.
      memory: bytes of memory of the machine or, if that has less, of a device.
      uses: what became of every picture that was found, in words.
      published: of the weights that a run starts from, 'model', and 'mean', 'std' and 'size' of its images; or None.
    """

    train: int
    held_out: int
    classes: int
    short_side: int
    image_shape: tuple[int, int] | None
    backend: str
    devices: int
    cores: int
    memory: int
    uses: str = ""
    published: Mapping[str, Any] | None = None


def is_open(config: Mapping[str, Any]) -> bool:
    """Whether a config has fields that are to be fitted."""
    return any(is_none(config, path) for path in OPEN)


def take_stored(config: Any, stored: Any) -> Any:
    """Returns the config with its open fields as an earlier start has settled them."""
    if config is None:
        return stored
    if isinstance(config, Mapping) and isinstance(stored, Mapping):
        return {name: take_stored(value, stored.get(name)) for name, value in config.items()}
    if isinstance(config, (tuple, list)) and isinstance(stored, (tuple, list)) and len(config) == len(stored):
        return tuple(take_stored(value, old) for value, old in zip(config, stored, strict=True))
    return config


def fit(config: Mapping[str, Any], facts: Facts) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the config with every open field filled but mean and std, and why each has its value, by its path.

    Args:
      config: plain data whose fields in `OPEN`, data.size, data.resident and sizes of pools may be None. The fields of
        `data` that depend on files alone are set.
    Raises:
      UserError: there are too few pictures, or a field that is set can't be had with them.
    """
    _check_count(facts, config["data"]["name"])
    _check_labels(config, facts)
    fitted, reasons = dict(config), dict[str, str]()

    def fill(path: str, value: Any, why: str) -> Any:
        nonlocal fitted
        if is_none(fitted, path):
            fitted = set_field(fitted, path, value)
            reasons[path] = why
        return get_field(fitted, path) if has_field(fitted, path) else None

    size = fill("views.size", *choose_size(facts))
    if isinstance(fitted["views"].get("jigsaw"), Mapping) and fitted["views"]["jigsaw"].get("cell", 0) is None:
        for name, value in jigsaw_sides(size).items():
            fill(f"views.jigsaw.{name}", value, "pixels of the jigsaw's parts, as in the released code")
    stored = choose_stored_size(facts, size)
    if stored is not None and not fitted["data"]["options"]:
        fill("data.size", stored, "pictures are kept with this shorter side, and crops are cut from it")
    for name, value, why in choose_model(facts, size, fitted["model"]["split"] is not None):
        fill(f"model.{name}", value, why)
    batch = fill("data.batch", *choose_batch(facts))
    check_batch(batch, facts)
    needed = facts.train * 3 * (fitted["data"]["size"] or facts.short_side) ** 2
    is_small = needed <= min(RESIDENT_BYTES, facts.memory // RESERVE)
    fill("data.resident", is_small, f"decoded, they take {needed / 2**20:,.0f} MiB" + (
        "" if is_small else "; they are decoded anew for every batch, which data.prepare makes several times faster"
    ))  # fmt: skip
    fitted["method"], pools = fill_method(fitted["method"], facts, batch)
    reasons |= pools
    steps = fill("steps", *choose_steps(facts, size, batch, fitted["model"]))
    fill("optim.warmup", max(1, steps // 10), "a tenth of the steps")
    fill("eval.every", -(-steps // 4), "measured five times, first of all untrained")
    fill("checkpoint.every", -(-steps // 4), "saved four times")
    fill("log.every", max(1, min(50, steps // 40)), "about forty lines or more in the log")
    fill(
        "eval.held_out",
        choose_held_out(facts.train + facts.held_out),
        "at least so many are held out; a twentieth of the pictures if that is more",
    )
    fill("eval.pairs", max(2, min(1024, facts.held_out)), f"{facts.held_out:,} pictures are held out to measure")
    check_pairs(fitted["eval"]["pairs"], facts)
    fill("eval.knn_k", max(1, min(200, facts.train // 10)), "a tenth of the pictures, at most 200")
    return fitted, reasons


def _check_count(facts: Facts, name: str) -> None:
    least = max(TRAINED, 2 * facts.devices)
    uses = f" ({facts.uses})" if facts.uses else ""
    if facts.train < least:
        raise UserError(
            f"{facts.train} pictures of {name} are too few to train on{uses}",
            fix=f"give at least {least - facts.train} more, or smaller groups",
        )
    if facts.held_out < HELD_OUT:
        raise UserError(
            f"{facts.held_out} pictures of {name} are too few to measure training on{uses}",
            fix="give more pictures or smaller groups",
        )


def _check_labels(config: Mapping[str, Any], facts: Facts) -> None:
    """Raises UserError if the method needs labels and there are none."""

    def needs_labels(support: Any) -> bool:
        return isinstance(support, Mapping) and (support.get("by") == "label" or needs_labels(support.get("of")))

    if facts.classes == 0 and any(needs_labels(term.get("support")) for term in config["method"]["terms"]):
        raise UserError(
            f"the method takes pictures of one class as positives, and {config['data']['name']} has no labels",
            fix="put each class in a folder, give --labels=labels.csv, or take another method, such as simclr",
        )


def choose_size(facts: Facts) -> tuple[int, str]:
    """Returns the side of the views in pixels, and why."""
    if facts.published is not None:
        return int(facts.published["size"]), "that of the weights the run starts from"
    size = 64 if facts.short_side < 80 else 96 if facts.short_side < 192 else 224
    seen = f"half of the pictures have a shorter side of {facts.short_side} pixels or more"
    if facts.backend == "cpu" and size > 96:
        return 96, f"{seen}, and a processor is slow above 96"
    return size, seen


def choose_stored_size(facts: Facts, size: int) -> int | None:
    """Returns the short side at which pictures are kept; None keeps them as they are, which all have one small size."""
    stored = STORED.get(size, size * 8 // 7)
    return None if facts.image_shape is not None and max(facts.image_shape) <= stored else stored


def choose_model(facts: Facts, size: int, is_split: bool) -> list[tuple[str, Any, str]]:
    """Returns the fields of the model, their values and why.

    Args:
      is_split: whether two networks share the channels, each of half the width.
    """
    if facts.published is not None:
        model, why = facts.published["model"], "that of the weights the run starts from"
        return [(name, model[name], why) for name in ("backbone", "width", "stem", "dtype")]
    if facts.backend == "cpu":
        backbone, width, stem = ("tiny", 64, "small") if size <= 64 else ("resnet18", 16, "imagenet")
        if is_split:
            width //= 2
        return [("backbone", backbone, "a small network"), ("width", width, "narrow, so that a processor trains it in "
                "minutes"), ("stem", stem, f"for {size} pixels"), ("dtype", "float32", "processors compute in it")
                ]  # fmt: skip
    width = 32 if is_split else 64
    if size >= 224 and facts.train >= 10_000:
        backbone, why = "resnet50", f"{facts.train:,} pictures of {size} pixels are enough for it"
    else:
        backbone, why = "resnet18", f"for {facts.train:,} pictures of {size} pixels"
    stem = "small" if size <= 64 else "imagenet"
    return [("backbone", backbone, why), ("width", width, "as published"), ("stem", stem, f"for {size} pixels"),
            ("dtype", "bfloat16", "accelerators are fastest in it")]  # fmt: skip


def choose_batch(facts: Facts) -> tuple[int, str]:
    """Returns the largest power of two that three quarters of the training examples fill, at most 128 or 256."""
    most = 128 if facts.backend == "cpu" else 256
    batch = 2 ** int(math.log2(max(2, min(most, 0.75 * facts.train))))
    if batch % facts.devices:
        batch = max(1, batch // facts.devices) * facts.devices
    return batch, f"{facts.train:,} pictures are trained on"


def check_batch(batch: Any, facts: Facts) -> None:
    """Raises UserError if a batch is larger than the number of training examples."""
    if isinstance(batch, int) and batch > facts.train:
        raise UserError(
            f"config.data.batch is {batch}, and {facts.train} pictures are trained on",
            fix=f"give {choose_batch(facts)[0]} or another number of at most {facts.train}",
        )


def check_pairs(pairs: Any, facts: Facts) -> None:
    """Raises UserError if more pairs are to be measured than pictures are held out."""
    if isinstance(pairs, int) and pairs > facts.held_out:
        raise UserError(
            f"config.eval.pairs is {pairs}, and {facts.held_out} pictures are held out",
            fix=f"give at most {facts.held_out}",
        )


def choose_steps(facts: Facts, size: int, batch: int, model: Mapping[str, Any]) -> tuple[int, str]:
    """Returns the number of steps, and why: about five minutes on a CPU, 200 epochs elsewhere, within limits."""
    epoch = facts.train / batch
    if facts.backend == "cpu":
        rate = compute_rate(facts, size, model)
        most = 60 * MINUTES * rate / batch
        steps = max(LEAST_STEPS, round(min(most, MOST_EPOCHS * epoch)))
        minutes = (steps * batch / rate + OVERHEAD) / 60
        return steps, (
            f"about {minutes:.0f} minutes on {facts.cores} cores" if minutes >= 1.5 else "about a minute"
        ) + f", {count_epochs(steps, batch, facts.train)}"  # fmt: skip
    low, high = GPU_STEPS
    steps = round(min(max(GPU_EPOCHS * epoch, low), high))
    return steps, count_epochs(steps, batch, facts.train)


def compute_rate(facts: Facts, size: int, model: Mapping[str, Any]) -> float:
    """Returns about how many pictures a second the processor trains on, from the times of a small network."""
    is_tiny = model["backbone"] == "tiny"
    known, side, width = (TINY_RATE, 64, 64) if is_tiny else (RESNET_RATE, 96, 16)
    rate = known * (side / size) ** 2 * min(facts.cores, 16)
    wide = (model["width"] * (2 if model["split"] is not None else 1) / width) ** 2
    deep = {"resnet34": 2.0, "resnet50": 2.3}.get(model["backbone"], 1.0)
    return rate / max(wide, 0.25) / deep / (4.0 if model["stem"] == "small" and not is_tiny else 1.0)


def fill_method(method: Any, facts: Facts, batch: int) -> tuple[Any, dict[str, str]]:
    """Returns the method with the sizes of its pools and supports that are open filled, and why, by path."""
    rows = 2 ** int(math.log2(max(batch, min(4096 if facts.backend == "cpu" else 65536, facts.train))))
    draws, near = min(4095, facts.train - 1), max(2, min(4096, facts.train // 20))
    clusters = max(2, min(30_000, facts.train // 20))
    seen = f"{facts.train:,} pictures are trained on"
    sizes: dict[str, Callable[[Mapping[str, Any]], tuple[int, str]]] = {
        "size": lambda section: (rows, f"rows of the queue: {seen}"),
        "k": lambda section: (
            (near, f"nearest rows: {seen}") if section.get("kind") == "nearest" else (draws, f"draws: {seen}")
        ),
        "number": lambda section: (clusters, f"clusters: {seen}"),
    }
    reasons: dict[str, str] = {}

    def walk(node: Any, path: str) -> Any:
        if isinstance(node, (tuple, list)):
            return tuple(walk(item, f"{path}.{number}") for number, item in enumerate(node))
        if not isinstance(node, Mapping):
            return node
        filled = {}
        for name, value in node.items():
            if value is None and name in sizes:
                filled[name], reasons[f"{path}.{name}"] = sizes[name](node)
            else:
                filled[name] = walk(value, f"{path}.{name}")
        return filled

    return walk(method, "method"), reasons
