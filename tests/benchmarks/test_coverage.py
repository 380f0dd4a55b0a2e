import json
import math

import pytest

from mi_contrast import bench
from mi_contrast import estimators as mi
from mi_contrast.benchmarks import coverage
from mi_contrast.benchmarks.coverage import CELLS, Cell
from mi_contrast.core.errors import UserError
from mi_contrast.estimators.result import Estimate


def row(nats, low, high):
    return {"nats": nats, "low": low, "high": high, "seconds": 1.0}


def test_a_summary_counts_what_holds_the_truth_and_names_lower_limits():
    cell = Cell(500, 1, 0.6)  # .2231 nats
    found = coverage.summarise(cell, [row(0.2, 0.1, 0.3), row(0.4, 0.3, 0.5), row(0.3, 0.2, None)])
    assert (found["hits"], found["draws"], found["lower_limits"], found["width"]) == (2, 3, 1, None)
    assert found["spread"] == pytest.approx(0.1)
    assert (found["from"], found["to"]) == pytest.approx((0.0943, 0.9916), abs=1e-4)  # R: binom.test(2, 3)
    assert found["bias"] == pytest.approx(0.3 + 0.5 * math.log(1 - 0.36))


def test_the_twelve_cells_span_the_range_of_the_goal():
    assert len(CELLS) == 12 == len({cell.name for cell in CELLS})
    for values, ends in (("samples", (500, 5000)), ("dimensions", (1, 5)), ("rho", (0.0, 0.9))):
        found = [getattr(cell, values) for cell in CELLS]
        assert (min(found), max(found)) == ends
    assert {cell.map for cell in CELLS} == set(coverage.MAPS)


def test_a_stopped_table_goes_on_and_other_versions_are_not_counted(tmp_path, monkeypatch):
    calls = []

    def stub(x, y, key):
        calls.append(len(x))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return Estimate.from_error(0.2, 0.1, math.inf)

    monkeypatch.setattr(mi, "estimate", stub)
    path = tmp_path / "coverage.jsonl"
    old = {"cell": "N 120, d 2, rho 0, none", "draw": 0, "version": "0", **row(9.0, 9.0, 9.0)}
    path.write_text(json.dumps(old) + "\n")
    with pytest.raises(KeyboardInterrupt):
        coverage.run(3, small=True, rows=str(path))
    table = coverage.run(3, small=True, rows=str(path))["table"]
    assert len(calls) == 4 + 3
    assert [r["draws"] for r in table] == [3, 3]
    assert table[1]["bias"] == pytest.approx(0.2)
    path.write_text("{}\n")
    with pytest.raises(UserError, match="has a line that is no estimate"):
        coverage.run(3, small=True, rows=str(path))


def test_the_command_writes_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mi, "estimate", lambda x, y, key: Estimate.from_error(0.2, 0.1, math.inf))
    bench.main(["--case=coverage", "--small", f"--out={tmp_path}"])
    assert "| N 120, d 1, rho 0.6, exp | 0.223 | 3 of 3 |" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "coverage.json").read_text())["table"]) == 2
