"""Draws detections: one row per image, the true objects on the left and the detected ones on the right."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from mi_contrast.evaluation.dense.coco import CocoSet, decode_mask
from mi_contrast.evaluation.dense.scoring import Detections

SIDE, GAP = 320, 8  # pixels: long side of an image, gap between images
MIN_SCORE = 0.5  # of a detection that is drawn


def draw(images: CocoSet, detections: Detections, count: int) -> bytes:
    """Returns a PNG of `count` images, evenly spaced in the set; detections with a score of at least .5 are drawn."""
    rows = []
    for i in np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int):
        record = images.images[i]
        truth = [{**a, "score": None} for a in images.annotations_by_image[record["id"]] if not a.get("iscrowd", 0)]
        both = truth, select_confident(detections, record["id"])
        rows.append([draw_objects(images.image(int(i)), images, objects) for objects in both])
    width = max(2 * row[0].width + 3 * GAP for row in rows)
    sheet = Image.new("RGB", (width, sum(row[0].height + GAP for row in rows) + GAP), "white")
    top = GAP
    for row in rows:
        for column, picture in enumerate(row):
            sheet.paste(picture, (GAP + column * (picture.width + GAP), top))
        top += row[0].height + GAP
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def select_confident(detections: Detections, image_id: int) -> list[dict[str, Any]]:
    """Returns the detections in an image with a score of at least .5, each with its box, mask and keypoints.

    Boxes, masks and keypoints are separate lists in `detections`, of the same objects in the same order.
    """
    merged = [dict(box) for box in detections["bbox"]]
    for lines in detections.values():
        for detection, line in zip(merged, lines, strict=True):
            detection.update(line)
    return [each for each in merged if each["image_id"] == image_id and each["score"] >= MIN_SCORE]


def draw_objects(image: np.ndarray, images: CocoSet, objects: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Returns the image with these objects drawn on it, resized to a long side of 320 pixels."""
    height, width = image.shape[:2]
    pixels = image.astype(np.float32)
    for each in objects:
        if each.get("segmentation"):
            mask = decode_mask(each["segmentation"], height, width)
            pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array(choose_colour(each, images), np.float32)
    scale = SIDE / max(height, width)
    size = round(scale * width), round(scale * height)
    sheet = Image.fromarray(pixels.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(sheet)
    for each in objects:
        colour = choose_colour(each, images)
        x, y, box_width, box_height = (scale * v for v in each["bbox"])
        pen.rectangle((x, y, x + max(box_width, 1), y + max(box_height, 1)), outline=colour, width=2)
        name = images.classes[images.label_by_category[each["category_id"]] - 1]
        text = name if each["score"] is None else f"{name} {each['score']:.2f}"
        pen.rectangle(pen.textbbox((x + 2, y), text), fill=colour)
        pen.text((x + 2, y), text, fill="white")
        if images.points and each.get("keypoints"):
            for x, y, visibility in np.reshape(each["keypoints"], (-1, 3)):
                if visibility > 0:
                    pen.ellipse((scale * x - 2, scale * y - 2, scale * x + 2, scale * y + 2), fill=colour)
    return sheet


def choose_colour(annotation: Mapping[str, Any], images: CocoSet) -> tuple[int, int, int]:
    """Returns the colour of a category; the hues of consecutive categories are a golden section apart."""
    hue = images.label_by_category[annotation["category_id"]] * 0.618034 % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 1.0, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)
