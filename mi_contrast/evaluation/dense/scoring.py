"""Average precision by pycocotools: of boxes, masks and keypoints, at IoU or similarity .50 to .95."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as runs
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mi_contrast.core.errors import UserError
from mi_contrast.core.progress import Progress
from mi_contrast.evaluation.dense.batches import ahead, to_tensor
from mi_contrast.evaluation.dense.coco import CocoSet

# Places of COCOeval.stats
AREAS = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5}
OF_POINTS = {"AP": 0, "AP50": 1, "AP75": 2, "APm": 3, "APl": 4}
PERSON = 17
Found = dict[str, list[dict[str, Any]]]
Scores = dict[str, Any]


def detect(
    detector: torch.nn.Module, images: CocoSet, predicts: Sequence[str], *, batch_size: int, device: torch.device
) -> Found:
    """What the detector finds in all images, in COCO's format of results: {'bbox': [...], 'segm': [...], ...}.

    The detector is left in the mode that it was in.
    """
    was, found = detector.training, {kind: list[dict[str, Any]]() for kind in predicts}
    ids = [category["id"] for category in images.categories]
    count = -(-len(images) // batch_size)
    progress = Progress("detecting", len(images), unit="image")

    def read(i: int) -> list[torch.Tensor]:
        return [to_tensor(images.image(j)) for j in range(i * batch_size, min((i + 1) * batch_size, len(images)))]

    detector.eval()
    try:
        with torch.inference_mode():
            for i, batch in ahead(read, 0, count):
                outputs = detector([image.to(device) for image in batch])
                for j, output in enumerate(outputs):
                    image_id = images.images[i * batch_size + j]["id"]
                    for kind, lines in found.items():
                        lines.extend(lines_of(kind, image_id, ids, {n: v.cpu() for n, v in output.items()}))
                progress.advance(len(outputs))
    finally:
        progress.close()
        detector.train(was)
    return found


def lines_of(
    kind: str, image_id: int, ids: Sequence[int], output: Mapping[str, torch.Tensor]
) -> Iterator[dict[str, Any]]:
    """COCO's results of one image, of torchvision's output on it: a line an object."""
    boxes = output["boxes"].numpy().astype(np.float64)
    for i, (score, label) in enumerate(zip(output["scores"].tolist(), output["labels"].tolist(), strict=True)):
        line = {"image_id": image_id, "category_id": ids[label - 1], "score": score}
        if kind == "bbox":
            x1, y1, x2, y2 = boxes[i].tolist()
            yield {**line, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        elif kind == "segm":
            mask = np.asfortranarray(output["masks"][i, 0].numpy() > 0.5, np.uint8)
            yield {**line, "segmentation": runs.encode(mask)}
        else:
            points = output["keypoints"][i].numpy().astype(np.float64)
            points[:, 2] = 1.0
            yield {**line, "keypoints": points.ravel().tolist()}


def average_precision(images: CocoSet, found: Found, sigmas: Sequence[float] | None = None) -> dict[str, Scores]:
    """{'bbox': {'AP', 'AP50', 'AP75', 'APs', 'APm', 'APl', 'by_category'}, ...}, shares in [0, 1].

    None where nothing of that size is there to be found. s, m and l are objects below 32^2, below 96^2 and from 96^2
    pixels; of keypoints m begins at 32^2 and there is no s. by_category is AP.

    Args:
      found: as `detect` gives it.
      sigmas: of keypoints; COCO's own by default, which are of 17.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what this returns
        truth = COCO()
        truth.dataset = images.truth()
        truth.createIndex()
        return {kind: _scores(truth, lines, kind, images, sigmas) for kind, lines in found.items()}


def _scores(
    truth: COCO, lines: list[dict[str, Any]], kind: str, images: CocoSet, sigmas: Sequence[float] | None
) -> Scores:
    results = truth.loadRes([dict(line) for line in lines]) if lines else _nothing(truth)
    scorer = COCOeval(truth, results, kind)
    if kind == "keypoints":
        if sigmas is not None:
            scorer.params.kpt_oks_sigmas = np.array(sigmas)
        if len(scorer.params.kpt_oks_sigmas) != len(images.points):
            raise UserError(
                f"{images.source} has {len(images.points)} keypoints and {len(scorer.params.kpt_oks_sigmas)} sigmas",
                fix="give --config.data.sigmas=(...), one for each keypoint",
            )
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    places = OF_POINTS if kind == "keypoints" else AREAS
    each = scorer.eval["precision"][:, :, :, 0, -1]  # thresholds, recalls, categories; all areas, most detections
    return {
        **{name: _known(scorer.stats[place]) for name, place in places.items()},
        "by_category": {name: _mean(each[:, :, i]) for i, name in enumerate(images.classes)},
    }


def _nothing(truth: COCO) -> COCO:
    """Results without a line, which `loadRes` can't read."""
    results = COCO()
    results.dataset = {**truth.dataset, "annotations": []}
    results.createIndex()
    return results


def _known(value: float) -> float | None:
    return None if value < 0 else float(value)


def _mean(values: np.ndarray) -> float | None:
    known = values[values > -1]
    return float(known.mean()) if known.size else None
