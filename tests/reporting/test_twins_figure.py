import io

import numpy as np
from PIL import Image

from mi_contrast.reporting import twins_figure
from mi_contrast.reporting.twins_figure import EDGE, HEAD, colour

CENTRES = np.array([[8, 8], [8, 56], [24, 8], [24, 56]])


def drawn(frame=None, **changed):
    """A frame of 32 x 64 pixels, drawn fifteen times as large, as an array."""
    frame = np.zeros((32, 64, 3), np.uint8) if frame is None else frame
    given = {
        "centres": CENTRES,
        "twin": np.array([1, 1, 3, 3]),
        "nats": np.array([2.0, np.nan, 1.0, np.nan]),
        "accepted": np.array([True, False, False, False]),
        "tracked": np.array([True, True, True, False]),
    } | changed
    png = twins_figure.draw("a clip", frame, *(given.pop(n) for n in ("centres", "twin", "nats", "accepted")), **given)
    return np.asarray(Image.open(io.BytesIO(png)))


def test_lines_have_the_colour_of_their_nats_and_accepted_ones_are_full():
    page = drawn()
    at = lambda row, column: page[HEAD + round((row + 0.5) * 15), EDGE + round((column + 0.5) * 15)].astype(int)  # noqa: E731
    assert np.abs(at(8, 30) - colour(2.0, 0.0, 2.0)).max() < 25  # the most: its colour in full, but for smoothing
    assert at(24, 30).any()
    middle = page[:, EDGE + 480, 1].astype(int)  # green across both lines: as many pixels' worth as they are thick
    wide, thin = (middle[HEAD + 15 * row : HEAD + 15 * (row + 1)].sum() for row in (8, 24))
    assert wide > 2.5 * colour(2.0, 0.0, 2.0)[1] and 0.3 < thin / colour(1.0, 0.0, 2.0)[1] < 0.75
    assert not at(16, 30).any()
    assert (at(8, 8) > 200).all() and not (at(24, 56) > 200).any()  # a tracked patch is a dot, another a ring
    nothing = drawn(nats=np.full(4, np.nan), twin=np.arange(4))
    assert nothing.shape == page.shape


def test_objects_are_outlined_and_the_bar_runs_over_the_nats():
    objects = np.zeros((32, 64), bool)
    objects[10:22, 20:40] = True
    page, without = drawn(objects=objects).astype(int), drawn().astype(int)
    changed = (np.abs(page - without).max(axis=-1) > 100)[HEAD : HEAD + 32 * 15, EDGE : EDGE + 64 * 15]
    rows, columns = np.nonzero(changed)
    assert abs(rows.min() - 150) < 12 and abs(rows.max() - 330) < 12
    assert abs(columns.min() - 300) < 12 and abs(columns.max() - 600) < 12
    assert changed.mean() < 0.02
    bar = page[HEAD + 22 : HEAD + 480, EDGE + 960 + EDGE + 12]
    assert np.abs(bar[0] - colour(1, 0, 1)).max() < 4 and np.abs(bar[-1] - colour(0, 0, 1)).max() < 4
    assert twins_figure.span(np.array([-0.2, 0.5])) == (-0.2, 0.5) and twins_figure.span(np.zeros(0)) == (0.0, 1.0)


def test_a_tall_frame_stays_on_a_page():
    page = drawn(np.zeros((64, 32, 3), np.uint8))
    assert page.shape[0] <= 600 + HEAD + EDGE
