"""A picture of detections: a row an image, what is there on the left, what was found on the right."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mi_contrast.evaluation.dense.coco import CocoSet, mask_of
from mi_contrast.evaluation.dense.scoring import Found

SIDE, GAP, SURE = 320, 8, 0.5  # pixels of the long side; the least score drawn


def draw(images: CocoSet, found: Found, count: int) -> bytes:
    """A PNG of `count` images evenly over the set; found objects of score .5 and more, with their scores."""
    rows = []
    for i in np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int):
        record = images.images[i]
        truth = [{**a, "score": None} for a in images.of_image[record["id"]] if not a.get("iscrowd", 0)]
        rows.append([drawn(images.image(int(i)), images, objects) for objects in (truth, sure(found, record["id"]))])
    width = max(2 * row[0].width + 3 * GAP for row in rows)
    sheet = Image.new("RGB", (width, sum(row[0].height + GAP for row in rows) + GAP), "white")
    top = GAP
    for row in rows:
        for place, picture in enumerate(row):
            sheet.paste(picture, (GAP + place * (picture.width + GAP), top))
        top += row[0].height + GAP
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def sure(found: Found, image_id: int) -> list[dict[str, Any]]:
    """The objects found in an image, with their mask and keypoints where there are some. Every kind of result lists
    the same objects in the same order.
    """
    merged = [dict(box) for box in found["bbox"]]
    for kind in found:
        for one, more in zip(merged, found[kind], strict=True):
            one.update(more)
    return [one for one in merged if one["image_id"] == image_id and one["score"] >= SURE]


def drawn(image: np.ndarray, images: CocoSet, objects: Sequence[Mapping[str, Any]]) -> Image.Image:
    """The image with these objects, resized to a long side of 320 pixels."""
    height, width = image.shape[:2]
    pixels = image.astype(np.float32)
    for one in objects:
        if one.get("segmentation"):
            mask = mask_of(one["segmentation"], height, width)
            pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array(colour_of(one, images), np.float32)
    scale = SIDE / max(height, width)
    size = round(scale * width), round(scale * height)
    sheet = Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(sheet)
    for one in objects:
        colour = colour_of(one, images)
        x, y, wide, high = (scale * v for v in one["bbox"])
        pen.rectangle((x, y, x + max(wide, 1), y + max(high, 1)), outline=colour, width=2)
        name = images.classes[images.place[one["category_id"]] - 1]
        text = name if one["score"] is None else f"{name} {one['score']:.2f}"
        pen.rectangle(pen.textbbox((x + 2, y), text), fill=colour)
        pen.text((x + 2, y), text, fill="white")
        if images.points and one.get("keypoints"):
            for x, y, there in np.reshape(one["keypoints"], (-1, 3)):
                if there > 0:
                    pen.ellipse((scale * x - 2, scale * y - 2, scale * x + 2, scale * y + 2), fill=colour)
    return sheet


def colour_of(one: Mapping[str, Any], images: CocoSet) -> tuple[int, int, int]:
    """A category's colour: hues a golden section apart."""
    hue = images.place[one["category_id"]] * 0.618034 % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 1.0, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)
