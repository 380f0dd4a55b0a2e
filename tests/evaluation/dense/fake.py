"""A small set in COCO's format whose truth is known, and a backbone to put into a detector."""

import json

import jax
import numpy as np
from PIL import Image

from mi_contrast.interchange import Loaded
from mi_contrast.models import representation
from tests.models import twins

HEIGHT, WIDTH = 40, 56
CATEGORIES = [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}]
POINTS = ["nose", "left_eye", "right_eye"]
COLOURS = {7: (220, 40, 40), 3: (40, 60, 220)}


def annotation(number, image_id, category, box, **more):
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    points = [x + w // 2, y + h // 2, 2, x + w // 4, y + 1, 1, 0, 0, 0]
    return {
        "id": number, "image_id": image_id, "category_id": category, "bbox": list(box), "area": w * h, "iscrowd": 0,
        "segmentation": [polygon], "keypoints": points, "num_keypoints": 2,
    } | more  # fmt: skip


def tree(split, count, *, keypoints=False):
    """One or two rectangles in each image, a crowd alone in the last but one, nothing in the last."""
    random = np.random.default_rng(len(split))
    categories = [c | ({"keypoints": POINTS} if keypoints else {}) for c in CATEGORIES]
    images = [
        {"id": 10 + 3 * i, "file_name": f"{split}_{i}.png", "height": HEIGHT, "width": WIDTH} for i in range(count)
    ]
    annotations = []
    for i, image in enumerate(images[:-2]):
        for category in (7, 3)[: 1 + i % 2]:
            x, y = int(random.integers(0, 16)) + (24 if category == 3 else 0), int(random.integers(0, 20))
            annotations.append(annotation(len(annotations), image["id"], category, (x, y, 14, 16)))
    whole = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
    crowd = {"iscrowd": 1, "segmentation": whole}
    annotations.append(annotation(len(annotations), images[-2]["id"], 7, (0, 0, WIDTH, HEIGHT), **crowd))
    return {"images": images, "annotations": annotations, "categories": categories}


def write(folder, *, keypoints=False, fit=8, test=6):
    """fit.json, test.json and images/ in a folder; the trees."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    trees = {}
    for split, count in (("fit", fit), ("test", test)):
        trees[split] = tree(split, count, keypoints=keypoints)
        random = np.random.default_rng(count)
        for record in trees[split]["images"]:
            pixels = random.integers(90, 160, (HEIGHT, WIDTH, 3), dtype=np.uint8)
            for one in trees[split]["annotations"]:
                if one["image_id"] == record["id"] and not one["iscrowd"]:
                    x, y, w, h = one["bbox"]
                    pixels[y : y + h, x : x + w] = COLOURS[one["category_id"]]
            Image.fromarray(pixels).save(folder / "images" / record["file_name"])
        (folder / f"{split}.json").write_text(json.dumps(trees[split]))
    return trees


def backbone(tmp_path, **model):
    """A network of random weights with perturbed statistics, as it would be loaded from a run directory."""
    model = {"backbone": "resnet18", "width": 8, "stem": "imagenet"} | model
    spec = representation.make_spec(model, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), size=72)
    found = representation.Representation(twins.random_variables(spec["model"]), spec)
    config = {"model": model, "seed": 5, "data": {"batch": 4}}
    return Loaded(found, tmp_path / "run", len(jax.tree.leaves(found.variables)), 300, config)


SMALL = dict(
    trainable_layers=5, channels=32, hidden=16, proposals=16, samples=8, sizes=(40,), max_size=80, batch_size=2,
    iterations=4, steps=(3,), warmup=2, lr=0.01, save_every=2, pictures=2,
)  # fmt: skip
