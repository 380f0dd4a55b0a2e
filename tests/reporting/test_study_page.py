import csv
import io
import json
from xml.etree import ElementTree

import pytest

from mi_contrast.core.layout import write_json
from mi_contrast.reporting import drawing, study_charts
from mi_contrast.reporting.charts import lay_out
from mi_contrast.reporting.study_page import write_study
from mi_contrast.reporting.study_runs import Spread, read_study
from mi_contrast.reporting.study_table import cell
from tests.reporting import fake_study
from tests.reporting.specs import marks, page_specs, rows_of, svg_words


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


def test_the_charts_show_every_seed_and_a_mean_only_of_several(root):
    figures = list(study_charts.draw_numbers(read_study(root)))
    assert [figure.title for figure in figures] == ["knn", "MI", "bound holds"]
    for figure, column in zip(figures, read_study(root).figure, strict=True):
        values = {setting.label: setting.values.get(column.name) for setting in read_study(root).settings}
        assert {label for label, spread in values.items() if spread} == {"all", "ring a", "ring b"}
        seeds, means = rows_of(figure.chart, "circle", "first"), rows_of(figure.chart, "tick", "first")
        assert [(row["setting"], row["seed"], row["value"]) for row in seeds] == [
            (label, seed, value) for label, spread in values.items() if spread for seed, value in spread.values.items()
        ]
        assert [(row["setting"], row["value"], row["low"], row["high"]) for row in means] == [
            (label, s.mean, s.low, s.high) for label, s in values.items() if s and s.n > 1
        ]
        assert len(rows_of(figure.chart, "point", "second")) == (3 if column.task else 0)
    words = set(svg_words((root / "figure.svg").read_text()))
    expected = {
        "all · n 3",
        "ring c · 0 of 1",
        "ring b · 1 failed",
        "nats, at most 6.93",
        "rings",
        "negatives : digits",
    }
    assert expected <= words


def test_the_page_and_the_file_draw_the_same_charts(root):
    drawn = [json.loads(figure.chart.to_json()) for figure in study_charts.draw_numbers(read_study(root))]
    shown = page_specs((root / "study.html").read_text())
    assert [spec["layer"] for spec in shown] == [spec["layer"] for spec in drawn]
    assert [spec["datasets"] for spec in shown] == [spec["datasets"] for spec in drawn]


def test_the_page_is_whole_and_safe(root):
    page = (root / "study.html").read_text()
    assert page.count("vegaEmbed=") == 1 and "http" not in page.replace(drawing.javascript(), "")
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


def written(root):
    """(left, top, right, bottom, text) of every word of the study's figure, as Vega draws it."""
    panels = [(figure.title, figure.note, figure.chart) for figure in study_charts.draw_numbers(read_study(root))]
    boxes = []
    for x, y, item in marks(lay_out(panels, title="title"), "text"):
        text = item.get("text", "")
        if isinstance(text, str) and text and item.get("opacity", 1) and item.get("stroke") is None:
            size = item.get("fontSize", 11)
            wide = 0.6 * size * len(text)
            left = x - {"left": 0, "center": wide / 2, "right": wide}[item.get("align", "left")]
            boxes.append((left, y - size / 2, left + wide, y + size / 2, text))
    return boxes


def touching(boxes):
    return [
        (a[4], b[4])
        for i, a in enumerate(boxes)
        for b in boxes[:i]
        if min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
    ]


def test_no_words_of_a_figure_touch(tmp_path):
    fake_study.write(tmp_path)
    told = json.loads((tmp_path / "study.json").read_text())
    write_json(tmp_path / "study.json", told | {"figure": ["knn", "mi_nats", "knn", "mi_nats", "bound_share"]})
    for seed, share in enumerate((0.9923, 0.9951, 1.0)):  # wide ones, close together
        fake_study.write_run(tmp_path / f"runs/all-seed{seed}", top1=0.5, untrained=0.3, bound=share)
        fake_study.write_run(tmp_path / f"runs/ring-a-seed{seed}", top1=0.5, untrained=0.3, bound=1.0)
    fake_study.write_run(tmp_path / "runs/ring-b-seed0", top1=0.4, untrained=0.3, bound=1.0)
    boxes = written(tmp_path)
    assert any("100" in box[4] for box in boxes) and touching(boxes) == []


def test_no_words_touch_where_labels_are_long(tmp_path):
    labels = ("learning, semi_supervised", "learning, supervised")
    told = fake_study.told({label: (0, 1) for label in labels}, name="learned_views", variant="cifar10_small")
    write_json(tmp_path / "study.json", told | {"figure": ["knn", "knn", "mi_nats"], "reference": None})
    for setting in told["settings"]:
        for run, share in zip(setting["runs"], (0.3813, 0.4956), strict=True):
            fake_study.write_run(tmp_path / run["folder"], top1=share, untrained=0.389, mi=2.0)
    assert touching(written(tmp_path)) == []


@pytest.mark.parametrize("share", [0.0, 1.0, 0.9985])
def test_a_panel_of_shares_has_no_mark_below_none_or_above_all(tmp_path, share):
    fake_study.write(tmp_path)
    told = json.loads((tmp_path / "study.json").read_text())
    write_json(tmp_path / "study.json", told | {"figure": ["bound_share"]})
    for seed in range(3):
        fake_study.write_run(tmp_path / f"runs/all-seed{seed}", top1=0.5, untrained=0.3, bound=share)
        fake_study.write_run(tmp_path / f"runs/ring-a-seed{seed}", top1=0.5, untrained=0.3, bound=share)
    fake_study.write_run(tmp_path / "runs/ring-b-seed0", top1=0.4, untrained=0.3, bound=share)
    shares = [box[4] for box in written(tmp_path) if box[4].endswith("%")]
    assert shares and all(0 <= float(text.rstrip("%\u202f").replace("\u2212", "-")) <= 100 for text in shares)


def test_headings_of_four_panels_do_not_touch(tmp_path):
    fake_study.write(tmp_path)
    told = json.loads((tmp_path / "study.json").read_text())
    labelled = [fake_study.KNN | {"name": f"linear-{factor}"} for factor in ("digit", "position", "background")]
    columns = [task["name"] for task in labelled]
    named = {"name": "what_two_views_share", "tasks": labelled, "figure": [*columns[::-1], "mi_nats"]}
    write_json(tmp_path / "study.json", told | named)
    boxes = written(tmp_path)
    assert {*columns, "MI"} <= {box[4] for box in boxes} and touching(boxes) == []
