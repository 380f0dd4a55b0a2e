"""Judging a backbone by detection: from its weights in a detector to average precision before and after fitting."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8

from mi_contrast.core.errors import BadNumbersError, UserError
from mi_contrast.core.layout import RunDirectory, hold_lock, write_atomically, write_json, write_text
from mi_contrast.data.decoding import decode
from mi_contrast.data.imageset import ImageSet
from mi_contrast.evaluation.asked import Judgement, file_name, make_writable, results_of
from mi_contrast.evaluation.dense.coco import CocoSet, Files, read_set
from mi_contrast.evaluation.dense.detector import check_backbone, loaded_of, make_detector
from mi_contrast.evaluation.dense.fitting import fit, seed_torch
from mi_contrast.evaluation.dense.kept import Kept
from mi_contrast.evaluation.dense.picture import draw
from mi_contrast.evaluation.dense.scoring import PERSON, average_precision, detect
from mi_contrast.evaluation.dense.settings import Detection, Where
from mi_contrast.evaluation.dense.table import NAMES, as_markdown, percent
from mi_contrast.evaluation.kept import digest_of
from mi_contrast.evaluation.tasks import fill
from mi_contrast.evaluation.twin import untrained
from mi_contrast.interchange import Loaded


def judge(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None = None, *, twin: bool = False) -> Judgement:
    """Fits a detector on one split and scores it on another, before and after; the last iteration, not the best.

    Writes results/detection-<set>[-mask|-keypoint][-untrained].json, beside it the same as a Markdown table (.md) and a
    picture of detections (.png). The fitting is kept in detection/<that name>/ beside results/, the detector among it,
    and the same call goes on from there.

    Args:
      config: {'task', 'data', 'batch_size', 'seed'} as in configs/evaluate/detection.py; batch_size is of detecting.

    Raises:
      UserError on any mistake in the config or the data, a network that no detector can be built on, or a fitting of
      another config there; BadNumbersError where the loss went bad; StoppedError where it stopped after saving.
    """
    began = time.perf_counter()
    settings: Detection = fill(Detection, {name: value for name, value in config["task"].items() if name != "kind"})
    where = Where.read(config["data"])
    if config.get("features"):
        raise UserError("detection takes no features", fix="leave out config.features")
    check_backbone(backbone.representation)
    results = results_of(backbone, workdir)
    images, test = read_both(where, settings.model)
    members = images.to_fit(keypoints=settings.model == "keypoint")
    if not len(members):
        raise UserError(f"{where.fit} has no image with an object in it", fix="give another file")
    name = Path(where.dir).expanduser().resolve().stem
    path = results / file_name("detection", name, None if settings.model == "faster" else settings.model, twin)
    make_writable(results)
    if twin:
        backbone = untrained(backbone, squares(images, members, backbone.representation.spec["size"]))
    device = device_of(settings.device)
    asked = {
        "task": dict(vars(settings)),
        "data": dict(vars(where)),
        "seed": config["seed"],
        "batch_size": config["batch_size"],
        "backbone": digest_of(backbone.representation.variables),
        "annotations": {"fit": images.sha256, "test": test.sha256},
    }
    gpus = [device] if device.type == "cuda" else []
    kept = Kept(results.parent / "detection" / path.stem)
    with hold_lock(RunDirectory(kept.folder)), torch.random.fork_rng(gpus):
        kept.claim(asked)
        seed_torch(config["seed"], -1)
        detector = make_detector(backbone.representation, settings, len(test.classes), len(test.points))
        same, count = loaded_of(detector, backbone.representation)
        if same != count:
            raise UserError(f"{same} of {count} tensors of the backbone are in the detector", fix="report this")
        some = ", ".join(test.classes[:12]) + (", ..." if len(test.classes) > 12 else "")
        print(f"{same} of {count} tensors of the backbone are in the detector, which is to find {some}")
        detector.to(device)
        found: dict[str, Any] = {}

        def measure() -> dict[str, Any]:
            found.clear()
            found.update(detect(detector, test, settings.predicts, batch_size=config["batch_size"], device=device))
            return average_precision(test, found, where.sigmas)

        curve, seconds = fit(detector, images, members, settings, config["seed"], kept, measure, device)
        if not found:  # it had been complete
            measure()
    ap = {kind: {"start": curve[0]["scores"][kind], "end": curve[-1]["scores"][kind]} for kind in settings.predicts}
    if any(value["end"]["AP"] is None for value in ap.values()):
        raise BadNumbersError(f"{where.test} has nothing to be found: no average precision")
    result = {
        "task": "detection",
        "dataset": name,
        "categories": len(test.classes),
        "fit": {"annotations": where.fit, "images": len(members), "left_out": len(images) - len(members)},
        "test": {"annotations": where.test, "images": len(test)},
        "ap": ap,
        "curve": curve,
        "iterations": settings.iterations,
        "settings": {**vars(settings), "seed": config["seed"]},
        "tensors": {"in_the_detector": same, "of_the_backbone": count},
        "backbone": backbone.sha256 or str(backbone.source),
        "step": backbone.step,
        "untrained": twin,
        "detector": str(kept.state.relative_to(results.parent)),
        "seconds": {"fitting": round(seconds, 1), "this_call": round(time.perf_counter() - began, 1)},
        "versions": {"torch": str(torch.__version__), "device": str(device)},
    }
    write_json(path, result)
    write_text(path.with_suffix(".md"), as_markdown(result))
    if settings.pictures:
        with write_atomically(path.with_suffix(".png")) as file:
            file.write(draw(test, found, settings.pictures))
    return Judgement(result, path, said_of(result, path))


def read_both(where: Where, model: str) -> tuple[CocoSet, CocoSet]:
    """Both splits. UserError where their categories differ, or keypoints have no sigmas."""
    files = Files.open(where.dir)
    needs = {"masks": model == "mask", "keypoints": model == "keypoint"}
    images = read_set(files, where.fit, where.fit_images, **needs)
    test = read_set(files, where.test, where.test_images, **needs)
    if [(c["id"], c["name"]) for c in images.categories] != [(c["id"], c["name"]) for c in test.categories]:
        raise UserError(f"{where.fit} and {where.test} have different categories", fix="give two splits of one set")
    if images.points != test.points:
        raise UserError(f"{where.fit} and {where.test} have different keypoints", fix="give two splits of one set")
    sigmas = PERSON if where.sigmas is None else len(where.sigmas)
    if model == "keypoint" and sigmas != len(test.points):
        raise UserError(f"{where.test} has {len(test.points)} keypoints, and there are {sigmas} sigmas",
                        fix="give --config.data.sigmas=(...), one for each keypoint")  # fmt: skip
    return images, test


def squares(images: CocoSet, members: Int[np.ndarray, " M"], size: int) -> ImageSet:
    """The images to fit on as squares of the backbone's size, for the untrained twin's batch statistics."""

    def read(indices: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n H W 3"]:
        records = [images.images[members[i]]["file_name"] for i in indices]
        return np.stack([decode(images.files.read(f"{images.folder}/{r}"), r, size) for r in records])

    return ImageSet(images.source, "fit", len(members), (size, size, 3), read)


def device_of(name: str | None) -> torch.device:
    """The device named, or 'cuda' where there is one. UserError where it isn't there."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"task.device {name!r}: {str(error).splitlines()[0]}", fix="give 'cpu' or 'cuda'") from None
    return device


def said_of(result: Mapping[str, Any], path: Path) -> str:
    """The judgement in a line."""
    which = "untrained twin, " if result["untrained"] else ""
    parts = [
        f"{NAMES[kind]} AP {percent(ap['start']['AP'])} -> {percent(ap['end']['AP'])}, "
        f"AP50 {percent(ap['start']['AP50'])} -> {percent(ap['end']['AP50'])}"
        for kind, ap in result["ap"].items()
    ]
    return (
        f"detection on {result['dataset']} ({result['settings']['model']}): {which}{'; '.join(parts)} % on "
        f"{result['test']['images']:,} images after {result['iterations']:,} iterations, "
        f"{result['seconds']['fitting']:.0f} s -> {path}"
    )
