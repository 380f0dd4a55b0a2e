"""Tracks of clips that are made here, so that every motion is known."""

import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.data import tracks
from mi_contrast.data.tracks import LOST, STILL, TRACKED, Matches, Tracking, Tracks, follow, remove_camera

RNG = np.random.default_rng(0)
FRAMES, SIDE = 14, 96


def textured(side):
    """A smooth random picture: blobs some pixels wide, as a tracker likes."""
    picture = RNG.normal(size=(side, side, 3))
    for axis in (0, 1):
        for _ in range(6):
            picture = (np.roll(picture, 1, axis) + 2 * picture + np.roll(picture, -1, axis)) / 4
    low, high = np.percentile(picture, (1, 99))
    return (np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def clip():
    """A square of 40 pixels that wanders over a background that slides, and where its corner is."""
    pytest.importorskip("cv2", reason="OpenCV, the extra [video], is not installed")
    behind, square = textured(SIDE + 3 * FRAMES), textured(40)
    wander = np.cumsum(RNG.integers(-2, 3, size=(FRAMES, 2)), axis=0)
    corner = 28 + wander - wander[0]
    frames = []
    for t, (top, left) in enumerate(corner):
        frame = behind[2 * t : 2 * t + SIDE, t : t + SIDE].copy()  # the camera slides by (-1, -2) a frame
        frame[top : top + 40, left : left + 40] = square
        frames.append(frame)
    return np.stack(frames), corner


def test_tracks_follow_what_moves_and_leave_out_the_camera(clip):
    frames, corner = clip
    found = follow(frames, Tracking(patch=12, camera="homography"))
    assert found.positions.shape == found.steady.shape == (64, FRAMES, 2) and found.colours.shape == (64, FRAMES, 3)
    start = found.positions[:, 0, ::-1] - corner[0]
    inside = np.all((start > 6) & (start < 34), axis=1)  # far enough from the square's edge for the tracker's window
    behind = found.positions[:, :1, ::-1] - np.outer(np.arange(FRAMES), [2, 1]) - corner  # from the square's corner
    free = np.any((behind < -9) | (behind > 49), axis=2).all(axis=1)  # never hidden, nor in one window with the square
    assert inside.sum() >= 4 and (found.state[inside] == TRACKED).all()
    own = (corner - corner[0])[:, ::-1]
    seen = found.positions[inside] - found.positions[inside][:, :1]
    np.testing.assert_allclose(seen, np.broadcast_to(own, seen.shape), atol=0.3)
    moved = found.steady[inside] - found.steady[inside][:, :1]
    true = np.broadcast_to(own + np.outer(np.arange(FRAMES), [1, 2]), moved.shape)
    np.testing.assert_allclose(moved, true, atol=0.3)  # fitted to the 64 tracks alone, it would be pixels off
    # At the top the background leaves the frame; of what stays in sight nothing is left without the camera.
    assert (found.state[found.centres[:, 0] < 15] == LOST).all()
    seen_throughout = free & (found.state != LOST)
    drift = np.abs(found.steady[seen_throughout] - found.steady[seen_throughout][:, :1])
    assert seen_throughout.sum() >= 4 and drift.max() < 1.5 and np.median(drift[:, -1]) < 0.3  # of 13 and 26 pixels


def test_the_same_clip_gives_the_same_tracks_and_no_camera_leaves_all_in(clip):
    frames, _ = clip
    first, second = (follow(frames, Tracking(patch=12)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    left = follow(frames, Tracking(patch=12, camera="none", point="centre"))
    np.testing.assert_allclose(left.steady, left.positions, atol=1e-3)
    np.testing.assert_array_equal(left.positions[:, 0], left.centres[:, ::-1])


def test_a_large_object_and_a_nearing_camera_pull_the_median_aside_and_no_homography():
    pytest.importorskip("cv2", reason="OpenCV, the extra [video], is not installed")
    start = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0)), axis=-1).reshape(-1, 2) * 20
    zoom = 1 + 0.05 * np.arange(3)
    camera = start[:, None] * zoom[None, :, None] + 3 * np.arange(3)[None, :, None]
    of_object = start[:, 0] >= 100  # 24 of 64 patches
    camera[of_object] += np.array([6.0, -4.0]) * np.arange(3)[None, :, None]
    sound = np.ones((64, 2), bool)
    moved = [Matches(*np.float32(camera[:, t : t + 2]).transpose(1, 0, 2)) for t in (0, 1)]
    errors = {}
    for word in ("homography", "median"):
        own, kept = remove_camera(camera, sound, moved, word)
        assert kept.all()
        errors[word] = np.abs(own[~of_object]).max()
        errors[word, "object"] = np.abs(own[of_object] - [6.0, -4.0]).max()
    assert errors["homography"] < 0.01 and errors["homography", "object"] < 0.5
    assert errors["median"] > 3
    few = [moved[0], Matches(moved[1].before[:5], moved[1].after[:5])]  # five corners say nothing of a camera
    own, kept = remove_camera(camera, sound, few, "homography")
    assert kept[:, 0].all() and not kept[:, 1].any() and not own[:, 1].any()


def test_what_does_not_return_when_followed_back_is_not_sound():
    cv2 = pytest.importorskip("cv2", reason="OpenCV, the extra [video], is not installed")
    now, other = (cv2.cvtColor(textured(SIDE), cv2.COLOR_RGB2GRAY) for _ in range(2))
    then = np.roll(now, 2, axis=1)
    then[:, SIDE // 2 :] = other[:, SIDE // 2 :]  # the right half is something else
    centres = tracks.patch_centres(SIDE, SIDE, 16, 8)[:, ::-1].astype(np.float32)
    ahead, good = tracks.track_step(cv2, now, then, centres, Tracking())
    left, right = (np.abs(centres[:, 0] - at) < 20 for at in (24, 76))
    assert good[left].all() and good[right].mean() < 0.5
    off = np.abs(ahead[left] - centres[left] - [2.0, 0.0]).max(axis=1)
    assert np.median(off) < 0.02 and off.max() < 0.6  # the worst sees the other half in its window
    loose = tracks.track_step(cv2, now, then, centres, Tracking(tolerance=1e9))[1]
    assert loose[right].mean() > good[right].mean() + 0.2


def test_states_are_of_the_shares_and_spreads_that_are_asked_for():
    own = np.zeros((3, 10, 2))
    own[0, ::2] = 1.0  # variance .5 of the two coordinates together: a spread of .71
    sound = np.ones((3, 10), bool)
    sound[2, :3] = False
    assert tracks.classify_tracks(own, sound, Tracking(lost=0.2)).tolist() == [TRACKED, STILL, LOST]
    assert tracks.classify_tracks(own, sound, Tracking(lost=0.3, still=0.8)).tolist() == [STILL, STILL, STILL]
    colours = np.zeros((3, 11, 3), np.float32)
    colours[1, ::2] = 5
    made = Tracks(np.zeros((3, 2)), own, own, colours, np.array([TRACKED, STILL, LOST], np.int8))
    assert tracks.classify_colours(made, Tracking()).tolist() == [STILL, TRACKED, LOST]


def test_colours_are_means_of_what_of_the_patch_is_in_the_frame():
    frames = RNG.integers(0, 256, (2, 20, 30, 3)).astype(np.uint8)
    positions = np.array([[[10.2, 9.0], [0.0, 0.0]], [[28.0, 18.6], [40.0, -9.0]]], np.float32)
    found = tracks.mean_colours(frames, positions, 6)
    np.testing.assert_allclose(found[0, 0], frames[0, 6:12, 7:13].mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found[0, 1], frames[1, :3, :3].mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found[1, 0], frames[0, 16:, 25:].mean(axis=(0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found[1, 1], frames[1, 0, 29], rtol=1e-5)  # gone: the nearest pixel


def test_patches_are_cut_where_their_centres_say():
    frame = RNG.integers(0, 256, (21, 33, 3)).astype(np.uint8)
    centres = tracks.patch_centres(21, 33, 8, 4)
    assert len(centres) == 4 * 7
    patches = tracks.cut_patches(frame, centres, 8)
    row, column = centres[9]
    np.testing.assert_array_equal(patches[9], frame[row - 4 : row + 4, column - 4 : column + 4])
    assert centres.min() >= 4 and (centres + 4 <= [21, 33]).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Tracking(camera="homograph"), "did you mean 'homography'"),
        (lambda: Tracking(point="middle"), "corner"),
        (lambda: Tracking(patch=2), "patch is 2"),
        (lambda: Tracking(stride=0), "stride is 0"),
        (lambda: Tracking(still=-1.0), "still is -1"),
        (lambda: tracks.patch_centres(10, 40, 16, 16), "smaller --patch"),
    ],
)
def test_mistakes_are_said(call, said):
    with pytest.raises(UserError, match=said):
        call()
