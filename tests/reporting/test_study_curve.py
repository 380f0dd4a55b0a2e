"""Curves of a study: points lie where their numbers say, in order, with their names."""

import re

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
    spaces = ("yiq", "yuv", "ycbcr", "ypbpr", "ydbdr", "lab")
    close = {space: (1.5 + 0.02 * (i % 3), 0.48 + 0.002 * (i % 4)) for i, space in enumerate(spaces)}
    made(tmp_path, {**close, "far": (4.0, 0.3), "farther, at the end of the panel": (4.1, 0.31)})
    svg = drawn(tmp_path)
    words = re.findall(r'<text class="tick" x="([\d.]+)" y="([\d.]+)" text-anchor="start">([^<]*)</text>', svg)
    names = [(float(x), float(y) - 12, float(x) + 6.4 * len(word), float(y)) for x, y, word in words]
    seen = [(float(x), float(y)) for x, y in re.findall(r'class="seed" cx="([\d.]+)" cy="([\d.]+)"', svg)]
    end, foot = (float(v) for v in re.search(r'x="([\d.]+)" y="([\d.]+)" text-anchor="end">untrained', svg).groups())
    others = [(x - 4, y - 4, x + 4, y + 4) for x, y in seen] + [(end - 6.4 * len("untrained"), foot - 12, end, foot)]
    assert len(names) == 8 and len(others) == 9
    for at, name in enumerate(names):
        assert name[0] >= 62 and name[2] <= 62 + 440.1
        for other in names[:at] + others:
            over = [min(name[i + 2], other[i + 2]) - max(name[i], other[i]) for i in (0, 1)]
            assert min(over) < 0.11, (name, other)  # places are written to a tenth


def drawn(root):
    return study_curve.draw(read_study(root))


def made(root, points):
    """A study of one group and a seed a setting, trained and judged."""
    settings = fake_study.told({label: (0,) for label in points}, curve="mi_nats", reference=None)
    write_json(root / "study.json", settings)
    for run, (nats, share) in zip((s["runs"][0] for s in settings["settings"]), points.values(), strict=True):
        fake_study.write_run(root / run["folder"], top1=share, untrained=0.3, mi=nats)
