import csv
import io
import json
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from mi_contrast.core.layout import write_json
from mi_contrast.reporting.study_page import write_study
from mi_contrast.reporting.study_runs import Spread
from mi_contrast.reporting.study_table import cell
from tests.reporting import fake_study

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    fake_study.write(folder)
    write_study(folder)
    return folder


def test_a_cell_tells_mean_ends_and_n():
    three = Spread({0: 0.5, 1: 0.52, 2: 0.51})
    assert cell(three, "%", 3).replace("\u202f", " ") == "51.0 % (50.0 to 52.0)"
    assert cell(three, "%", 4).endswith(", n 3")
    assert cell(Spread({0: 2.5}), "nats").replace("\u202f", " ") == "2.50 nats"
    assert cell(None, "%") == ""


def test_json_and_csv_agree_with_the_runs(root):
    told = json.loads((root / "table.json").read_text())
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO((root / "table.csv").read_text()))}
    settings = {row["label"]: row for row in told["settings"]}
    assert settings["all"]["values"]["knn"]["seeds"] == {"0": 0.5, "1": 0.52, "2": 0.51}
    assert settings["ring b"]["runs"][1]["reason"].startswith("numbers went bad")
    assert settings["ring b"]["values"]["knn"]["low"] is None  # one seed: no spread
    assert float(rows["all"]["knn"]) == pytest.approx(0.51) and rows["all"]["knn_n"] == "3"
    assert float(rows["all"]["knn_untrained"]) == pytest.approx(0.31)
    assert (rows["ring b"]["done"], rows["ring b"]["failed"], rows["ring b"]["asked"]) == ("1", "1", "3")
    assert rows["ring b"]["knn_low"] == "" and rows["ring c"]["knn"] == ""


def test_markdown_has_a_row_a_setting_and_every_failure(root):
    text = (root / "table.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 4 and len({line.count("|") for line in lines}) == 1
    assert "| all | 3 | 51.0 % (50.0 to 52.0) | 31.0 % (30.0 to 32.0) | 2.25 nats (2.00 to 2.50) of 6.93 nats |" in text
    assert "| ring b | 1 of 3, 1 failed | 40.0 % |" in text
    assert "ring b, seed 1 failed: numbers went bad" in text


def test_the_figure_shows_every_seed_and_a_mean_only_of_several(root):
    tree = ElementTree.parse(root / "figure.svg")
    kinds = [(item.tag.removeprefix(SVG), item.get("class")) for item in tree.iter()]
    drawn = 3 * (3 + 3 + 1)  # seeds in each of the three panels
    assert kinds.count(("circle", "seed")) == drawn + 1  # and the legend's
    assert kinds.count(("path", "mean")) == kinds.count(("path", "span")) == 3 * 2 + 1
    assert kinds.count(("circle", "twin")) == 3 + 1
    assert kinds.count(("path", "reference")) == 3 + 1
    words = [item.text for item in tree.iter(f"{SVG}text")]
    assert {"all", "ring c", "1 failed", "0 of 1", "n 3", "nats, at most 6.93", "rings"} <= set(words)


def test_places_are_those_of_the_numbers(root):
    tree = ElementTree.parse(root / "figure.svg")
    places = {}
    for group in tree.iter(f"{SVG}g"):
        title = group.find(f"{SVG}title").text
        if title.startswith("all, knn"):
            told = [float(v) for v in re.findall(r"seed \d: ([\d.]+)", title)]
            places = dict(zip(told, [float(c.get("cx")) for c in group.iter(f"{SVG}circle")], strict=True))
    assert set(places) == {50.0, 51.0, 52.0}
    assert places[51.0] - places[50.0] == pytest.approx(places[52.0] - places[51.0], abs=0.21)  # x is linear


def test_the_page_is_whole_and_safe(root):
    page = (root / "study.html").read_text()
    assert page.count("<svg") == 1 and "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "in a row &lt;b&gt;" in page and "<b>\n" not in page
    assert "7 of 10 runs done" in page and "Which negatives?" in page
    assert "untrained 31.0" in page  # accuracy beside the twin
    assert "of 6.93" in page  # information beside its ceiling
    assert "by luck alone: 1 in 4" in page and "--config=configs/ring.py" in page


def test_a_study_of_nothing_yet_has_its_page(tmp_path):
    write_json(tmp_path / "study.json", fake_study.told({"all": (0,), "a|b": (0,)}))
    study = write_study(tmp_path)
    assert [state.word for *_, state in study.runs] == ["waiting", "waiting"]
    assert "a/b" in (tmp_path / "table.md").read_text()
    ElementTree.parse(tmp_path / "figure.svg")


def test_numbers_of_an_axis_do_not_touch(tmp_path):
    fake_study.write(tmp_path)
    told = json.loads((tmp_path / "study.json").read_text())
    write_json(tmp_path / "study.json", told | {"figure": ["knn", "mi_nats", "knn", "mi_nats", "bound_share"]})
    for seed, share in enumerate((0.9923, 0.9951, 1.0)):  # wide ones, close together
        fake_study.write_run(tmp_path / f"runs/all-seed{seed}", top1=0.5, untrained=0.3, bound=share)
        fake_study.write_run(tmp_path / f"runs/ring-a-seed{seed}", top1=0.5, untrained=0.3, bound=1.0)
    fake_study.write_run(tmp_path / "runs/ring-b-seed0", top1=0.4, untrained=0.3, bound=1.0)
    write_study(tmp_path)
    found = ElementTree.parse(tmp_path / "figure.svg").getroot().iter(SVG + "text")
    marks = [t for t in found if t.get("class") == "tick" and t.get("text-anchor") == "middle"]
    ends = sorted((float(t.get("x")), 6.7 * len(t.text)) for t in marks)
    assert any("100" in t.text for t in marks)
    assert all(a + wide / 2 < b - other / 2 for (a, wide), (b, other) in pairwise(ends))


def test_a_number_that_moves_off_a_panel_s_end_touches_none(tmp_path):
    labels = ("learning, semi_supervised", "learning, supervised")
    told = fake_study.told({label: (0, 1) for label in labels}, name="learned_views", variant="cifar10_small")
    write_json(tmp_path / "study.json", told | {"figure": ["knn", "knn", "mi_nats"], "reference": None})
    for setting in told["settings"]:
        for run, share in zip(setting["runs"], (0.3813, 0.4956), strict=True):
            fake_study.write_run(tmp_path / run["folder"], top1=share, untrained=0.389, mi=2.0)
    write_study(tmp_path)
    found = ElementTree.parse(tmp_path / "figure.svg").getroot().iter(SVG + "text")
    marks = [t for t in found if t.get("class") == "tick" and t.get("text-anchor") == "middle"]
    ends = sorted((float(t.get("x")), 6.7 * len(t.text)) for t in marks)
    assert all(a + wide / 2 < b - other / 2 for (a, wide), (b, other) in pairwise(ends))


@pytest.mark.parametrize("share", [0.0, 1.0, 0.9985])
def test_a_panel_of_shares_has_no_mark_below_none_or_above_all(tmp_path, share):
    fake_study.write(tmp_path)
    told = json.loads((tmp_path / "study.json").read_text())
    write_json(tmp_path / "study.json", told | {"figure": ["bound_share"]})
    for seed in range(3):
        fake_study.write_run(tmp_path / f"runs/all-seed{seed}", top1=0.5, untrained=0.3, bound=share)
        fake_study.write_run(tmp_path / f"runs/ring-a-seed{seed}", top1=0.5, untrained=0.3, bound=share)
    fake_study.write_run(tmp_path / "runs/ring-b-seed0", top1=0.4, untrained=0.3, bound=share)
    write_study(tmp_path)
    found = ElementTree.parse(tmp_path / "figure.svg").getroot().iter(SVG + "text")
    marks = [t.text for t in found if t.get("class") == "tick" and t.get("text-anchor") == "middle"]
    assert marks and all(0 <= float(m.rstrip("%\u2009\u202f\u00a0 ").replace("\u2212", "-")) <= 100 for m in marks)


def test_headings_of_four_panels_do_not_touch(tmp_path):
    fake_study.write(tmp_path)
    told = json.loads((tmp_path / "study.json").read_text())
    labelled = [fake_study.KNN | {"name": f"linear-{factor}"} for factor in ("digit", "position", "background")]
    columns = [task["name"] for task in labelled]
    named = {"name": "what_two_views_share", "tasks": labelled, "figure": [*columns[::-1], "mi_nats"]}
    write_json(tmp_path / "study.json", told | named)
    write_study(tmp_path)
    found = ElementTree.parse(tmp_path / "figure.svg").getroot().iter(SVG + "text")
    heads = [(float(t.get("x")), 9.0 * len(t.text)) for t in found if t.get("class") == "h1"]
    assert len(heads) == 5 and all(a + wide < b for (a, wide), (b, _) in pairwise(heads))
