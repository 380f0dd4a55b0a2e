import json
import math
import re
import xml.etree.ElementTree as ElementTree

import jax
import numpy as np
import pytest

from mi_contrast import bench
from mi_contrast import estimators as mi
from mi_contrast.benchmarks import mi_tasks, mi_tasks_figure
from mi_contrast.core.errors import UserError
from mi_contrast.estimators.result import Estimate


def test_families_have_the_truth_they_are_drawn_at():
    for nats in mi_tasks.LADDER:
        for task in mi_tasks.families(nats).values():
            np.testing.assert_allclose(task.nats, nats, atol=1e-9)


def point(method, family, truth, nats, ceiling=None, seconds=1.0):
    return {
        "method": method, "family": family, "truth": truth, "nats": nats, "ceiling": ceiling, "seconds": seconds
    }  # fmt: skip


POINTS = [
    point("a", "normal", 0.0, 0.5, seconds=9.0),
    point("a", "normal", 0.0, 0.1, 4.2),
    point("a", "normal", 4.0, 3.0),
    point("a", "spiral", 4.0, -9.0),
    point("info_nce", "normal", 0.0, 0.0, math.log(50)),
    point("info_nce", "normal", 4.0, None, math.log(50)),
]


def found(points):
    return {"what": "2 draws & more", "samples": 10, "points": points, "table": mi_tasks.table(points)}


def test_the_table_is_of_absolute_errors_and_counts_no_number_as_infinite():
    rows = mi_tasks.table(POINTS)
    np.testing.assert_allclose(list(rows["a"].values()), [(0.5 + 0.1 + 1 + 13) / 4, 13, 1, 3])
    assert rows["info_nce"]["mean_absolute_error"] == math.inf
    assert "inf" in mi_tasks.words({"table": rows})


def test_the_figure_has_a_panel_a_method_and_its_lines_where_the_estimates_are():
    svg = ElementTree.fromstring(mi_tasks_figure.draw(found(POINTS)))
    named = lambda kind: [e for e in svg.iter() if kind in (e.get("class") or "").split()]  # noqa: E731
    assert [e.text for e in named("h2")] == ["a", "InfoNCE"]
    assert "2 draws & more" in [e.text for e in named("facts")]
    assert [e.text for e in named("ceiling") if e.text] == ["4.2", "log 50"]
    (beyond,) = named("beyond")  # -9 lies below the panel
    assert beyond.find("{*}title").text == "-9.0"
    truth, line = named("truth")[0].get("d"), named("line")[0].get("d")
    (x0, y0), (x1, y1) = (map(float, pair.split()) for pair in truth[1:].split("L"))
    (u0, v0), (u1, v1) = (map(float, pair.split()) for pair in line[1:].split("L"))
    assert (x0, x1) == (u0, u1)  # truths 0 and 4
    np.testing.assert_allclose([v0, v1], [y0 + (y1 - y0) * nats / 4 for nats in (0.3, 3.0)], atol=0.11)
    corners = re.findall(r"([\d.]+) ([\d.]+)", named("area")[0].get("d"))
    least, greatest = float(corners[0][1]), float(corners[3][1])  # at truth 0: there at the least, back at the greatest
    np.testing.assert_allclose([least, greatest], [y0 + (y1 - y0) * nats / 4 for nats in (0.1, 0.5)], atol=0.11)


def exact(x, y, key):
    """An oracle for samples of nothing but their own correlation."""
    rho = np.corrcoef(x[:, 0], y[:, 0])[0, 1]
    return Estimate.from_error(np.float32(-0.5 * np.log1p(-(rho**2))), np.float32(np.nan), np.float32(np.inf))


@pytest.fixture
def file(tmp_path):
    tasks = {"00": mi.tasks.gaussian(1, 1, 0.6), "01": mi.tasks.gaussian(1, 1, 0.9)}
    drawn = {p: task.sample(jax.random.key(0), 4000) for p, task in tasks.items()}
    np.savez(tmp_path / "s.npz", meta="names", **{f"{'xy'[i]}_{p}": xy[i] for p, xy in drawn.items() for i in (0, 1)})
    (tmp_path / "t.json").write_text(json.dumps({p: {"mi_nats": task.nats} for p, task in tasks.items()}))
    return tmp_path


def test_a_file_is_scored_against_its_truth_which_is_opened_last(file, monkeypatch):
    calls = []

    def counted(x, y, key):
        calls.append((x.shape, y.shape))
        return exact(x, y, key)

    def opened(path):
        assert calls == [((4000, 1), (4000, 1))] * 2 * len(mi_tasks.ON_A_FILE)
        return json.loads(path.read_text())

    monkeypatch.setattr(mi_tasks, "methods", lambda: dict.fromkeys(mi_tasks.ON_A_FILE, counted))
    monkeypatch.setattr(mi_tasks, "read_json", opened)
    figures = mi_tasks.run(1, data=str(file / "s.npz"), truth=str(file / "t.json"))
    assert list(figures["table"]) == list(mi_tasks.ON_A_FILE)
    assert all(row["worst_absolute_error"] < 0.06 for row in figures["table"].values())
    assert figures["points"][0]["ceiling"] is None and mi_tasks.picture(figures) == ""
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--data={}/s.npz"], "belong together"),
        (["--truth={}/t.json"], "belong together"),
        (["--data={}/none.npz", "--truth={}/t.json"], "none.npz"),
        (["--data={}/t.json", "--truth={}/t.json"], "give an .npz"),
        (["--data={}/s.npz", "--truth={}/few.json"], "no mi_nats of '01'"),
        (["--case=loop", "--data={}/s.npz"], "belongs to --case=mi_tasks"),
        (["--repeats=0"], "whole number above 0"),
    ],
)
def test_a_mistake_is_said_in_one_line(arguments, said, file, monkeypatch):
    monkeypatch.setattr(mi_tasks, "methods", lambda: dict.fromkeys(mi_tasks.ON_A_FILE, exact))
    (file / "few.json").write_text(json.dumps({"00": {"mi_nats": 1}}))
    case = [] if "--case=loop" in arguments else ["--case=mi_tasks"]
    with pytest.raises(UserError, match=re.escape(said)) as raised:
        bench.main([*case, *(a.format(file) for a in arguments), f"--out={file}"])
    assert "\n" not in str(raised.value)


def written(tmp_path):
    bench.main(["--case=mi_tasks", "--small", "--repeats=1", f"--out={tmp_path}"])
    figures = json.loads((tmp_path / "mi_tasks.json").read_text())
    assert all(math.isfinite(p["nats"]) for p in figures["points"]) and figures["device"]
    ElementTree.parse(tmp_path / "mi_tasks.svg")
    return figures


def test_the_job_writes_figures_and_picture(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mi_tasks, "methods", lambda: {"ksg": exact})
    assert list(written(tmp_path)["table"]) == ["ksg"]
    assert "mean |error|" in capsys.readouterr().out


@pytest.mark.nightly
def test_the_job_with_the_estimators_themselves(tmp_path):
    rows = written(tmp_path)["table"]
    assert list(rows) == ["ksg", "canonical_correlation", "smile"]
    assert all(row["mean_absolute_error"] < 0.5 for row in rows.values())
