"""Curves of a study: points lie where their numbers say, in order, with their names."""

import re
from itertools import combinations

import numpy as np
import pytest

from mi_contrast.core.layout import write_json
from mi_contrast.reporting import study_curve, study_page
from mi_contrast.reporting.study_runs import read_study
from tests.reporting import fake_study

POINTS = {"ring 1": (2.5, 0.52), "ring 2": (1.0, 0.4), "ring 5": (3.5, 0.46)}


@pytest.fixture
def root(tmp_path):
    settings = {label: (0,) for label in POINTS} | {"ring d <>": (0,), "all": (0,)}
    write_json(tmp_path / "study.json", fake_study.told(settings, curve="mi_nats"))
    for label, (nats, share) in POINTS.items():
        fake_study.write_run(tmp_path / f"runs/{label.replace(' ', '-')}-seed0", top1=share, untrained=0.3, mi=nats)
    return tmp_path


def test_points_lie_where_their_numbers_say(root):
    svg = study_curve.draw(read_study(root))
    found = {
        label: (float(x), float(y))
        for label, x, y in re.findall(
            r'<title>(ring .):.*?</title>\n<circle class="seed" cx="([\d.]+)" cy="([\d.]+)"', svg
        )
    }
    assert list(found) == list(POINTS)
    for axis, sign in ((0, 1), (1, -1)):
        values, places = np.array([[POINTS[n][axis], found[n][axis]] for n in POINTS]).T
        slope, at = np.polyfit(values, places, 1)
        assert sign * slope > 0 and np.abs(slope * values + at - places).max() < 0.1
    assert svg.count('class="mean"') == 2 and "untrained" in svg and "at most 6.93" in svg
    assert "nothing judged yet" in svg, "a group without runs says so"


def test_a_study_has_curves_where_it_asks_for_them(root):
    study_page.write_study(root)
    assert (root / "curves.svg").read_text() in (root / "study.html").read_text()
    write_json(root / "study.json", fake_study.told({"all": (0,)}))
    assert study_curve.draw(read_study(root)) == ""


@pytest.mark.parametrize(
    ("labels", "joined"),
    [
        (("area 0.05", "area 0.4", "area 0.8"), True),
        (("8 pixels", "4 pixels", "2 pixels"), True),
        (("8 pixels", "16 pixels", "2 pixels"), False),
        (("8 pixels", "8 others", "9 pixels"), False),
        (("rgb", "lab", "hsv"), False),
        (("area 1", "area 2", "lab"), False),
    ],
)
def test_steps_of_a_scale_are_joined_and_kinds_are_not(tmp_path, labels, joined):
    made(tmp_path, dict(zip(labels, POINTS.values(), strict=True)))
    assert drawn(tmp_path).count('class="mean"') == 2 * joined


def test_names_of_points_close_together_do_not_cover_each_other(tmp_path):
    close = {f"learned, {way}": (2.5 + 0.02 * i, 0.5 + 0.001 * i) for i, way in enumerate(("so", "other", "neither"))}
    made(tmp_path, {**close, "far": (4.0, 0.3), "farther, at the end of the panel": (4.1, 0.31)})
    names = re.findall(
        r'<text class="tick" x="([\d.]+)" y="([\d.]+)" text-anchor="start">([^<]*)</text>', drawn(tmp_path)
    )
    boxes = [(float(x), float(y), 6.4 * len(name)) for x, y, name in names]
    assert len(boxes) == 5
    for (x, y, wide), (other_x, other_y, other_wide) in combinations(boxes, 2):
        assert abs(y - other_y) >= 12 or x + wide <= other_x or other_x + other_wide <= x
    assert all(x >= 62 and x + wide <= 62 + 440 for x, _, wide in boxes)


def drawn(root):
    return study_curve.draw(read_study(root))


def made(root, points):
    """A study of one group and a seed a setting, trained and judged."""
    settings = fake_study.told({label: (0,) for label in points}, curve="mi_nats", reference=None)
    write_json(root / "study.json", settings)
    for run, (nats, share) in zip((s["runs"][0] for s in settings["settings"]), points.values(), strict=True):
        fake_study.write_run(root / run["folder"], top1=share, untrained=0.3, mi=nats)
