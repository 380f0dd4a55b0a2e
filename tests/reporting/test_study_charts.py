"""Charts of a study: their rows are the numbers of the runs."""

import json

import pytest

from mi_contrast.core.layout import write_json
from mi_contrast.reporting import study_charts, study_page
from mi_contrast.reporting.study_runs import read_study
from tests.reporting import fake_study
from tests.reporting.specs import layers, page_specs, rows_of, svg_words

POINTS = {"ring 1": (2.5, 0.52), "ring 2": (1.0, 0.4), "ring 5": (3.5, 0.46)}


@pytest.fixture
def root(tmp_path):
    settings = {label: (0,) for label in POINTS} | {"ring d <>": (0,), "all": (0,)}
    write_json(tmp_path / "study.json", fake_study.told(settings, curve="mi_nats"))
    for label, (nats, share) in POINTS.items():
        fake_study.write_run(tmp_path / f"runs/{label.replace(' ', '-')}-seed0", top1=share, untrained=0.3, mi=nats)
    return tmp_path


def test_points_are_the_numbers_of_the_runs(root):
    rings, rest = study_charts.draw_curves(read_study(root))
    assert rings.title == "rings: knn" and rest.note == "nothing judged yet"
    points = rows_of(rings.chart, "point")
    assert {row["setting"]: (row["x"], row["y"]) for row in points} == POINTS
    assert [row["setting"] for row in points] == list(POINTS)
    assert rows_of(rings.chart, "rule", "ceiling") == [{"y": 0.3}], "the untrained networks"
    assert "at most 6.93" in str(rings.chart.to_dict())


def test_a_study_has_curves_where_it_asks_for_them(root):
    study_page.write_study(root)
    assert {"rings: knn", "nothing judged yet"} <= set(svg_words((root / "curves.svg").read_text()))
    shown = page_specs((root / "study.html").read_text())
    drawn = [json.loads(figure.chart.to_json()) for figure in study_charts.draw_curves(read_study(root))]
    assert [spec["layer"] for spec in shown[-2:]] == [spec["layer"] for spec in drawn]
    assert [spec["datasets"] for spec in shown[-2:]] == [spec["datasets"] for spec in drawn]
    write_json(root / "study.json", fake_study.told({"all": (0,)}))
    assert list(study_charts.draw_curves(read_study(root))) == []


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
    settings = fake_study.told({label: (0,) for label in labels}, curve="mi_nats", reference=None)
    write_json(tmp_path / "study.json", settings)
    for setting, (nats, share) in zip(settings["settings"], POINTS.values(), strict=True):
        fake_study.write_run(tmp_path / setting["runs"][0]["folder"], top1=share, untrained=0.3, mi=nats)
    (figure,) = study_charts.draw_curves(read_study(tmp_path))
    lines = [rows for mark, _, _, rows in layers(figure.chart.to_dict()) if mark == "line"]
    assert [[row["setting"] for row in rows] for rows in lines] == [list(labels)] * joined
    assert json.dumps(figure.chart.to_dict(), allow_nan=False)
