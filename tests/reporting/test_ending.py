"""The last lines of a training say what metrics.jsonl holds."""

import json

import pytest

from mi_contrast.readout.accuracy import interval95
from mi_contrast.reporting.ending import describe_end

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
