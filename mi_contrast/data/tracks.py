"""Tracks the patches of a clip's first frame through the clip, and removes the motion of the camera.

A patch is tracked by one point, the best corner in its middle, with OpenCV's pyramidal Lucas-Kanade method from frame
to frame. The point is tracked forward and back again. If it does not return to where it was, or leaves the frame, the
track is unreliable in that frame.

The motion of the camera is estimated between every two frames, and subtracted from the step of each track:

  homography   fitted by RANSAC to corners all over the frame. It is exact for a plane or a rotating camera. The corners
               are not the tracks: few tracks are on the background, and a large object would bend the fit by pixels.
  median       the median step of those corners. It suits a camera that only translates. A large object, or a camera
               that rotates or approaches, biases it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.data.clips import import_opencv

CAMERAS = ("homography", "median", "none")
POINTS = ("corner", "centre")
TRACKED, STILL, LOST = 0, 1, 2  # indices of these words in `pair_sets.STATES`
MIN_CORNERS, MAX_CORNERS = 8, 600  # how many corners are used to estimate the camera's motion
INLIER_DISTANCE = 0.5  # pixels by which a corner may deviate from a homography and still be an inlier


@dataclass(frozen=True)
class Tracking:
    """How patches are cut and tracked.

    Attributes:
      patch: pixels a side.
      stride: pixels from one patch to the next; `patch` by default, so that patches do not overlap.
      point: which point is tracked: 'corner', the best corner in the middle half of the patch, or 'centre'.
      window: pixels a side of the window that Lucas-Kanade compares.
      levels: number of times that Lucas-Kanade halves the frame.
      tolerance: pixels by which a point that is tracked forward and back may miss its start.
      lost: a track is lost if it is unreliable in more than this share of the frames.
      still: a track is still if the spread of its own steps (root of their total variance) is below this, in pixels.
      camera: how the motion of the camera is estimated: 'homography', 'median' or 'none'.
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


class Matches(NamedTuple):
    """Positions (x, y) of points in one frame and in the next, float32 [n, 2] each."""

    before: Float[np.ndarray, "n 2"]
    after: Float[np.ndarray, "n 2"]


class Tracks(NamedTuple):
    """The tracks of a clip's patches.

    centres: int32 [P, 2], row and column of each patch in the first frame.
    positions: float32 [P, T, 2], x and y in pixels.
    steady: float32 [P, T, 2], the same without the camera's motion.
    colours: float32 [P, T, 3], the patch's mean colour, 0 to 255.
    state: int8 [P], 0 tracked, 1 still, 2 lost.
    """

    centres: Int[np.ndarray, "P 2"]
    positions: Float[np.ndarray, "P T 2"]
    steady: Float[np.ndarray, "P T 2"]
    mean_colours: Float[np.ndarray, "P T 3"]
    classify_tracks: Int[np.ndarray, " P"]


def patch_centres(height: int, width: int, patch: int, stride: int) -> Int[np.ndarray, "P 2"]:
    """Returns the centres (row, column) of the patches that fit, row by row. Margins are equal on both sides.

    Raises:
      UserError: no patch fits.

    >>> patch_centres(8, 14, 4, 4).tolist()
    [[2, 3], [2, 7], [2, 11], [6, 3], [6, 7], [6, 11]]
    """
    if min(height, width) < patch:
        raise UserError(f"frames of {width} x {height} pixels hold no patch of {patch}", fix="give a smaller --patch")
    rows, columns = (
        (side - patch) % stride // 2 + patch // 2 + stride * np.arange((side - patch) // stride + 1)
        for side in (height, width)
    )
    return np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2).astype(np.int32)


def cut_patches(
    frame: UInt8[np.ndarray, "H W 3"], centres: Int[np.ndarray, "P 2"], patch: int
) -> UInt8[np.ndarray, "P S S 3"]:
    """Cuts the patches at these centres out of a frame."""
    corners = centres - patch // 2
    return np.stack([frame[top : top + patch, left : left + patch] for top, left in corners])


def follow(frames: UInt8[np.ndarray, "T H W 3"], how: Tracking) -> Tracks:
    """Tracks the patches of the first frame to the last.

    Raises:
      UserError: OpenCV is not installed, or no patch fits.
    """
    cv2 = import_opencv()
    height, width = frames.shape[1:3]
    centres = patch_centres(height, width, how.patch, how.stride or how.patch)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    points = find_corners(cv2, grey[0], centres, how) if how.point == "corner" else centres[:, ::-1].astype(np.float32)
    path, reliability, background = [points], [], []
    for frame, next_frame in pairwise(grey):
        points, is_reliable = track_step(cv2, frame, next_frame, points, how)
        path.append(points)
        reliability.append(is_reliable)
        background.append(match_corners(cv2, frame, next_frame, how) if how.camera != "none" else None)
    positions, reliable = np.stack(path, axis=1), np.stack(reliability, axis=1)
    own_steps, reliable = remove_camera(positions, reliable, background, how.camera)
    steady = positions[:, :1] + np.pad(np.cumsum(own_steps, axis=1), ((0, 0), (1, 0), (0, 0)))
    return Tracks(
        centres,
        positions,
        steady.astype(np.float32),
        mean_colours(frames, positions, how.patch),
        classify_tracks(own_steps, reliable, how),
    )


def find_corners(
    cv2: Any, grey: UInt8[np.ndarray, "H W"], centres: Int[np.ndarray, "P 2"], how: Tracking
) -> Float[np.ndarray, "P 2"]:
    """Returns the best corner (x, y) in the middle half of each patch, by Shi and Tomasi's least eigenvalue."""
    strength = cv2.cornerMinEigenVal(grey, max(3, how.window // 2))
    half = max(1, how.patch // 4)
    points = []
    for row, column in centres:
        middle = strength[row - half : row + half, column - half : column + half]
        down, right = np.unravel_index(int(np.argmax(middle)), middle.shape)
        points.append((column - half + right, row - half + down))
    return np.array(points, np.float32)


def track_step(
    cv2: Any, frame: np.ndarray, next_frame: np.ndarray, points: Float[np.ndarray, "P 2"], how: Tracking
) -> tuple[Float[np.ndarray, "P 2"], Bool[np.ndarray, " P"]]:
    """Returns the positions of points in the next frame, and which points are reliable.

    A point is reliable if it returns to its position when tracked back. A point that is not found keeps its position.
    """
    options = dict(winSize=(how.window, how.window), maxLevel=how.levels)
    forward, found_forward, _ = cv2.calcOpticalFlowPyrLK(frame, next_frame, points[:, None], None, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(next_frame, frame, forward, None, **options)
    forward, back = forward[:, 0], back[:, 0]
    edge = np.array(frame.shape[::-1]) - 1
    is_inside = np.all((forward >= 0) & (forward <= edge), axis=1) & (found_forward[:, 0] == 1)
    is_reliable = is_inside & (found_back[:, 0] == 1) & (np.hypot(*(back - points).T) <= how.tolerance)
    return np.where(is_inside[:, None], forward, points).astype(np.float32), is_reliable


def match_corners(cv2: Any, frame: np.ndarray, next_frame: np.ndarray, how: Tracking) -> Matches:
    """Finds corners all over a frame and their positions in the next. Returns the reliable ones."""
    best = cv2.goodFeaturesToTrack(frame, MAX_CORNERS, 0.01, max(3, how.window // 3))
    points = np.zeros((0, 2), np.float32) if best is None else best[:, 0]
    if not len(points):
        return Matches(points, points)
    positions, is_reliable = track_step(cv2, frame, next_frame, points, how)
    return Matches(points[is_reliable], positions[is_reliable])


def remove_camera(
    positions: Float[np.ndarray, "P T 2"],
    reliable: Bool[np.ndarray, "P T-1"],
    background: Sequence[Matches | None],
    camera: str,
) -> tuple[Float[np.ndarray, "P T-1 2"], Bool[np.ndarray, "P T-1"]]:
    """Returns each track's steps minus the camera's, in pixels of the later frame, and which steps are reliable.

    All steps between two frames are unreliable if there are fewer than 8 matches, or if no homography can be fitted.

    Args:
      positions: of the tracks.
      reliable: which steps are reliable so far.
      background: for every step, the matches from which the camera's motion is estimated.
      camera: 'homography', 'median' or 'none'.
    """
    own_steps = np.zeros_like(positions[:, 1:], dtype=np.float64)
    reliable = reliable.copy()
    for t in range(positions.shape[1] - 1):
        before, after, matches = positions[:, t].astype(np.float64), positions[:, t + 1], background[t]
        if camera == "none" or matches is None:
            own_steps[:, t] = after - before
            continue
        if len(matches.before) < MIN_CORNERS:
            reliable[:, t] = False
            continue
        if camera == "homography":
            cv2 = import_opencv()
            cv2.setRNGSeed(0)
            homography, _ = cv2.findHomography(
                matches.before, matches.after, cv2.RANSAC, INLIER_DISTANCE, maxIters=2000, confidence=0.999
            )
            if homography is None:
                reliable[:, t] = False
                continue
            before = cv2.perspectiveTransform(before[:, None], homography)[:, 0]
        else:
            before = before + np.median(matches.after - matches.before, axis=0)
        own_steps[:, t] = after - before
    return own_steps, reliable


def classify_tracks(
    own_steps: Float[np.ndarray, "P T-1 2"], reliable: Bool[np.ndarray, "P T-1"], how: Tracking
) -> Int[np.ndarray, " P"]:
    """Returns the state of each track, int8 [P]: `LOST`, `STILL` or `TRACKED`."""
    is_lost = np.mean(~reliable, axis=1) > how.lost
    spread = np.sqrt(own_steps.var(axis=1).sum(axis=-1))
    return np.where(is_lost, LOST, np.where(spread < how.still, STILL, TRACKED)).astype(np.int8)


def classify_colours(tracks: Tracks, how: Tracking) -> Int[np.ndarray, " P"]:
    """Returns the states of tracks whose colours are analysed: a track is still if its colours hardly change.

    `how.still` is then in grey levels.
    """
    spread = np.sqrt(np.diff(tracks.colours, axis=1).var(axis=1).sum(axis=-1))
    return np.where(tracks.state == LOST, LOST, np.where(spread < how.still, STILL, TRACKED)).astype(np.int8)


def mean_colours(
    frames: UInt8[np.ndarray, "T H W 3"], positions: Float[np.ndarray, "P T 2"], patch: int
) -> Float[np.ndarray, "P T 3"]:
    """Returns the mean colour of the patch around each track's point, float32 [P, T, 3], inside the frame."""
    height, width = frames.shape[1:3]
    colours = np.empty((*positions.shape[:2], 3), np.float32)
    for t, frame in enumerate(frames):
        sums = np.zeros((height + 1, width + 1, 3), np.int64)
        sums[1:, 1:] = frame.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
        left, top = np.rint(positions[:, t]).astype(int).T - patch // 2
        across, down = ((np.clip(a, 0, s - 1), np.clip(a + patch, 1, s)) for a, s in ((left, width), (top, height)))
        total = (
            sums[down[1], across[1]] - sums[down[0], across[1]] - sums[down[1], across[0]] + sums[down[0], across[0]]
        )
        colours[:, t] = total / ((across[1] - across[0]) * (down[1] - down[0]))[:, None]
    return colours
