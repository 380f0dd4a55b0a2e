import json

import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.reporting.run import read_run, seconds_of
from tests.reporting.fake import CONFIG, make_run


def test_a_whole_run_is_read(tmp_path):
    run = read_run(make_run(tmp_path / "run"))
    assert (run.name, run.variant, run.total, run.step) == ("ring_moco", "digits", 3000, 3000)
    assert run.config == CONFIG
    assert len(run.starts) == 2 and len(run.results) == 4 and len(run.pictures) == 2
    assert len(run.result_pictures) == 1 and len(run.detections) == 2
    assert run.manifest["names"] == "torchvision" and run.problems == ()
    assert run.curves["mi_nats"].steps.tolist() == list(range(0, 3001, 500))
    assert run.curves.get("absent") is None


def test_a_run_just_started_is_its_config_alone(tmp_path):
    run = read_run(make_run(tmp_path / "run", whole=False))
    assert run.step is None and run.curves == {} and run.results == () and run.manifest is None and run.seconds == 0


def test_what_is_no_run_directory_is_refused(tmp_path):
    with pytest.raises(UserError, match="is not a run directory"):
        read_run(tmp_path)


def test_broken_pieces_are_named_and_the_rest_is_read(tmp_path):
    root = make_run(tmp_path / "run")
    with open(root / "metrics.jsonl", "a") as file:
        file.write('{"step": 3020, "obj')
    (root / "results" / "linear-moving_digits.json").write_text("{")
    run = read_run(root)
    assert run.step == 3000 and len(run.results) == 3
    assert (
        len(run.problems) == 2
        and "1 line of metrics.jsonl" in run.problems
        and "linear-moving_digits.json" in run.problems[1]
    )


def test_curves_rise_in_steps_and_the_later_of_two_rows_counts(tmp_path):
    lines = [{"step": 2, "a": 1.0}, {"step": 1, "a": 5, "note": "words"}, {"step": 2, "a": float("nan"), "b": True}]
    run = read_run(make_run(tmp_path / "run", whole=False, metrics=lines))
    assert list(run.curves) == ["a"]
    np.testing.assert_array_equal(run.curves["a"].steps, [1, 2])
    np.testing.assert_array_equal(run.curves["a"].values, [5.0, np.nan])


def test_seconds_add_over_starts_whose_clocks_begin_again():
    assert seconds_of([{"seconds": s} for s in (1.0, 10.0, 2.0, 5.0)]) == 15.0
    assert seconds_of([]) == 0.0


def test_a_broken_config_is_the_users_to_mend(tmp_path):
    root = make_run(tmp_path / "run", whole=False)
    (root / "config.json").write_text(json.dumps({"name": "x"})[:-2])
    with pytest.raises(UserError, match="not valid JSON"):
        read_run(root)
