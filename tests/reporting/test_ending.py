"""The last lines of a training say what metrics.jsonl holds."""

import json
import math
import re
import shutil

import pytest

from mi_contrast.readout.accuracy import interval95
from mi_contrast.reporting import story
from mi_contrast.reporting.comparison import Comparison, list_lines
from mi_contrast.reporting.ending import describe_end
from mi_contrast.reporting.page import render
from mi_contrast.reporting.run import read_run
from mi_contrast.reporting.summary import write_summary
from mi_contrast.run import Run

ROWS = (
    {"step": 0, "seconds": 1.0, "mi_nats": -0.5, "mi_ceiling": 6.93, "knn_top1": 0.25},
    {"step": 10, "seconds": 2.0, "objective": 1.0},
    {"step": 10, "seconds": 3.0, "mi_nats": 2.345, "mi_ceiling": 6.93, "knn_top1": 0.809},
)


@pytest.fixture
def run(tmp_path):
    root = tmp_path / "my run"
    root.mkdir()
    (root / "config.json").write_text(json.dumps({"name": "moco", "variant": None, "config": {"steps": 10}}))
    return root


def write(run, rows):
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return [line.replace("\u202f", " ").replace("\u2212", "-") for line in describe_end(run, "evaluate it")]


def test_what_was_learned_where_things_are_and_what_to_type(run):
    knn, information, page, files, judge, use = write(run, ROWS)
    assert knn == "kNN accuracy on held-out images: 25.0 % untrained, 80.9 % trained (n unknown)"
    assert information == (
        "mutual information of held-out views: -0.50 nats untrained, 2.35 nats trained, of at most 6.93 nats"
    )
    assert page == f"look at {run / 'report.html'}" and str(run / "export") in files
    assert judge == "judge it: evaluate it"
    assert use == f"use it: mi-contrast encode '{run}' FOLDER_OF_PICTURES --out=features.npz"


def test_an_accuracy_has_its_number_of_images_and_its_interval(run):
    (run / "held_out").mkdir()
    for n, end in ((400, "+55.9 points over untrained"), (40, "n = 40: too few to tell a gain")):
        lines = [json.dumps({"step": step, "queries": [n // 2, n - n // 2], "hits": {}}) for step in (0, 10)]
        (run / "held_out" / "measurements.jsonl").write_text("\n".join(lines))
        knn = write(run, ROWS)[0]
        low, high = interval95(0.809, n)
        assert knn.endswith(f"trained (n = {n}, 95 % interval {100 * low:.1f} % to {100 * high:.1f} %): {end}")


def test_without_labels_or_a_first_measurement_less_is_said(run):
    without = [{name: value for name, value in row.items() if name != "knn_top1"} for row in ROWS]
    lines = write(run, without[1:])
    assert lines[0] == "mutual information of held-out views: 2.35 nats trained, of at most 6.93 nats"
    assert lines[1].startswith("look at") and len(write(run, [])) == 4


def without_tags(page):
    return re.sub("<[^>]*>", "", page)


@pytest.mark.parametrize("pairs, is_few", [(2, True), (15, True), (16, False)])
def test_too_few_images_have_no_headline_anywhere(run, pairs, is_few):
    rows = [row | {"mi_ceiling": math.log(pairs)} if "mi_nats" in row else row for row in ROWS]
    (run / "held_out").mkdir()
    hits = {"knn_top1": [1, 0]}
    lines = [json.dumps({"step": step, "queries": [pairs - 1, 1], "hits": hits}) for step in (0, 10)]
    (run / "held_out" / "measurements.jsonl").write_text("\n".join(lines))
    said = write(run, rows)
    page, content = render(run), read_run(run)
    shown = " ".join([*said, page, repr(Run(run)), write_summary(content, "")])
    cards = [f"<h3>{title}</h3>\n    <div" for title in ("kNN accuracy", "Mutual information")]
    figures = [word for word in ("nats untrained", "% trained", *cards) if word in shown]
    assert (len(figures) == 0) == is_few, figures
    text = f"{pairs} images are held out to measure training, too few to tell what was learned. At least 16 are needed"
    assert all((text in part) == is_few for part in (said[0], without_tags(page), write_summary(content, "")))
    assert (f"{pairs} held-out images, too few to tell" in repr(Run(run))) == is_few
    assert ("kNN 80.9" in repr(Run(run))) != is_few
    titles = {card.title for card in story.cards(content)}
    assert titles == {"Training objective"} | (set() if is_few else {"Mutual information", "kNN accuracy"})
    other = run.parent / "other"
    shutil.copytree(run, other)
    line = next(list_lines(Comparison.of([run, other]), None))
    assert [text.startswith("too few held-out images") for text, _ in line.cells[1:3]] == [is_few] * 2


def test_nats_below_0_are_explained(run):
    rows = [row | {"mi_nats": -0.25} if "mi_nats" in row else row for row in ROWS]
    assert "-0.25 nats trained, of at most 6.93 nats; below 0 nothing was shown" in "\n".join(write(run, rows))
    assert "below 0" not in "\n".join(write(run, ROWS))
