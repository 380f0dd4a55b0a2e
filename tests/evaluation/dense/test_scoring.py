import copy
import json

import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.evaluation.dense.coco import Files, read_set
from tests.evaluation.dense.fake import HEIGHT, WIDTH, backbone, write

torch = pytest.importorskip("torch")
scoring = pytest.importorskip("mi_contrast.evaluation.dense.scoring")

SIGMAS = (0.05, 0.05, 0.05)


@pytest.fixture
def images(tmp_path):
    write(tmp_path, keypoints=True)
    return read_set(Files.open(tmp_path), "test.json", "images", masks=True, keypoints=True)


def perfect(images):
    """What a detector would say that knows the truth, crowds left out; the surest is the first."""
    found = {"bbox": [], "segm": [], "keypoints": []}
    for i, record in enumerate(images.images):
        targets = images.targets(i, masks=True, keypoints=True)
        output = {
            "boxes": torch.from_numpy(targets.boxes),
            "labels": torch.from_numpy(targets.labels),
            "scores": torch.linspace(0.9, 0.8, len(targets.labels)),
            "masks": torch.from_numpy(targets.masks[:, None].astype(np.float32)),
            "keypoints": torch.from_numpy(targets.keypoints),
        }
        for kind, lines in found.items():
            lines.extend(scoring.to_coco_results(kind, record["id"], [c["id"] for c in images.categories], output))
    return found


def test_the_truth_scores_one_and_nothing_scores_nought(images):
    for kind, ap in scoring.compute_average_precision(images, perfect(images), SIGMAS).items():
        assert ap["AP"] == ap["AP50"] == ap["AP75"] == pytest.approx(1.0), kind
        assert ap["by_category"] == pytest.approx({"blue": 1.0, "red": 1.0})
        assert ap.get("APs", 1.0) == pytest.approx(1.0) if kind != "keypoints" else "APs" not in ap
        assert ap["APl"] is None, "no object here is that large"
    for kind, ap in scoring.compute_average_precision(images, {k: [] for k in perfect(images)}, SIGMAS).items():
        assert ap["AP"] == ap["AP50"] == 0.0, kind


def by_hand(truths, found, threshold):
    """AP of one category at one IoU: precision made monotonous, at 101 recalls."""

    def iou(a, b):
        wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
        high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
        both = max(wide, 0) * max(high, 0)
        return both / (a[2] * a[3] + b[2] * b[3] - both)

    taken, hits = set(), []
    for one in sorted(found, key=lambda one: -one["score"]):
        own = [(iou(one["bbox"], t["bbox"]), t["id"]) for t in truths if t["image_id"] == one["image_id"]]
        free = [(value, name) for value, name in own if name not in taken and value >= threshold]
        hits.append(bool(free))
        if free:
            taken.add(max(free)[1])
    right = np.cumsum(hits)
    precision, recall = right / np.arange(1, len(hits) + 1), right / len(truths)
    at = [max((p for p, r in zip(precision, recall, strict=True) if r >= x), default=0) for x in np.linspace(0, 1, 101)]
    return float(np.mean(at))


def test_boxes_moved_and_invented_score_as_by_hand(images):
    found = perfect(images)["bbox"]
    random = np.random.default_rng(3)
    for one in found:
        one["bbox"][0] += float(random.uniform(0, 8))
        one["score"] = float(random.random())
    for _ in range(4):
        where = {"image_id": images.images[0]["id"], "category_id": 7, "bbox": [1.0, 1.0, 9.0, 9.0]}
        found.append({**where, "score": float(random.random())})
    ap = scoring.compute_average_precision(images, {"bbox": found})["bbox"]
    truths = [a for a in images.annotations if not a["iscrowd"]]
    at = {}
    for threshold in np.arange(0.5, 1.0, 0.05):
        each = []
        for category in (3, 7):
            own = [[one for one in lines if one["category_id"] == category] for lines in (truths, found)]
            each.append(by_hand(*own, threshold))
        at[round(threshold, 2)] = np.mean(each)
    assert 0.1 < ap["AP"] < 0.9
    assert (ap["AP50"], ap["AP75"]) == pytest.approx((at[0.5], at[0.75]), abs=1e-6)
    assert ap["AP"] == pytest.approx(np.mean(list(at.values())), abs=1e-6)


def test_what_is_found_in_a_crowd_counts_neither_for_nor_against(images):
    found = perfect(images)["bbox"]
    crowd = next(a for a in images.annotations if a["iscrowd"])
    inside = {"image_id": crowd["image_id"], "category_id": 7, "bbox": [3.0, 3.0, 20.0, 20.0], "score": 0.99}
    assert scoring.compute_average_precision(images, {"bbox": [*found, inside]})["bbox"]["AP"] == pytest.approx(1.0)
    outside = {**inside, "image_id": images.images[-1]["id"]}
    assert scoring.compute_average_precision(images, {"bbox": [*found, outside]})["bbox"]["by_category"]["red"] < 0.9


def test_sigmas_belong_to_the_points(images):
    with pytest.raises(UserError, match="has 3 keypoints and 17 sigmas"):
        scoring.compute_average_precision(images, perfect(images))
    moved = copy.deepcopy(perfect(images)["keypoints"])
    for one in moved:
        one["keypoints"][0] += 2.0
    strict, loose = (
        scoring.compute_average_precision(images, {"keypoints": moved}, (s,) * 3)["keypoints"]["AP"]
        for s in (0.01, 0.5)
    )
    assert strict < 0.2 and loose == pytest.approx(1.0)


def test_detections_are_of_the_images_as_they_are(images, tmp_path):
    """A detector that is right in pixels of the images: ids, sizes and the last, smaller batch are kept."""

    class Oracle(torch.nn.Module):
        def forward(self, batch):
            outputs = []
            for image in batch:
                assert image.shape == (3, HEIGHT, WIDTH) and not self.training
                i = next(i for i in range(len(images)) if np.array_equal(to_bytes(image), images.image(i)))
                targets = images.targets(i)
                boxes, labels = torch.from_numpy(targets.boxes), torch.from_numpy(targets.labels)
                outputs.append({"boxes": boxes, "labels": labels, "scores": torch.ones(len(labels))})
            return outputs

    def to_bytes(image):
        return (255 * image.permute(1, 2, 0)).round().numpy().astype(np.uint8)

    oracle = Oracle().train()
    found = scoring.detect(oracle, images, ("bbox",), batch_size=4, device=torch.device("cpu"))
    assert oracle.training
    json.dumps(found)
    assert scoring.compute_average_precision(images, found)["bbox"]["AP"] == pytest.approx(1.0)


def test_the_backbones_detector_says_all_that_is_scored(images, tmp_path):
    from mi_contrast.evaluation.dense.detector import make_detector
    from mi_contrast.evaluation.dense.settings import MODELS, Detection
    from tests.evaluation.dense.fake import SMALL

    for model, predicts in MODELS.items():
        torch.manual_seed(0)
        detector = make_detector(backbone(tmp_path).representation, Detection(**SMALL, model=model), 2, 3)
        detector.roi_heads.score_thresh = 0.0  # a new detector is sure of nothing
        found = scoring.detect(detector, images, predicts, batch_size=3, device=torch.device("cpu"))
        assert {kind: len(lines) > 0 for kind, lines in found.items()} == dict.fromkeys(predicts, True)
        assert set(scoring.compute_average_precision(images, found, SIGMAS)) == set(predicts)
