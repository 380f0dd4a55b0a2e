"""Renders clips in which the groups of patches that move together are known, and tracks them like any video.

64 textured squares, each in its own cell, move over a textured background, and the camera shakes. The errors of the
tracker, its lost tracks, and the rest of the camera's motion then affect the figures as they would in a video.
"""

from __future__ import annotations

import numpy as np

from mi_contrast.data.clips import import_opencv
from mi_contrast.data.tracks import Tracking, Tracks, follow

CELL, SQUARE, ROWS = 48, 28, 8  # side of a cell and of a square in pixels; cells along a side of the frame
MARGIN = 24  # pixels of background around the frame, for the camera to move in
ROOM = (CELL - SQUARE) / 2  # pixels that a square may move from the middle of its cell


def make_texture(random: np.random.Generator, side: int) -> np.ndarray:
    """Returns a smooth random picture, uint8 [side, side, 3]; its blobs, a few pixels wide, are easy to track."""
    cv2 = import_opencv()
    picture = cv2.GaussianBlur(random.normal(size=(side, side, 3)), (0, 0), 1.5)
    low, high = np.percentile(picture, (1, 99))
    return (np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def render(random: np.random.Generator, paths: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Returns frames, uint8 [T, H, W, 3]; positions between pixels are drawn by bilinear interpolation.

    Args:
      paths: [64, T, 2], (x, y) of each square in pixels from the middle of its cell.
      camera: [T, 2], position of the camera.
    """
    cv2 = import_opencv()
    side = ROWS * CELL
    background = make_texture(random, side + 2 * MARGIN)
    squares = [make_texture(random, SQUARE + 2) for _ in paths]
    inside = np.zeros((SQUARE + 2, SQUARE + 2), np.float32)
    inside[1:-1, 1:-1] = 1
    frames = []
    for t, offset in enumerate(camera):
        slide = np.array([[1, 0, -MARGIN - offset[0]], [0, 1, -MARGIN - offset[1]]])
        frame = cv2.warpAffine(background, slide, (side, side)).astype(np.float32)
        for i, square in enumerate(squares):
            middle = CELL * np.array([i % ROWS + 0.5, i // ROWS + 0.5])
            x, y = middle - (SQUARE + 2) / 2 + paths[i, t] - offset
            left, top = int(np.floor(x)), int(np.floor(y))
            shift = np.array([[1, 0, x - left], [0, 1, y - top]])
            size = (SQUARE + 3, SQUARE + 3)
            pixels = cv2.warpAffine(square, shift, size, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
            alpha = cv2.warpAffine(inside, shift, size)[..., None]
            rows, columns = (slice(max(0, a), a + size[0]) for a in (top, left))
            alpha, pixels = (z[rows.start - top :, columns.start - left :] for z in (alpha, pixels))
            below = frame[rows, columns]
            alpha, pixels = (z[: below.shape[0], : below.shape[1]] for z in (alpha, pixels))
            frame[rows, columns] = alpha * pixels + (1 - alpha) * below
        frames.append(np.rint(frame).astype(np.uint8))
    return np.stack(frames)


def shrink_paths(paths: np.ndarray) -> np.ndarray:
    """Returns the paths multiplied by one factor, so that every square stays in its cell."""
    return paths * min(1.0, ROOM / np.abs(paths - paths[:, :1]).max())


def render_and_track(random: np.random.Generator, paths: np.ndarray, camera: np.ndarray) -> Tracks:
    """Returns the tracks of a rendered clip, with one patch for each square."""
    return follow(render(random, paths, camera), Tracking(patch=CELL))
