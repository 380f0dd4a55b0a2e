"""Makes the training batches. The images of an iteration and their mirroring depend only on seed and iteration."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8

from mi_contrast.data.order import permutation, random_bits
from mi_contrast.evaluation.dense.coco import CocoSet, Targets
from mi_contrast.evaluation.dense.settings import Detection

PREFETCH, THREADS = 4, 2
ORDER, MIRROR = 0, 1  # streams of random bits; the stream of torch's generator is in `fitting`
Batch = tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]]
_T = TypeVar("_T")


@lru_cache(maxsize=4)
def shuffle_epoch(count: int, seed: int, epoch: int) -> Int[np.ndarray, " M"]:
    """Returns the order of an epoch's images."""
    return permutation(count, seed, ORDER, epoch)


def select_members(iteration: int, batch_size: int, count: int, seed: int) -> Int[np.ndarray, " B"]:
    """Returns the indices, among `count` images, of an iteration's batch.

    The permutations of all epochs form one sequence, and a batch may contain the end of one and the start of the next.
    """
    positions = np.arange(iteration * batch_size, (iteration + 1) * batch_size)
    return np.array([shuffle_epoch(count, seed, int(p // count))[p % count] for p in positions])


def select_mirrored(iteration: int, batch_size: int, seed: int) -> Bool[np.ndarray, " B"]:
    """Returns which images of an iteration are mirrored, each with probability one half."""
    return random_bits(batch_size, seed, MIRROR, iteration) >= np.uint64(1 << 63)


def mirror(
    image: UInt8[np.ndarray, "H W 3"], targets: Targets, points: Sequence[str]
) -> tuple[UInt8[np.ndarray, "H W 3"], Targets]:
    """Returns the image and its targets mirrored horizontally; left and right keypoints change places.

    A box's edge at x moves to width - x. A keypoint is the index of a pixel and moves to width - 1 - x; an absent
    keypoint stays at (0, 0).
    """
    width = image.shape[1]
    boxes = targets.boxes.copy()
    boxes[:, [0, 2]] = width - targets.boxes[:, [2, 0]]
    keypoints = targets.keypoints
    if keypoints is not None:
        keypoints = keypoints[:, swap_sides(points)].copy()
        keypoints[..., 0] = np.where(keypoints[..., 2] > 0, width - 1 - keypoints[..., 0], 0)
        keypoints[..., 1] = np.where(keypoints[..., 2] > 0, keypoints[..., 1], 0)
    masks = None if targets.masks is None else targets.masks[:, :, ::-1]
    return image[:, ::-1], replace(targets, boxes=boxes, masks=masks, keypoints=keypoints)


def swap_sides(points: Sequence[str]) -> list[int]:
    """Returns, for each keypoint, the index of the keypoint on the other side, or its own if it has no side.

    >>> swap_sides(["nose", "left_eye", "right_eye"])
    [0, 2, 1]
    """
    others = [_swap_side(name) for name in points]
    return [list(points).index(name) if name in points else i for i, name in enumerate(others)]


def _swap_side(name: str) -> str:
    if "left" in name:
        return name.replace("left", "right")
    return name.replace("right", "left")


def make_batch(
    iteration: int, images: CocoSet, members: Int[np.ndarray, " M"], settings: Detection, seed: int
) -> Batch:
    """Returns the images of an iteration, float32 [3, H, W] in [0, 1], and their targets as torchvision names them.

    Args:
      members: indices of the images to train on.
    """
    indices = members[select_members(iteration, settings.batch_size, len(members), seed)]
    flips = select_mirrored(iteration, settings.batch_size, seed) & settings.flip
    batch: Batch = ([], [])
    for i, flip in zip(indices, flips, strict=True):
        image = images.image(i)
        targets = images.targets(i, masks=settings.model == "mask", keypoints=settings.model == "keypoint")
        if flip:
            image, targets = mirror(image, targets, images.points)
        batch[0].append(to_tensor(image))
        batch[1].append(
            {
                name: torch.from_numpy(np.ascontiguousarray(value))
                for name, value in vars(targets).items()
                if value is not None
            }
        )
    return batch


def to_tensor(image: UInt8[np.ndarray, "H W 3"]) -> torch.Tensor:
    """Returns the image as float32 [3, H, W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float() / 255.0


def prefetch(make: Callable[[int], _T], start: int, end: int) -> Iterator[tuple[int, _T]]:
    """Yields (i, make(i)) for i from start to end - 1, in order; threads make the next few meanwhile."""
    with ThreadPoolExecutor(THREADS) as threads:
        pending = deque(threads.submit(make, i) for i in range(start, min(start + PREFETCH, end)))
        try:
            for i in range(start, end):
                value = pending.popleft().result()
                if i + PREFETCH < end:
                    pending.append(threads.submit(make, i + PREFETCH))
                yield i, value
        finally:
            for future in pending:
                future.cancel()
