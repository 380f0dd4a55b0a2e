"""Curves of a study: points lie where their numbers say, in order, with their names."""

import re

import numpy as np
import pytest

from mi_contrast.core.layout import write_json
from mi_contrast.reporting import study_curve, study_page
from mi_contrast.reporting.study_runs import read_study
from tests.reporting import fake_study

POINTS = {"ring a": (2.5, 0.52), "ring b": (1.0, 0.4), "ring c": (3.5, 0.46)}


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
