import numpy as np
import pytest

from mi_contrast.benchmarks import rendered_clips, twins
from mi_contrast.benchmarks.rendered_clips import CELL, SQUARE

pytest.importorskip("cv2", reason="OpenCV, the extra [video], is not installed")


def square(frame, at, x, y):
    """The inside of a square that has moved to x, y from its cell's middle, less the pixel of its edge."""
    top, left = (CELL * place + CELL // 2 - SQUARE // 2 + off for place, off in ((at // 8, y), (at % 8, x)))
    return frame[top + 1 : top + SQUARE - 1, left + 1 : left + SQUARE - 1].astype(int)


def test_squares_move_along_their_paths_and_all_slides_with_the_camera():
    paths, camera = np.zeros((64, 4, 2)), np.zeros((4, 2))
    paths[9, 1], paths[9, 2] = (3, -2), (0.5, 0)
    camera[3] = (4, 1)
    frames = rendered_clips.render(np.random.default_rng(0), paths, camera)
    assert frames.shape == (4, 8 * CELL, 8 * CELL, 3) and frames.dtype == np.uint8
    first = square(frames[0], 9, 0, 0)
    np.testing.assert_array_equal(square(frames[1], 9, 3, -2), first)
    halfway = (first[:, :-1] + first[:, 1:]) / 2  # half a pixel right: between a pixel and the one left of it
    assert np.abs(square(frames[2], 9, 0, 0)[:, 1:] - halfway).max() <= 2
    np.testing.assert_array_equal(frames[3][:-1, :-4], frames[0][1:, 4:])
    np.testing.assert_array_equal(frames[2][: CELL - 4], frames[0][: CELL - 4])  # nothing else moved


def test_paths_are_made_to_fit_their_cells_together():
    paths = twins.make_paths(4 * twins.make_steps(np.random.default_rng(0), 64, 40))
    small = rendered_clips.shrink_paths(paths)
    assert np.abs(small - small[:, :1]).max() == pytest.approx(rendered_clips.ROOM)
    ratio = small[:, 1:] / paths[:, 1:]
    assert np.ptp(ratio) < 1e-12 and ratio.max() < 1
    np.testing.assert_array_equal(rendered_clips.shrink_paths(small / 2), small / 2)


@pytest.mark.nightly
def test_groups_are_found_through_the_tracker(monkeypatch):
    monkeypatch.setattr(twins, "CLIPS", (("white, c .9", 0.0, 0.9, 0.0), ()))
    (row,) = twins.measure_rendered(np.random.default_rng(1), 4).values()
    assert min(row[word] for word in ("displacement", "second_difference", "prewhitened")) >= 0.95
    assert row["tracked"] > 0.9 and row["step_error"] < 0.6 and abs(row["random"] - 0.5) < 0.1
    assert row["raw"] < row["displacement"]
