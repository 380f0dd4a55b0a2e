"""Tracks: patches of a clip's first frame, followed through it, the camera's own motion taken out.

A patch is followed by one point: the best corner of its middle, by OpenCV's pyramidal Lucas-Kanade from frame to frame.
Followed there and back it must return; where it does not, or leaves the frame, it fails in that frame.

The camera moves everything. A homography, which a plane or a turning camera gives exactly, is fitted to corners all
over the frame, found anew between every two frames, so that what disagrees has no say (RANSAC); what is left of a
track's step is its own. (Fitted to the tracks alone, of which few are of the background, it bends after a large object
by pixels.) A median step does it for a camera that only slides: a large object, or a camera that turns or nears, pulls
it aside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.data.clips import opencv

CAMERAS = ("homography", "median", "none")
POINTS = ("corner", "centre")
TRACKED, STILL, LOST = 0, 1, 2  # the places of these words in `pair_sets.STATES`
LEAST, MOST = 8, 600  # corners from which a camera is fitted
INSIDE = 0.5  # pixels within which a corner's step agrees with a homography


@dataclass(frozen=True)
class Tracking:
    """How patches are cut and followed.

    patch, stride: pixels a side, and from one patch to the next (`patch` by default, none overlap).
    point: 'corner', the best to follow in the middle half of the patch, or 'centre'.
    window, levels: pixels a side of what is compared, and halvings of the frame above it.
    tolerance: pixels within which a point followed there and back returns.
    lost: the share of frames above which failing makes a track lost.
    still: pixels; a track whose own steps have less spread (root of the total variance) says nothing.
    camera: 'homography', 'median' or 'none'.
    """

    patch: int = 16
    stride: int | None = None
    point: str = "corner"
    window: int = 15
    levels: int = 3
    tolerance: float = 1.0
    lost: float = 0.2
    still: float = 0.1
    camera: str = "homography"

    def __post_init__(self) -> None:
        for name, least in (("patch", 4), ("stride", 1), ("window", 3), ("levels", 0)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise UserError(f"{name} is {value!r}", fix=f"give a whole number from {least} up")
        for name in ("tolerance", "lost", "still"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name} is {getattr(self, name)!r}", fix="give 0 or more")
        if self.camera not in CAMERAS:
            raise unknown("camera", self.camera, CAMERAS)
        if self.point not in POINTS:
            raise unknown("point", self.point, POINTS)


class Moved(NamedTuple):
    """Places (x, y) in a frame and in the next, float32 [n, 2] each."""

    before: Float[np.ndarray, "n 2"]
    after: Float[np.ndarray, "n 2"]


class Tracks(NamedTuple):
    """centres: int32 [P, 2], row and column of each patch in the first frame. positions: float32 [P, T, 2], x and y in
    pixels as followed. steady: float32 [P, T, 2], the same without the camera's motion. colours: float32 [P, T, 3], the
    patch's mean colour, 0 to 255. state: int8 [P], 0 tracked, 1 still, 2 lost.
    """

    centres: Int[np.ndarray, "P 2"]
    positions: Float[np.ndarray, "P T 2"]
    steady: Float[np.ndarray, "P T 2"]
    colours: Float[np.ndarray, "P T 3"]
    state: Int[np.ndarray, " P"]


def grid(height: int, width: int, patch: int, stride: int) -> Int[np.ndarray, "P 2"]:
    """Centres (row, column) of the patches that fit, row by row, the margins shared by both sides.

    Raises:
      UserError: no patch fits.

    >>> grid(8, 14, 4, 4).tolist()
    [[2, 3], [2, 7], [2, 11], [6, 3], [6, 7], [6, 11]]
    """
    if min(height, width) < patch:
        raise UserError(f"frames of {width} x {height} pixels hold no patch of {patch}", fix="give a smaller --patch")
    rows, columns = (
        (side - patch) % stride // 2 + patch // 2 + stride * np.arange((side - patch) // stride + 1)
        for side in (height, width)
    )
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int32)


def cut(frame: UInt8[np.ndarray, "H W 3"], centres: Int[np.ndarray, "P 2"], patch: int) -> UInt8[np.ndarray, "P S S 3"]:
    """The patches of a frame at these centres."""
    corners = centres - patch // 2
    return np.stack([frame[top : top + patch, left : left + patch] for top, left in corners])


def follow(frames: UInt8[np.ndarray, "T H W 3"], how: Tracking) -> Tracks:
    """The patches of the first frame, followed to the last.

    Raises:
      UserError: OpenCV is not installed, or no patch fits.
    """
    cv2 = opencv()
    height, width = frames.shape[1:3]
    centres = grid(height, width, how.patch, how.stride or how.patch)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    points = corners(cv2, grey[0], centres, how) if how.point == "corner" else centres[:, ::-1].astype(np.float32)
    positions, found, anywhere = [points], [], []
    for now, then in pairwise(grey):
        points, good = step(cv2, now, then, points, how)
        positions.append(points)
        found.append(good)
        anywhere.append(scattered(cv2, now, then, how) if how.camera != "none" else None)
    walked, sound = np.stack(positions, axis=1), np.stack(found, axis=1)
    own, sound = own_steps(walked, sound, anywhere, how.camera)
    steady = walked[:, :1] + np.pad(np.cumsum(own, axis=1), ((0, 0), (1, 0), (0, 0)))
    return Tracks(
        centres, walked, steady.astype(np.float32), colours(frames, walked, how.patch), state(own, sound, how)
    )


def corners(
    cv2: ModuleType, grey: UInt8[np.ndarray, "H W"], centres: Int[np.ndarray, "P 2"], how: Tracking
) -> Float[np.ndarray, "P 2"]:
    """In the middle half of each patch the place (x, y) that is most a corner (Shi and Tomasi's least eigenvalue)."""
    strength = cv2.cornerMinEigenVal(grey, max(3, how.window // 2))
    half = max(1, how.patch // 4)
    found = []
    for row, column in centres:
        middle = strength[row - half : row + half, column - half : column + half]
        down, right = np.unravel_index(int(np.argmax(middle)), middle.shape)
        found.append((column - half + right, row - half + down))
    return np.array(found, np.float32)


def step(
    cv2: ModuleType, now: np.ndarray, then: np.ndarray, points: Float[np.ndarray, "P 2"], how: Tracking
) -> tuple[Float[np.ndarray, "P 2"], Bool[np.ndarray, " P"]]:
    """Where the points of one frame are in the next, and which of them return when followed back. One that is not found
    stays where it is.
    """
    options = dict(winSize=(how.window, how.window), maxLevel=how.levels)
    ahead, there, _ = cv2.calcOpticalFlowPyrLK(now, then, points[:, None], None, **options)
    back, again, _ = cv2.calcOpticalFlowPyrLK(then, now, ahead, None, **options)
    ahead, back = ahead[:, 0], back[:, 0]
    edge = np.array(now.shape[::-1]) - 1
    within = np.all((ahead >= 0) & (ahead <= edge), axis=1) & (there[:, 0] == 1)
    good = within & (again[:, 0] == 1) & (np.hypot(*(back - points).T) <= how.tolerance)
    return np.where(within[:, None], ahead, points).astype(np.float32), good


def scattered(cv2: ModuleType, now: np.ndarray, then: np.ndarray, how: Tracking) -> Moved:
    """Corners all over a frame and where they are in the next; those that return when followed back."""
    best = cv2.goodFeaturesToTrack(now, MOST, 0.01, max(3, how.window // 3))
    seen = np.zeros((0, 2), np.float32) if best is None else best[:, 0]
    if not len(seen):
        return Moved(seen, seen)
    ahead, good = step(cv2, now, then, seen, how)
    return Moved(seen[good], ahead[good])


def own_steps(
    positions: Float[np.ndarray, "P T 2"],
    sound: Bool[np.ndarray, "P T-1"],
    anywhere: Sequence[Moved | None],
    camera: str,
) -> tuple[Float[np.ndarray, "P T-1 2"], Bool[np.ndarray, "P T-1"]]:
    """Each track's step less the camera's, in pixels of the later frame, and which steps are sound: between two frames
    with fewer than 8 corners, or that no homography joins, none is.
    """
    own = np.zeros_like(positions[:, 1:], dtype=np.float64)
    sound = sound.copy()
    for t in range(positions.shape[1] - 1):
        before, after, moved = positions[:, t].astype(np.float64), positions[:, t + 1], anywhere[t]
        if camera == "none" or moved is None:
            own[:, t] = after - before
            continue
        if len(moved.before) < LEAST:
            sound[:, t] = False
            continue
        if camera == "homography":
            cv2 = opencv()
            cv2.setRNGSeed(0)
            fitted, _ = cv2.findHomography(
                moved.before, moved.after, cv2.RANSAC, INSIDE, maxIters=2000, confidence=0.999
            )
            if fitted is None:
                sound[:, t] = False
                continue
            before = cv2.perspectiveTransform(before[:, None], fitted)[:, 0]
        else:
            before = before + np.median(moved.after - moved.before, axis=0)
        own[:, t] = after - before
    return own, sound


def state(own: Float[np.ndarray, "P T-1 2"], sound: Bool[np.ndarray, "P T-1"], how: Tracking) -> Int[np.ndarray, " P"]:
    """Which tracks are lost, which of the others stand still; int8 [P]."""
    lost = np.mean(~sound, axis=1) > how.lost
    spread = np.sqrt(own.var(axis=1).sum(axis=-1))
    return np.where(lost, LOST, np.where(spread < how.still, STILL, TRACKED)).astype(np.int8)


def still_colours(tracks: Tracks, how: Tracking) -> Int[np.ndarray, " P"]:
    """The states where a track's colours are what is asked: still where they hardly change, `still` in levels."""
    spread = np.sqrt(np.diff(tracks.colours, axis=1).var(axis=1).sum(axis=-1))
    return np.where(tracks.state == LOST, LOST, np.where(spread < how.still, STILL, TRACKED)).astype(np.int8)


def colours(
    frames: UInt8[np.ndarray, "T H W 3"], positions: Float[np.ndarray, "P T 2"], patch: int
) -> Float[np.ndarray, "P T 3"]:
    """The mean colour of the patch around each track's point, or of what of it lies in the frame."""
    height, width = frames.shape[1:3]
    found = np.empty((*positions.shape[:2], 3), np.float32)
    for t, frame in enumerate(frames):
        sums = np.zeros((height + 1, width + 1, 3), np.int64)
        sums[1:, 1:] = frame.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        left, top = np.rint(positions[:, t]).astype(int).T - patch // 2
        across, down = ((np.clip(a, 0, s - 1), np.clip(a + patch, 1, s)) for a, s in ((left, width), (top, height)))
        total = (
            sums[down[1], across[1]] - sums[down[0], across[1]] - sums[down[1], across[0]] + sums[down[0], across[0]]
        )
        found[:, t] = total / ((across[1] - across[0]) * (down[1] - down[0]))[:, None]
    return found
