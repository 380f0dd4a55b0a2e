"""Runs a detector on a data set and scores it by pycocotools: average precision of boxes, masks and keypoints."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mi_contrast.core.errors import UserError
from mi_contrast.core.progress import ProgressBar
from mi_contrast.evaluation.dense.batches import prefetch, to_tensor
from mi_contrast.evaluation.dense.coco import CocoSet

# Indices into COCOeval.stats: STATS for boxes and masks, KEYPOINT_STATS for keypoints.
STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5}
KEYPOINT_STATS = {"AP": 0, "AP50": 1, "AP75": 2, "APm": 3, "APl": 4}
PERSON_KEYPOINTS = 17
Detections = dict[str, list[dict[str, Any]]]
Scores = dict[str, Any]


def detect(
    detector: torch.nn.Module, images: CocoSet, predicts: Sequence[str], *, batch_size: int, device: torch.device
) -> Detections:
    """Returns the detections in all images, in COCO's format of results: {'bbox': [...], 'segm': [...], ...}.

    The detector runs in evaluation mode and is returned to its previous mode.

    Args:
      predicts: kinds of prediction, 'bbox' and perhaps 'segm' or 'keypoints'.
    """
    was_training = detector.training
    detections = {kind: list[dict[str, Any]]() for kind in predicts}
    category_ids = [category["id"] for category in images.categories]
    count = -(-len(images) // batch_size)
    progress = ProgressBar("detecting", len(images), unit="image")

    def read(i: int) -> list[torch.Tensor]:
        return [to_tensor(images.image(j)) for j in range(i * batch_size, min((i + 1) * batch_size, len(images)))]

    detector.eval()
    try:
        with torch.inference_mode():
            for i, batch in prefetch(read, 0, count):
                outputs = detector([image.to(device) for image in batch])
                for j, output in enumerate(outputs):
                    image_id = images.images[i * batch_size + j]["id"]
                    cpu_output = {name: value.cpu() for name, value in output.items()}
                    for kind, lines in detections.items():
                        lines.extend(to_coco_results(kind, image_id, category_ids, cpu_output))
                progress.advance(len(outputs))
    finally:
        progress.close()
        detector.train(was_training)
    return detections


def to_coco_results(
    kind: str, image_id: int, category_ids: Sequence[int], output: Mapping[str, torch.Tensor]
) -> Iterator[dict[str, Any]]:
    """Yields COCO's record of each object in torchvision's output for one image."""
    boxes = output["boxes"].numpy().astype(np.float64)
    for i, (score, label) in enumerate(zip(output["scores"].tolist(), output["labels"].tolist(), strict=True)):
        line = {"image_id": image_id, "category_id": category_ids[label - 1], "score": score}
        if kind == "bbox":
            x1, y1, x2, y2 = boxes[i].tolist()
            yield {**line, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        elif kind == "segm":
            mask = np.asfortranarray(output["masks"][i, 0].numpy() > 0.5, np.uint8)
            yield {**line, "segmentation": coco_mask.encode(mask)}
        else:
            points = output["keypoints"][i].numpy().astype(np.float64)
            points[:, 2] = 1.0
            yield {**line, "keypoints": points.ravel().tolist()}


def compute_average_precision(
    images: CocoSet, detections: Detections, sigmas: Sequence[float] | None = None
) -> dict[str, Scores]:
    """Returns {'bbox': {'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'by_category'}, ...}, shares in [0, 1].

    AP is the mean over IoU thresholds from .50 to .95; for keypoints over thresholds of object keypoint similarity.
    APs, APm and APl are of objects below 32^2, from 32^2 to 96^2, and above 96^2 pixels; keypoints have no APs. A value
    is None if the set has no object of that size. by_category has the AP of each category.

    Args:
      detections: as `detect` returns them.
      sigmas: of the keypoints, one each; by default COCO's for the 17 keypoints of a person.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints the scores
        truth = COCO()
        truth.dataset = images.truth()
        truth.createIndex()
        return {kind: _scores(truth, lines, kind, images, sigmas) for kind, lines in detections.items()}


def _scores(
    truth: COCO, lines: list[dict[str, Any]], kind: str, images: CocoSet, sigmas: Sequence[float] | None
) -> Scores:
    results = truth.loadRes([dict(line) for line in lines]) if lines else _no_results(truth)
    scorer = COCOeval(truth, results, kind)
    if kind == "keypoints":
        if sigmas is not None:
            scorer.params.kpt_oks_sigmas = np.array(sigmas)
        if len(scorer.params.kpt_oks_sigmas) != len(images.points):
            raise UserError(
                f"{images.json_name} has {len(images.points)} keypoints and {len(scorer.params.kpt_oks_sigmas)} sigmas",
                fix="give --config.data.sigmas=(...), one for each keypoint",
            )
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    indices = KEYPOINT_STATS if kind == "keypoints" else STATS
    # Axes: IoU thresholds, recalls, categories; for objects of any area and the largest number of detections.
    precision = scorer.eval["precision"][:, :, :, 0, -1]
    return {
        **{name: _none_if_absent(scorer.stats[index]) for name, index in indices.items()},
        "by_category": {name: _mean(precision[:, :, i]) for i, name in enumerate(images.classes)},
    }


def _no_results(truth: COCO) -> COCO:
    """Returns an empty list of detections, which `loadRes` can't read."""
    results = COCO()
    results.dataset = {**truth.dataset, "annotations": []}
    results.createIndex()
    return results


def _none_if_absent(value: float) -> float | None:
    return None if value < 0 else float(value)  # pycocotools marks a value that doesn't exist by -1


def _mean(values: np.ndarray) -> float | None:
    present = values[values > -1]
    return float(present.mean()) if present.size else None
