import json
import re
from html.parser import HTMLParser

import pytest

from mi_contrast.core.errors import UserError, run_job
from mi_contrast.reporting import drawing, page, story, templates
from mi_contrast.reporting.run import read_run
from tests.reporting.fake import CONFIG, make_run, rows
from tests.reporting.specs import page_specs

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Reader(HTMLParser):
    """Text and attributes of a page; fails where tags don't close in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text, self.attributes = [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "title", "script"):
            self.text.append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).replace("\N{NARROW NO-BREAK SPACE}", " ").split())


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return page.render(make_run(tmp_path_factory.mktemp("page") / "run"))


def test_the_page_is_whole_and_stands_alone(html):
    reader = Reader(html)
    assert "@import" not in html and html.count("vegaEmbed=") == 1, "Vega's script is inside, once"
    for name, value in reader.attributes:
        if name == "src":
            assert value.startswith("data:")
        if name == "href":  # a file of the run
            assert value.startswith("data:") or re.fullmatch(r"[\w.]+/?", value)
    without_script = html.replace(drawing.javascript(), "")
    assert len(without_script) < len(html) and "<script>" in without_script
    assert not re.search(r"url\((?!data:)", without_script)
    assert "http" not in without_script
    assert "prefers-color-scheme:dark" in html


def test_the_page_shows_every_piece_of_the_run(html):
    words = Reader(html).words
    for piece in (
        "finished: 3,000 steps",
        "0.35 → 4.13 nats",
        "of at most log 1,024 = 6.93 nats",
        "ceiling log 1,024 = 6.93 nats",
        "kNN at step 0: 41.0 %",
        "Is the objective a bound?",
        "augmented pairs",
        "80.2 %",
        "79.1 % to 81.2 %",
        "+36.5 points",
        "moving_digits · position",
        "bccd_cells keypoint R-CNN, 0 of 5 layers trained, 300 iterations boxes end 30.0 % 82.6 % 20.0 % 10.0 %",
        "bccd_cells · untrained keypoint R-CNN, 0 of 5 layers trained, 300 iterations keypoints end 30.0 % 67.8 %",
        "detection-bccd cells",
        "linear(a=0, b=0.9, start=0, end=0.5)",
        "Started again",
        "8 x cpu cpu",
        "65a2bb93f0c1",
        "30 entries",
    ):
        assert piece in words, piece


def test_the_charts_of_the_page_are_those_of_a_notebook(tmp_path, html):
    run = read_run(make_run(tmp_path / "run"))
    charts = [figure.chart for _, figures, _ in story.sections(run) for figure in figures]
    shown = page_specs(html)
    assert len(shown) == len(charts) + 1, "and the results"
    for spec, chart in zip(shown, charts, strict=False):
        drawn = json.loads(chart.to_json())
        assert spec["width"] == "container" and "config" not in spec
        assert (spec["layer"], spec["datasets"]) == (drawn["layer"], drawn["datasets"])


def test_results_are_drawn_where_their_shares_are(tmp_path):
    rows = list(page.accuracy_rows(read_run(make_run(tmp_path / "run"))))
    assert [(row["name"], row["kind"], row["top1"]) for row in rows] == [
        ("knn, moving_digits, digit", "trained", 0.802),
        ("knn, moving_digits, digit", "untrained", 0.437),
        ("linear, moving_digits, digit", "trained", 0.871),
        ("linear, moving_digits, position", "trained", 0.342),
    ]
    assert (rows[0]["low"], rows[0]["high"], rows[0]["chance"]) == (0.802 - 0.011, 0.802 + 0.01, 0.1)


def test_the_gain_over_the_untrained_twin_is_of_the_same_judgement_alone(tmp_path):
    root = make_run(tmp_path / "run")
    path = root / "results" / "knn-moving_digits-untrained.json"
    path.write_text(path.read_text().replace('"k": 200', '"k": 20'))
    assert "+36.5" not in page.render(root)


@pytest.mark.parametrize("metrics", [None, [], rows()[:1], rows()[1:2], [{"step": 3, "objective": float("nan")}]])
def test_a_run_just_begun_has_a_page(tmp_path, metrics):
    words = Reader(page.render(make_run(tmp_path / "run", whole=False, metrics=metrics))).words
    assert "ring_moco : digits" in words and "moving_digits" in words
    assert ("nothing logged yet" in words) == (not metrics)


def test_names_are_text_never_markup(tmp_path):
    root = make_run(tmp_path / "run", whole=False, metrics=[{"step": 1, "<b>x": 1.0}, {"step": 2, "<b>x": 2.0}])
    config = root / "config.json"
    config.write_text(config.read_text().replace("moving_digits", "<script>alert(1)</script>"))
    html = page.render(root)
    assert "<script>alert" not in html and "<b>x" not in html and "&lt;b&gt;x" in html


def test_broken_pieces_are_named_on_the_page(tmp_path):
    root = make_run(tmp_path / "run")
    (root / "run.json").write_text("{")
    (root / "pictures" / "odd.png").write_bytes(b"no picture")
    words = Reader(page.render(root)).words
    assert "could not be read" in words and "run.json" in words and "odd.png" in words


def test_small_pictures_are_enlarged_by_whole_factors(html):
    assert re.findall(r'<img [^>]*width="(\d+)"', html) == ["1024", "1024", "1024"]
    assert html.count('class="enlarged"') == 3


def test_write_puts_the_page_into_the_run(tmp_path):
    root = make_run(tmp_path / "run", whole=False)
    assert page.write_report(root) == root / "report.html"
    assert (root / "report.html").read_text() == page.render(root)
    with pytest.raises(UserError, match="is not a run directory"):
        page.write_report(tmp_path)


def test_a_place_that_can_not_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    root = make_run(tmp_path / "run", whole=False)

    def refuse(path, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(page, "write_text", refuse)
    assert run_job(lambda _: page.write_report(root), []) == 2
    said = capsys.readouterr().err
    assert "Permission denied" in said and said.count("\n") == 1


def test_config_lines_keep_nesting_and_say_schedules_in_one():
    lines = [(f.depth, f.name, f.value) for f in page.fields(CONFIG["method"])]
    assert lines[:4] == [(0, "target", "ema"), (0, "pools", None), (1, "queue", None), (2, "size", "4096")]
    assert (3, "lower", "linear(a=0, b=0.9, start=0, end=0.5)") in lines
    assert templates.say({"a": None, "b": (1, 2.5)}) == "a none, b (1, 2.5)"
    assert templates.say(True) == "yes" and templates.say({}) == "none"
