"""Clips whose groups of co-moving patches are known, drawn and then tracked as any video is: 64 textured squares, each
in a cell of its own, over a textured background that the camera shakes.

What the tracker adds to the motions, what it loses, and what the camera leaves in are then part of the figures.
"""

from __future__ import annotations

import numpy as np

from mi_contrast.data.clips import import_opencv
from mi_contrast.data.tracks import Tracking, Tracks, follow

CELL, SQUARE, ROWS = 48, 28, 8  # pixels a side, and cells a side of the frame
AROUND = 24  # pixels of background beyond the frame, for the camera to move in
ROOM = (CELL - SQUARE) / 2  # pixels that a square may stray


def textured(draw: np.random.Generator, side: int) -> np.ndarray:
    """A smooth random picture, uint8 [side, side, 3]: blobs a few pixels wide, as a tracker likes."""
    cv2 = import_opencv()
    picture = cv2.GaussianBlur(draw.normal(size=(side, side, 3)), (0, 0), 1.5)
    low, high = np.percentile(picture, (1, 99))
    return (np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def render(draw: np.random.Generator, paths: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """Frames, uint8 [T, H, W, 3], of squares along paths [64, T, 2] (x, y; pixels from their cells' middle) seen by a
    camera at [T, 2]; drawn between pixels by bilinear interpolation.
    """
    cv2 = import_opencv()
    side = ROWS * CELL
    behind = textured(draw, side + 2 * AROUND)
    squares = [textured(draw, SQUARE + 2) for _ in paths]
    inside = np.zeros((SQUARE + 2, SQUARE + 2), np.float32)
    inside[1:-1, 1:-1] = 1
    frames = []
    for t, shaken in enumerate(camera):
        slide = np.array([[1, 0, -AROUND - shaken[0]], [0, 1, -AROUND - shaken[1]]])
        frame = cv2.warpAffine(behind, slide, (side, side)).astype(np.float32)
        for at, square in enumerate(squares):
            middle = CELL * np.array([at % ROWS + 0.5, at // ROWS + 0.5])
            x, y = middle - (SQUARE + 2) / 2 + paths[at, t] - shaken
            left, top = int(np.floor(x)), int(np.floor(y))
            by = np.array([[1, 0, x - left], [0, 1, y - top]])
            size = (SQUARE + 3, SQUARE + 3)
            seen = cv2.warpAffine(square, by, size, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
            share = cv2.warpAffine(inside, by, size)[..., None]
            rows, columns = (slice(max(0, a), a + size[0]) for a in (top, left))
            share, seen = (z[rows.start - top :, columns.start - left :] for z in (share, seen))
            under = frame[rows, columns]
            share, seen = (z[: under.shape[0], : under.shape[1]] for z in (share, seen))
            frame[rows, columns] = share * seen + (1 - share) * under
        frames.append(np.rint(frame).astype(np.uint8))
    return np.stack(frames)


def fitted(paths: np.ndarray) -> np.ndarray:
    """The paths, all by one factor, so small that every square stays in its cell."""
    return paths * min(1.0, ROOM / np.abs(paths - paths[:, :1]).max())


def tracked(draw: np.random.Generator, paths: np.ndarray, camera: np.ndarray) -> Tracks:
    """Tracks of the rendered clip, a patch a square."""
    return follow(render(draw, paths, camera), Tracking(patch=CELL))
