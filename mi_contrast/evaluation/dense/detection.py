"""Judges a backbone by detection: builds a detector on it, trains the detector and scores its average precision."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8

from mi_contrast.core.errors import BadNumbersError, UserError
from mi_contrast.core.layout import RunDirectory, hold_lock, write_atomically, write_json, write_text
from mi_contrast.data.decoding import decode
from mi_contrast.data.imageset import ImageSet
from mi_contrast.evaluation.dense.checkpoint import Checkpoint
from mi_contrast.evaluation.dense.coco import CocoSet, Files, read_set
from mi_contrast.evaluation.dense.detector import check_backbone, count_loaded, make_detector
from mi_contrast.evaluation.dense.fitting import Curve, fit, seed_torch
from mi_contrast.evaluation.dense.picture import draw
from mi_contrast.evaluation.dense.scoring import (
    PERSON_KEYPOINTS,
    Detections,
    compute_average_precision,
    detect,
)
from mi_contrast.evaluation.dense.settings import Detection, DetectionData
from mi_contrast.evaluation.dense.table import NAMES, as_markdown, percent
from mi_contrast.evaluation.feature_cache import compute_digest
from mi_contrast.evaluation.task_config import Judgement, find_results_folder, make_file_name, make_writable
from mi_contrast.evaluation.tasks import make_settings
from mi_contrast.evaluation.twin import make_untrained_twin
from mi_contrast.interchange import LoadedBackbone


@dataclass(frozen=True)
class Setup:
    """All that a detection task starts from, checked.

    train, test: the two splits; members: indices of the images in `train` to train on.
    dataset: name of the data set.
    backbone: the backbone to judge; the untrained twin where `untrained` is true.
    batch_size: images in a batch of detecting; that of training is in `settings`.
    path: of the result file.
    """

    settings: Detection
    data: DetectionData
    train: CocoSet
    members: Int[np.ndarray, " M"]
    test: CocoSet
    dataset: str
    backbone: LoadedBackbone
    untrained: bool
    device: torch.device
    seed: int
    batch_size: int
    path: Path

    @property
    def workdir(self) -> Path:
        """The folder that contains results/ and detection/."""
        return self.path.parent.parent

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint of this training."""
        return Checkpoint(self.workdir / "detection" / self.path.stem)


@dataclass(frozen=True)
class Training:
    """What a training returned: the scores over its course, its seconds, the detections at its end.

    loaded: how many of the backbone's tensors were in the detector at the start, and how many the backbone has.
    """

    curve: Curve
    seconds: float
    detections: Detections
    loaded: tuple[int, int]


def judge(
    config: Mapping[str, Any], backbone: LoadedBackbone, workdir: Path | None = None, *, untrained: bool = False
) -> Judgement:
    """Trains a detector on one split and scores it on another, before the training and after its last iteration.

    Writes results/detection-<set>[-mask|-keypoint][-untrained].json, and next to it a Markdown table (.md) and a
    picture of detections (.png). The training state, with the detector, is in detection/<that name>/ next to results/;
    the same call continues from there.

    Args:
      config: {'task', 'data', 'batch_size', 'seed'} as in configs/evaluate/detection.py. The batch_size is that of
        detecting.

    Raises:
      UserError on a mistake in the config or the data, if no detector can be built on the network, or if the folder
      has a training of another config; BadNumbersError where the loss is not finite; StoppedError if the training
      stopped after saving.
    """
    start_time = time.perf_counter()
    setup = prepare(config, backbone, workdir, untrained=untrained)
    training = train_and_score(setup)
    result = make_result(setup, training, start_time)
    write_json(setup.path, result)
    write_text(setup.path.with_suffix(".md"), as_markdown(result))
    if setup.settings.pictures:
        with write_atomically(setup.path.with_suffix(".png")) as file:
            file.write(draw(setup.test, training.detections, setup.settings.pictures))
    return Judgement(result, setup.path, summarise(result, setup.path))


def prepare(config: Mapping[str, Any], backbone: LoadedBackbone, workdir: Path | None, *, untrained: bool) -> Setup:
    """Checks the config, the data and the backbone before any work, and makes the untrained twin if it is judged."""
    task = {name: value for name, value in config["task"].items() if name != "kind"}
    settings: Detection = make_settings(Detection, task)
    data = DetectionData.read(config["data"])
    if config.get("features"):
        raise UserError("detection takes no features", fix="leave out config.features")
    check_backbone(backbone.representation)
    results = find_results_folder(backbone, workdir)
    train, test = read_splits(data, settings.model)
    members = train.select_trainable(keypoints=settings.model == "keypoint")
    if not len(members):
        raise UserError(f"{data.fit} has no image with an object in it", fix="give another file")
    dataset = Path(data.dir).expanduser().resolve().stem
    label = None if settings.model == "faster" else settings.model
    path = results / make_file_name("detection", dataset, label, untrained)
    make_writable(results)
    if untrained:
        squares = crop_squares(train, members, backbone.representation.spec["size"])
        backbone = make_untrained_twin(backbone, squares)
    return Setup(
        settings,
        data,
        train,
        members,
        test,
        dataset,
        backbone,
        untrained,
        device=choose_device(settings.device),
        seed=config["seed"],
        batch_size=config["batch_size"],
        path=path,
    )


def train_and_score(setup: Setup) -> Training:
    """Trains the detector, or continues its training, and scores it on the test set. Locks the folder meanwhile."""
    gpus = [setup.device] if setup.device.type == "cuda" else []
    with hold_lock(RunDirectory(setup.checkpoint.folder)), torch.random.fork_rng(gpus):
        setup.checkpoint.claim(identify_training(setup))
        seed_torch(setup.seed, -1)
        representation, test = setup.backbone.representation, setup.test
        detector = make_detector(representation, setup.settings, len(test.classes), len(test.points))
        loaded, count = count_loaded(detector, representation)
        if loaded != count:
            raise UserError(f"{loaded} of {count} tensors of the backbone are in the detector", fix="report this")
        names = ", ".join(test.classes[:12]) + (", ..." if len(test.classes) > 12 else "")
        print(f"{loaded} of {count} tensors of the backbone are in the detector; it learns to detect {names}")
        detector.to(setup.device)
        detections: Detections = {}

        def measure() -> dict[str, Any]:
            detections.update(
                detect(detector, test, setup.settings.predicts, batch_size=setup.batch_size, device=setup.device)
            )
            return compute_average_precision(test, detections, setup.data.sigmas)

        curve, seconds = fit(
            detector, setup.train, setup.members, setup.settings, setup.seed, setup.checkpoint, measure, setup.device
        )
        if not detections:  # the training was complete before this call, which took no measurement
            measure()
    return Training(curve, seconds, detections, (loaded, count))


def identify_training(setup: Setup) -> dict[str, Any]:
    """Returns, as plain data, all that a training must have in common with the checkpoint that it continues."""
    return {
        "task": dict(vars(setup.settings)),
        "data": dict(vars(setup.data)),
        "seed": setup.seed,
        "batch_size": setup.batch_size,
        "backbone": compute_digest(setup.backbone.representation.variables),
        "annotations": {"fit": setup.train.sha256, "test": setup.test.sha256},
    }


def make_result(setup: Setup, training: Training, start_time: float) -> dict[str, Any]:
    """Returns the content of the result file. Raises BadNumbersError if the test set has no objects to score."""
    settings, data, curve = setup.settings, setup.data, training.curve
    ap = {kind: {"start": curve[0]["scores"][kind], "end": curve[-1]["scores"][kind]} for kind in settings.predicts}
    if any(scores["end"]["AP"] is None for scores in ap.values()):
        raise BadNumbersError(f"{data.test} has no objects to detect, so there is no average precision")
    return {
        "task": "detection",
        "dataset": setup.dataset,
        "categories": len(setup.test.classes),
        "fit": {
            "annotations": data.fit,
            "images": len(setup.members),
            "left_out": len(setup.train) - len(setup.members),
        },
        "test": {"annotations": data.test, "images": len(setup.test)},
        "ap": ap,
        "curve": curve,
        "iterations": settings.iterations,
        "settings": {**vars(settings), "seed": setup.seed},
        "tensors": {"in_the_detector": training.loaded[0], "of_the_backbone": training.loaded[1]},
        "backbone": setup.backbone.sha256 or str(setup.backbone.source),
        "step": setup.backbone.step,
        "untrained": setup.untrained,
        "detector": str(setup.checkpoint.state_file.relative_to(setup.workdir)),
        "seconds": {
            "fitting": round(training.seconds, 1),
            "this_call": round(time.perf_counter() - start_time, 1),
        },
        "versions": {"torch": str(torch.__version__), "device": str(setup.device)},
    }


def read_splits(data: DetectionData, model: str) -> tuple[CocoSet, CocoSet]:
    """Reads both splits. Raises UserError if their categories differ, or if the keypoints have no sigmas."""
    files = Files.open(data.dir)
    needs = {"masks": model == "mask", "keypoints": model == "keypoint"}
    train = read_set(files, data.fit, data.fit_images, **needs)
    test = read_set(files, data.test, data.test_images, **needs)
    if [(c["id"], c["name"]) for c in train.categories] != [(c["id"], c["name"]) for c in test.categories]:
        raise UserError(f"{data.fit} and {data.test} have different categories", fix="give two splits of one set")
    if train.points != test.points:
        raise UserError(f"{data.fit} and {data.test} have different keypoints", fix="give two splits of one set")
    sigmas = PERSON_KEYPOINTS if data.sigmas is None else len(data.sigmas)
    if model == "keypoint" and sigmas != len(test.points):
        raise UserError(f"{data.test} has {len(test.points)} keypoints, and there are {sigmas} sigmas",
                        fix="give --config.data.sigmas=(...), one for each keypoint")  # fmt: skip
    return train, test


def crop_squares(images: CocoSet, members: Int[np.ndarray, " M"], size: int) -> ImageSet:
    """Returns the training images as squares of the backbone's size, for the untrained twin's batch statistics."""

    def read(indices: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n H W 3"]:
        names = [images.images[members[i]]["file_name"] for i in indices]
        return np.stack([decode(images.files.read(f"{images.folder}/{name}"), name, size) for name in names])

    return ImageSet(images.json_name, "fit", len(members), (size, size, 3), read)


def choose_device(name: str | None) -> torch.device:
    """Returns the device of this name; for None 'cuda' if there is one. Raises UserError if it doesn't exist."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"task.device {name!r}: {str(error).splitlines()[0]}", fix="give 'cpu' or 'cuda'") from None
    return device


def summarise(result: Mapping[str, Any], path: Path) -> str:
    """Returns the judgement in a line."""
    twin = "untrained twin, " if result["untrained"] else ""
    parts = [
        f"{NAMES[kind]} AP {percent(ap['start']['AP'])} -> {percent(ap['end']['AP'])}, "
        f"AP50 {percent(ap['start']['AP50'])} -> {percent(ap['end']['AP50'])}"
        for kind, ap in result["ap"].items()
    ]
    return (
        f"detection on {result['dataset']} ({result['settings']['model']}): {twin}{'; '.join(parts)} % on "
        f"{result['test']['images']:,} images after {result['iterations']:,} iterations, "
        f"{result['seconds']['fitting']:.0f} s -> {path}"
    )
