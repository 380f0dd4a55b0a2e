"""Settings of a detector, its training and its data: the fields of config.task and config.data, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mi_contrast.core.errors import UserError, unknown

MODELS = {"faster": ("bbox",), "mask": ("bbox", "segm"), "keypoint": ("bbox", "keypoints")}  # what each predicts
NORMS, HEAD_NORMS = ("frozen", "batch"), (None, "batch", "group")
GROUPS = 32


@dataclass(frozen=True)
class Detection:
    """Settings of a detector and its training.

    model: 'faster' (boxes), 'mask' (boxes and masks) or 'keypoint' (boxes and keypoints), each an R-CNN with an FPN.
    trainable_layers: how much of the backbone is trained: 0 nothing, 1 to 4 the last stages, 5 all, with the stem.
    norm: batch norms in trained stages: 'frozen' uses them as constants, as torchvision's detectors do; 'batch' trains
      them, with the statistics of the batch. In the other stages they are always constants.
    head_norm: norm of the FPN, the box head and the mask head: None, 'batch' or 'group' (32 groups). With a norm the
      box head has 4 convolutions and 1 dense layer, without one 2 dense layers.
    levels: stages, from 1 to 4, that feed the FPN. None takes all of them, or 2 to 4 if the stem is the small one.
    channels: of the FPN. hidden: width of the box head's dense layers.
    anchor: side of an anchor, in strides of its level.
    proposals: number of proposals per image that are kept. samples: how many of them enter the box loss.
    sizes: short sides in pixels; training draws one for each image, testing takes the last. max_size: the largest long
      side.
    flip: whether half of the training images are mirrored.
    iterations, batch_size, lr, momentum, weight_decay: of SGD. Norms have no weight decay.
    warmup, warmup_factor: the learning rate rises linearly from warmup_factor * lr over the first iterations.
    steps, gamma: at each of these iterations the learning rate is multiplied by gamma.
    measure_every: iterations between two scorings of the test set, which choose nothing. 0 scores it only before and
      after the training.
    save_every: iterations between checkpoints. time_limit: seconds after which the training saves and stops.
    pictures: number of test images drawn with their detections.
    device: a device of torch; None takes 'cuda' if there is one.
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
        """Raises UserError on an invalid value."""
        for name, words in (("model", MODELS), ("norm", NORMS), ("head_norm", HEAD_NORMS)):
            if getattr(self, name) not in words:
                raise unknown(f"task.{name}", getattr(self, name), map(str, words))
        for name, least in MINIMUM.items():
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
        """The kinds of prediction that are scored, by their names in pycocotools."""
        return MODELS[self.model]

    def lr_at(self, iteration: int) -> float:
        """Returns the learning rate of an iteration, counted from 0."""
        decayed = self.lr * self.gamma ** sum(iteration >= step for step in self.steps)
        if iteration >= self.warmup:
            return decayed
        share = iteration / self.warmup
        return decayed * (self.warmup_factor * (1 - share) + share)


MINIMUM = {
    **dict.fromkeys(("trainable_layers", "warmup", "measure_every", "pictures", "momentum", "weight_decay", "lr"), 0),
    **dict.fromkeys(("channels", "hidden", "anchor", "proposals", "samples", "iterations", "batch_size"), 1),
    "save_every": 1,
}


@dataclass(frozen=True)
class DetectionData:
    """Paths of the data, in COCO's format.

    dir: a folder or a zip. If it contains just one folder, the other paths are relative to that folder.
    fit, test: the JSON files of annotations.
    fit_images, test_images: the folders of images.
    sigmas: of the object keypoint similarity, one for each keypoint; None for COCO's 17 keypoints of a person.
    """

    dir: str
    fit: str
    test: str
    fit_images: str
    test_images: str
    sigmas: tuple[float, ...] | None = None

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> DetectionData:
        """Reads config.data. Raises UserError on an unknown or missing field, or if both splits are the same file."""
        names = [field.name for field in fields(cls)]
        for name in section:
            if name not in names:
                raise unknown("field of config.data", name, names)
        for name in names[:-1]:
            if section.get(name) is None:
                raise UserError(f"no data.{name}", fix=f"give --config.data.{name}=..., a path")
        data = cls(**section)
        if data.fit == data.test:
            raise UserError(f"fit and test are both {data.fit!r}", fix="fit on one file, test on another")
        return data
