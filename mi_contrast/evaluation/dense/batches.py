"""Batches for fitting: who comes when, and mirrored or not, from the seed and the iteration alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8

from mi_contrast.data.order import permutation, random_bits
from mi_contrast.evaluation.dense.coco import CocoSet, Targets

AHEAD, THREADS = 4, 2
ORDER, MIRROR = 0, 1  # streams of random bits; one of torch's own is in `fitting`
Batch = tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]
_Out = TypeVar("_Out")


@lru_cache(maxsize=4)
def order_of(count: int, seed: int, epoch: int) -> Int[np.ndarray, " M"]:
    """The order of an epoch."""
    return permutation(count, seed, ORDER, epoch)


def members_at(iteration: int, batch_size: int, count: int, seed: int) -> Int[np.ndarray, " B"]:
    """Places of an iteration's images among the `count` to fit on: one permutation after another, without a seam."""
    places = np.arange(iteration * batch_size, (iteration + 1) * batch_size)
    return np.array([order_of(count, seed, int(place // count))[place % count] for place in places])


def mirrored_at(iteration: int, batch_size: int, seed: int) -> Bool[np.ndarray, " B"]:
    """Which images of an iteration are mirrored: each with probability one half."""
    return random_bits(batch_size, seed, MIRROR, iteration) >= np.uint64(1 << 63)


def mirrored(
    image: UInt8[np.ndarray, "H W 3"], found: Targets, points: Sequence[str]
) -> tuple[UInt8[np.ndarray, "H W 3"], Targets]:
    """The image mirrored, left for right, and what is in it; the left eye of a mirrored face is its right one.

    A box's corner at x goes to width - x; a keypoint is a pixel and goes to width - 1 - x. One that is not there stays
    at (0, 0).
    """
    width = image.shape[1]
    boxes = found.boxes.copy()
    boxes[:, [0, 2]] = width - found.boxes[:, [2, 0]]
    keypoints = found.keypoints
    if keypoints is not None:
        keypoints = keypoints[:, partners(points)].copy()
        keypoints[..., 0] = np.where(keypoints[..., 2] > 0, width - 1 - keypoints[..., 0], 0)
        keypoints[..., 1] = np.where(keypoints[..., 2] > 0, keypoints[..., 1], 0)
    masks = None if found.masks is None else found.masks[:, :, ::-1]
    return image[:, ::-1], replace(found, boxes=boxes, masks=masks, keypoints=keypoints)


def partners(points: Sequence[str]) -> list[int]:
    """For each keypoint the one it becomes in a mirror: of the same name with left for right, or itself.

    >>> partners(["nose", "left_eye", "right_eye"])
    [0, 2, 1]
    """
    swapped = [_other_side(name) for name in points]
    return [list(points).index(name) if name in points else i for i, name in enumerate(swapped)]


def _other_side(name: str) -> str:
    if "left" in name:
        return name.replace("left", "right")
    return name.replace("right", "left")


def batch_at(iteration: int, images: CocoSet, members: Int[np.ndarray, " M"], settings: Any, seed: int) -> Batch:
    """Images, float32 [3, H, W] in [0, 1], and targets in torchvision's words, of an iteration."""
    chosen = members[members_at(iteration, settings.batch_size, len(members), seed)]
    flips = mirrored_at(iteration, settings.batch_size, seed) & settings.flip
    batch: Batch = ([], [])
    for i, flip in zip(chosen, flips, strict=True):
        image = images.image(i)
        found = images.targets(i, masks=settings.model == "mask", keypoints=settings.model == "keypoint")
        if flip:
            image, found = mirrored(image, found, images.points)
        batch[0].append(to_tensor(image))
        batch[1].append(
            {
                name: torch.from_numpy(np.ascontiguousarray(value))
                for name, value in vars(found).items()
                if value is not None
            }
        )
    return batch


def to_tensor(image: UInt8[np.ndarray, "H W 3"]) -> torch.Tensor:
    """float32 [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255.0


def ahead(make: Callable[[int], _Out], start: int, end: int) -> Iterator[tuple[int, _Out]]:
    """(i, make(i)) of start .. end - 1 in order, the next few made in threads meanwhile."""
    with ThreadPoolExecutor(THREADS) as threads:
        waiting = deque(threads.submit(make, i) for i in range(start, min(start + AHEAD, end)))
        try:
            for i in range(start, end):
                value = waiting.popleft().result()
                if i + AHEAD < end:
                    waiting.append(threads.submit(make, i + AHEAD))
                yield i, value
        finally:
            for future in waiting:
                future.cancel()
