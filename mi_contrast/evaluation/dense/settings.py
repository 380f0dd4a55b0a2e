"""How a detector is built, fitted and scored: the fields of config.task and config.data, and what they may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mi_contrast.core.errors import UserError, unknown

MODELS = {"faster": ("bbox",), "mask": ("bbox", "segm"), "keypoint": ("bbox", "keypoints")}  # and what each predicts
NORMS, HEAD_NORMS = ("frozen", "batch"), (None, "batch", "group")
GROUPS = 32


@dataclass(frozen=True)
class Detection:
    """A detector and its training.

    model: 'faster' (boxes), 'mask' (boxes and masks) or 'keypoint' (boxes and keypoints), R-CNNs with an FPN.
    trainable_layers: of the backbone, from its last stage: 0 none, 1 to 4 so many stages, 5 all with the stem.
    norm: of the batch norms in trained stages: 'frozen', constants as in torchvision's detectors, or 'batch', trained,
      with statistics of the batch while fitting. In the other stages they are constants always.
    head_norm: None, 'batch' or 'group' (32 groups) in the FPN, the box head (then 4 convolutions and 1 layer, else 2
      layers) and the mask head.
    levels: stages that the FPN is built on, of 1 to 4; None for all, or 2 to 4 of a net with the small stem.
    channels, hidden: of the FPN and of the box head's layers; anchor: the anchors' side in strides of their level.
    proposals: kept an image; samples: of these the box loss takes.
    sizes, max_size: short sides in pixels, one drawn for each image in fitting, the last one in testing; the longest
      long side. flip: whether half of the images in fitting are mirrored.
    iterations, batch_size, lr, steps, gamma, warmup, warmup_factor, momentum, weight_decay: SGD. lr rises linearly
      from warmup_factor of it over `warmup` iterations and is multiplied by gamma at each of `steps`; norms do not
      decay.
    measure_every: iterations between scorings on the test set, 0 for one at the start and one at the end; no choice is
      made by them. save_every: iterations between checkpoints; time_limit: in seconds, after which it saves and stops.
    pictures: test images drawn with what was detected. device: of torch; None for 'cuda' where there is one.
    """

    model: str = "faster"
    trainable_layers: int = 3
    norm: str = "frozen"
    head_norm: str | None = None
    levels: tuple[int, ...] | None = None
    channels: int = 256
    hidden: int = 1024
    anchor: float = 8.0
    proposals: int = 1000
    samples: int = 512
    sizes: tuple[int, ...] = (800,)
    max_size: int = 1333
    flip: bool = True
    iterations: int = 90_000
    batch_size: int = 16
    lr: float = 0.02
    steps: tuple[int, ...] = (60_000, 80_000)
    gamma: float = 0.1
    warmup: int = 1000
    warmup_factor: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 1e-4
    measure_every: int = 0
    save_every: int = 1000
    time_limit: float | None = None
    pictures: int = 6
    device: str | None = None

    def __post_init__(self):
        """Raises UserError on a value that can't be."""
        for name, words in (("model", MODELS), ("norm", NORMS), ("head_norm", HEAD_NORMS)):
            if getattr(self, name) not in words:
                raise unknown(f"task.{name}", getattr(self, name), map(str, words))
        for name, least in LEAST.items():
            if not getattr(self, name) >= least:
                raise UserError(f"task.{name} is {getattr(self, name)}", fix=f"give {least} or more")
        if self.trainable_layers > 5:
            raise UserError(f"task.trainable_layers is {self.trainable_layers}", fix="give 0 to 5")
        if not self.sizes or min(self.sizes) < 16 or self.max_size < max(self.sizes):
            raise UserError(f"task.sizes are {self.sizes}, max_size {self.max_size}", fix="give sides of 16 or more")
        if list(self.steps) != sorted(set(self.steps)):
            raise UserError(f"task.steps are {self.steps}", fix="give iterations in order")
        if self.levels is not None and (
            list(self.levels) != sorted(set(self.levels) & {1, 2, 3, 4}) or not self.levels
        ):
            raise UserError(f"task.levels are {self.levels}", fix="give stages of 1 to 4 in order, or None")
        if self.head_norm == "group" and self.channels % GROUPS:
            raise UserError(f"{self.channels} channels in {GROUPS} groups", fix="give task.channels a multiple of 32")

    @property
    def predicts(self) -> tuple[str, ...]:
        """What is scored, in pycocotools' words."""
        return MODELS[self.model]

    def lr_at(self, iteration: int) -> float:
        """The learning rate of the iteration, which counts from 0."""
        decayed = self.lr * self.gamma ** sum(iteration >= step for step in self.steps)
        if iteration >= self.warmup:
            return decayed
        share = iteration / self.warmup
        return decayed * (self.warmup_factor * (1 - share) + share)


LEAST = {
    **dict.fromkeys(("trainable_layers", "warmup", "measure_every", "pictures", "momentum", "weight_decay", "lr"), 0),
    **dict.fromkeys(("channels", "hidden", "anchor", "proposals", "samples", "iterations", "batch_size"), 1),
    "save_every": 1,
}


@dataclass(frozen=True)
class Where:
    """Where the data are: a folder or a zip in COCO's format.

    dir: the folder or the zip; where it holds one folder alone, paths go on from there.
    fit, test: the annotations' JSON, relative to it; fit_images, test_images: the folders of images.
    sigmas: of keypoints, one a point, of the object keypoint similarity; None for COCO's 17 points of a person.
    """

    dir: str
    fit: str
    test: str
    fit_images: str
    test_images: str
    sigmas: tuple[float, ...] | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Where:
        """Of config.data. UserError on an unknown or missing field, or where both splits are the same file."""
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise unknown("field of config.data", name, names)
        for name in names[:-1]:
            if given.get(name) is None:
                raise UserError(f"no data.{name}", fix=f"give --config.data.{name}=..., a path")
        where = cls(**given)
        if where.fit == where.test:
            raise UserError(f"fit and test are both {where.fit!r}", fix="fit on one file, test on another")
        return where
