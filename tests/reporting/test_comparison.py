"""Several runs side by side: each number under its run, curves of all in one chart, and links that lead to pages."""

import json
import shutil

import numpy as np
import pytest

from mi_contrast.core.errors import UserError, run_job
from mi_contrast.report import main
from mi_contrast.reporting import comparison, page
from mi_contrast.reporting.comparison import Comparison
from mi_contrast.reporting.run import read_run
from tests.reporting.fake import make_run, result
from tests.reporting.fake_held_out import make_held_out
from tests.reporting.specs import rows_of
from tests.reporting.test_page import Reader


def make(root, seed=0, **changes):
    make_run(root)
    shutil.rmtree(root / "held_out")
    make_held_out(root, **changes)
    config = json.loads((root / "config.json").read_text())
    config["config"]["seed"] = seed
    (root / "config.json").write_text(json.dumps(config))
    return root


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    folder = tmp_path_factory.mktemp("comparison")
    made = [make(folder / "a"), make(folder / "b", 1, ring=False), make(folder / "c", 2, queries=(30, 20, 10))]
    file = made[1] / "results" / "knn-moving_digits.json"
    file.write_text(json.dumps(result("knn", 0.123)))
    page.write_report(made[0])
    return made


@pytest.fixture(scope="module")
def html(roots):
    return comparison.render(Comparison.of(roots), roots[0].parent)


def test_the_table_has_the_last_numbers_of_each_run(roots):
    rows = Comparison.of(roots).rows
    assert [row["run"] for row in rows] == ["a", "b", "c"]
    for row, root in zip(rows, roots, strict=True):
        assert row["knn_top1"] == read_run(root).curves["knn_top1"].last and row["step"] == 3000


def test_curves_of_all_runs_are_in_one_chart(roots):
    figure = comparison.draw_metric(Comparison.of(roots), "knn_top1")
    rows = rows_of(figure.chart, "line")
    for name, root in zip("abc", roots, strict=True):
        curve = read_run(root).curves["knn_top1"]
        drawn = [(row["step"], row["value"]) for row in rows if row["name"] == name]
        assert drawn == list(zip(curve.steps, curve.values, strict=True))
    assert figure.pale  # one of them has 60 held-out images


def test_the_page_is_offline_links_to_pages_that_exist_and_names_what_differs(roots, html):
    reader = Reader(html)
    links = [value for name, value in reader.attributes if name == "href"]
    assert links == ["a/report.html"]
    assert all(value.startswith("data:") for name, value in reader.attributes if name == "src")
    assert "seed 0 1 2" in reader.words and "n = 60" in reader.words
    assert "knn, moving_digits, digit 80.2 %" in reader.words and "12.3 %" in reader.words
    assert len(html.encode()) < 2_500_000


def test_runs_of_the_same_images_hold_their_pictures_once(roots, html):
    assert html.count(read_run(roots[0]).held_out.pictures[-1]) == 1


def test_runs_of_different_images_show_fewer_of_them(roots, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "ON_MAP", 10)
    maps = comparison.make_maps(Comparison.of([roots[0], make(tmp_path / "other", count=24)]))
    sizes = [len(next(iter(one.chart.to_dict()["datasets"].values()))) for one in maps.maps]
    assert sizes == [10, 10] and maps.legend == ()


def test_names_are_the_shortest_ends_that_differ(tmp_path):
    roots = [tmp_path / "x" / "run", tmp_path / "y" / "run"]
    assert comparison.name_runs(roots) == ["x/run", "y/run"]
    assert comparison.name_runs([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]


def test_runs_of_0_1_0_are_compared_without_maps(tmp_path):
    roots = [make_run(tmp_path / name) for name in "ab"]
    for root in roots:
        shutil.rmtree(root / "held_out")
    words = Reader(comparison.render(Comparison.of(roots), tmp_path)).words
    assert "n unknown" in words and "Maps of held-out images" not in words


def test_the_command_takes_several_runs(roots, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert run_job(main, [str(roots[0]), str(roots[1]), f"--out={out}"]) == 0
    assert capsys.readouterr().out.strip() == str(out) and "2 runs side by side" in out.read_text()
    assert run_job(main, ["--workdir", str(roots[0])]) == 0
    assert run_job(main, [str(roots[0]), f"--out={out}"]) == 2
    assert run_job(main, [str(roots[0]), str(tmp_path)]) == 2
    assert "is not a run directory" in capsys.readouterr().err


def test_one_run_can_not_be_compared(roots):
    with pytest.raises(UserError, match="1 runs to compare; name 2 to 8"):
        Comparison.of([roots[0], roots[0].parent / "." / "a"])


def test_a_metric_that_no_run_logged_is_refused(roots):
    both = Comparison.of(roots)
    with pytest.raises(UserError, match="none of the runs logged 'no'"):
        both.plot("no")
    assert np.isfinite(rows_of(both.plot("mi_nats"), "line")[0]["value"])
