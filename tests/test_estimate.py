import contextlib
import io
import json
import re
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import estimate
from mi_contrast import estimators as mi
from mi_contrast.core import heartbeat
from mi_contrast.core.errors import run_job
from mi_contrast.core.heartbeat import report_time
from mi_contrast.data.columns import READERS
from mi_contrast.estimators.registry import METHODS

RNG = np.random.default_rng(2)
X = RNG.normal(size=(60, 2))
Y = X[:, 0] + RNG.normal(size=60)


@pytest.fixture
def file(tmp_path):
    np.savez(
        tmp_path / "pairs.npz",
        x=X,
        y=Y,
        left=X[:, :1],
        twin=X[:, :1],
        short=Y[:-1],
        words=np.array(["a"] * 60),
        cube=X[None],
    )
    return tmp_path / "pairs.npz"


def test_the_table_holds_what_the_estimators_answer(file, capsys):
    assert run_job(estimate.main, [str(file), "--methods=ksg,cca", "--k=5", f"--json={file.parent / 'o.json'}"]) == 0
    heading, ksg, cca, legend, verdict = capsys.readouterr().out.splitlines()
    assert heading.split()[:8] == ["method", "nats", "+-", "low", "high", "ceiling", "seconds", "samples"]
    expected = mi.ksg(X, Y, 5, normal_scores=True)
    values = expected.nats, expected.standard_error, expected.low
    assert ksg.split()[:4] == ["ksg", *(f"{v:.3f}" for v in values)] and ksg.split()[7] == "60"
    assert "5 nearest neighbours" in ksg and "of normal scores" in ksg and cca.split()[5] == "none"
    assert verdict.startswith("verdict: ") and "bits" in verdict and legend.startswith("+-: standard error; ceiling: ")
    assert run_job(estimate.main, [str(file), "--methods=ksg", "--k=5", "--ranks=no"]) == 0
    plain = capsys.readouterr().out.splitlines()[1]
    assert plain.split()[1] == f"{mi.ksg(X, Y, 5, standardise=True).nats:.3f}" and "as they are" in plain
    rows = json.loads((file.parent / "o.json").read_text())["rows"]
    assert rows[0]["nats"] == float(expected.nats) and rows[1]["ceiling"] is None


def test_other_names_of_arrays_and_the_file_as_a_flag(file, capsys):
    assert run_job(estimate.main, [f"--file={file}", "--x=left", "--y=twin", "--methods=ksg2"]) == 0
    assert "a lower limit" in capsys.readouterr().out.splitlines()[1]


def test_copies_are_said(file, capsys):
    grid = np.repeat(np.arange(16.0), 4)
    np.savez(file, x=grid, y=grid)
    assert run_job(estimate.main, [str(file), "--methods=ksg"]) == 2
    assert "4 times or more" in capsys.readouterr().out


def write(file, count, rho=0.8, width=1, seed=1, change=lambda z: z):
    draw = np.random.default_rng(seed)
    x, e = draw.normal(size=(2, count, width))
    np.savez(file, x=change(x), y=change(rho * x + np.sqrt(1 - rho**2) * e))
    return -0.5 * width * np.log(1 - rho**2)


def test_skewed_samples_read_the_truth_by_their_ranks(file, capsys):
    truth = write(file, 1000, change=lambda z: np.exp(5 * z))
    assert run_job(estimate.main, [str(file), "--methods=ksg,cca", f"--json={file.parent / 'o.json'}"]) == 0
    told = json.loads((file.parent / "o.json").read_text())
    assert told["outcome"] == "believe" and "nats" in told["verdict"] and "bits" in told["verdict"]
    for row in told["rows"]:
        assert abs(row["nats"] - truth) < 2 * row["standard_error"]
    assert run_job(estimate.main, [str(file), "--methods=ksg", "--ranks=no"]) == 0
    assert float(capsys.readouterr().out.splitlines()[-3].split()[1]) < 0.4  # control


def test_a_dependence_beyond_the_ceiling_is_answered_by_a_lower_limit(file, capsys):
    truth = write(file, 1000, rho=0.999999)
    assert run_job(estimate.main, [str(file), "--methods=ksg,cca", f"--json={file.parent / 'o.json'}"]) == 0
    told = json.loads((file.parent / "o.json").read_text())
    assert told["outcome"] == "lower limit" and "a lower limit: at least" in told["verdict"]
    assert 5 < told["rows"][0]["low"] < truth and told["rows"][0]["high"] is None
    assert capsys.readouterr().out.splitlines()[-1] == told["verdict"]


def test_what_cannot_be_read_leaves_the_rest_of_the_table(file, capsys):
    write(file, 8)
    assert run_job(estimate.main, [str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == ["ksg", "cca", "info_nce", "nwj", "smile"]
    assert all("none: 8 samples are too few" in line and "at least 60" in line for line in lines[3:6])
    assert float(lines[1].split()[1]) == pytest.approx(float(lines[1].split()[1])) and lines[7].startswith("verdict")


def test_labels_are_read_as_labels(file, capsys):
    draw = np.random.default_rng(1)
    coin = draw.integers(2, size=400)
    np.savez(file, x=coin, y=coin + draw.normal(size=400), z=np.where(draw.random(400) < 0.8, coin, 1 - coin))
    assert run_job(estimate.main, [str(file), "--methods=ksg2,cca"]) == 0
    note, _, row, *_ = capsys.readouterr().out.splitlines()
    assert note == "x has few values and is read as labels: discrete_continuous in place of ksg2 and cca"
    with np.load(file) as held:
        assert row.split()[1] == f"{mi.discrete_continuous(held['x'], held['y']).nats:.3f}"
    assert run_job(estimate.main, [str(file), "--methods=ksg", "--y=z"]) == 0
    assert "x and z have few values" in capsys.readouterr().out


def test_a_subsample_is_stated_and_long_methods_report(file, capsys, monkeypatch):
    write(file, 500)
    assert run_job(estimate.main, [str(file), "--methods=ksg", "--most=100"]) == 0
    note, _, row, *_ = capsys.readouterr().out.splitlines()
    assert note.startswith("100 of 500 pairs are read, drawn at random (--most=500") and row.split()[7] == "100"
    with report_time("ksg", 60.0, seconds_between=0.02):
        time.sleep(0.2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) > 2 and said[0] == "ksg: 0:00 so far, about 0:59 left"
    with report_time("quick"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("count", "read"), [(20_000, 20_000), (20_001, 20_000)])
def test_twenty_thousand_pairs_are_read_by_default(file, capsys, monkeypatch, count, read):
    x = np.arange(count, dtype=np.float64)
    np.savez(file, x=x, y=-x)
    seen = []

    def measure(x, y, *_, **__):
        seen.append((len(x), bool((x == -y).all()), len(np.unique(x))))
        return [dict.fromkeys(("nats", "standard_error", "low", "high", "ceiling", "seconds"), 1.0)
                | dict(method="cca", samples=len(x), what="", sound=True)]  # fmt: skip

    monkeypatch.setattr(estimate, "measure", measure)
    assert run_job(estimate.main, [str(file), "--methods=cca"]) == 0
    assert seen == [(read, True, read)], "pairs stay pairs, and none is drawn twice"
    assert ("20,000 of 20,001 pairs are read" in capsys.readouterr().out) == (count > read)


class Clock:
    """A clock that only a method's work moves: compiling takes 50 s, N pairs then take (N / 1,000)^2 s."""

    now, compiled = 0.0, False

    def estimate(self, x, y, *_):
        self.now += (len(x) / 1000) ** 2 + (0.0 if self.compiled else 50.0)
        self.compiled = True
        return mi.Estimate.from_error(*map(jnp.float32, (0.5, 0.1, np.inf)))


@pytest.mark.parametrize(
    ("count", "is_quadratic", "expected"),
    [(20_000, True, 400.0), (8000, True, 64.0), (7999, True, None), (20_000, False, None)],
)
def test_a_pilot_predicts_the_time_of_all_pairs_without_that_of_compiling(monkeypatch, count, is_quadratic, expected):
    clock, told = Clock(), []

    @contextlib.contextmanager
    def report(what, seconds):
        told.append(seconds)
        yield

    method = METHODS["ksg"]._replace(estimate=clock.estimate, is_quadratic=is_quadratic)
    monkeypatch.setitem(METHODS, "ksg", method)
    monkeypatch.setattr(estimate, "report_time", report)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock.now)
    estimate.measure(np.zeros((count, 1)), np.zeros((count, 1)), ["ksg"], 3, 0)
    assert told == [pytest.approx(expected)]
    spent = clock.now - (50 + (count / 1000) ** 2)
    assert spent == pytest.approx(0.0 if expected is None else 2 * 4.0), "two pilots of 2,000 pairs"


def test_an_estimate_above_its_ceiling_is_an_error(file, capsys, monkeypatch):
    broken = METHODS["ksg"]._replace(estimate=lambda *_: mi.Estimate.from_error(7.0, 0.1, np.float32(6.0)))
    monkeypatch.setitem(METHODS, "ksg", broken)
    assert run_job(estimate.main, [str(file), "--methods=ksg,cca"]) == 0
    ksg = capsys.readouterr().out.splitlines()[1]
    assert "an error: 7.000 nats is above the ceiling" in ksg and "near its ceiling" not in ksg


def test_every_method_is_an_estimator_of_the_package():
    from mi_contrast.estimators import learned

    assert set(learned.METHODS) <= set(estimate.METHODS)
    assert set(estimate.DEFAULT.split(",")) <= set(estimate.METHODS)


def write_table(path):
    """60 rows: wind follows temp and misses one value, rain follows neither, season is the sign of temp."""
    seasons = ["warm" if value > 0 else "cold" for value in X[:, 0]]
    lines = [f"{x[0]},{y},{x[1]},{season},row{i}" for i, (x, y, season) in enumerate(zip(X, Y, seasons, strict=True))]
    lines[7] = lines[7].replace(str(Y[7]), "NA")
    path.write_text("\n".join(["temp,wind,rain,season,id", *lines]))
    return path


def test_columns_of_a_table_are_the_arrays_that_numpy_has(tmp_path, capsys):
    table, kept = write_table(tmp_path / "table.csv"), np.arange(60) != 7
    arguments = [str(table), "--y=wind", "--methods=ksg", "--drop_missing"]
    for flag, x in (("--x=temp", X[kept, :1]), ("--x=temp,rain", X[kept])):
        assert run_job(estimate.main, [*arguments, flag]) == 0
        note, _, row, _, verdict = capsys.readouterr().out.splitlines()
        assert note == "1 of 60 rows have missing values and are left out"
        assert row.split()[1] == f"{mi.ksg(x, Y[kept], 3, normal_scores=True).nats:.3f}"
        assert f"{flag[4:]} and wind" in verdict
    assert run_job(estimate.main, [str(table), "--x=season", "--y=temp", "--methods=ksg"]) == 0
    note, _, row, *_ = capsys.readouterr().out.splitlines()
    assert note.startswith("season has few values and is read as labels") and row.startswith("discrete_continuous")


def test_two_columns_need_no_names(tmp_path, capsys):
    np.save(tmp_path / "two.npy", np.stack([X[:, 0], Y], axis=1))
    (tmp_path / "two.csv").write_text("\n".join(["temp,wind", *(f"{x},{y}" for x, y in zip(X[:, 0], Y, strict=True))]))
    expected = f"{mi.ksg(X[:, 0], Y, 3, normal_scores=True).nats:.3f}"
    for name in ("two.npy", "two.csv"):
        assert run_job(estimate.main, [str(tmp_path / name), "--methods=ksg"]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[1] == expected


def test_every_two_columns_and_the_page(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = write_table(tmp_path / "table.csv")
    command = [str(table), "--pairs=temp,wind,rain,season", "--drop_missing", "--json=pairs.json"]
    assert run_job(estimate.main, command) == 0
    out = capsys.readouterr().out
    rows = json.loads((tmp_path / "pairs.json").read_text())["rows"]
    assert len(rows) == 6 and [row["nats"] for row in rows] == sorted((row["nats"] for row in rows), reverse=True)
    kept = np.arange(60) != 7
    (pair,) = [row for row in rows if (row["x"], row["y"]) == ("temp", "wind")]
    assert pair["nats"] == pytest.approx(float(mi.ksg(X[kept, 0], Y[kept], 3, normal_scores=True).nats))
    assert f"verdict: {rows[0]['x']} and {rows[0]['y']} share most" in out
    assert max(map(len, out.splitlines()[1:-2])) <= 100
    page = (tmp_path / "table-pairs.html").read_text()
    assert "temp" in page and f"{pair['nats']:.3f}" in page and "https://" not in page.partition("<script>")[0]
    assert run_job(estimate.main, command) == 0, "its own page is written again"
    (tmp_path / "table-pairs.html").write_text("mine")
    assert run_job(estimate.main, command) == 2 and (tmp_path / "table-pairs.html").read_text() == "mine"


@pytest.mark.nightly
def test_a_learned_method(file, capsys):
    assert run_job(estimate.main, [str(file), "--methods=info_nce", "--seed=3"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    low, high = map(float, row.split()[3:5])
    assert low < np.log(2) / 2 < high and "critic" in row  # y is one normal variable plus noise of the same variance


def test_mistakes_are_one_line_and_exit_2(file, capsys):
    folder = file.parent
    (folder / "one.npy").write_bytes(b"one")
    (folder / "broken.npz").write_bytes(file.read_bytes()[:200])
    (folder / "empty.npz").write_bytes(b"")
    np.savez(folder / "nan.npz", x=np.where(X > 2, np.nan, X), y=Y)
    np.savez(folder / "objects.npz", x=np.array([{}] * 3), y=np.zeros(3))
    write_table(folder / "table.csv")
    np.savez(folder / "turned.npz", x=np.zeros((3, 1000)), y=np.zeros((3, 1000)))
    said = {
        (): "no file",
        (str(folder / "pair.npz"),): "did you mean 'pairs.npz'",
        (str(folder / "one.npy"),): "not a .npy file",
        (str(folder / "broken.npz"),): "not an .npz file",
        (str(folder / "empty.npz"),): "not an .npz file",
        (str(folder / "objects.npz"),): "not an .npz file",
        (str(folder / "nan.npz"),): "NaN or infinity in",
        (str(file), "--x=lift"): "did you mean 'left'",
        (str(file), "--y=short"): "x has 60 samples, short has 59",
        (str(file), "--y=words"): "give numbers",
        (str(file), "--y=cube"): "give numbers",
        (str(folder / "turned.npz"),): "is it transposed?",
        (str(file), "--ranks=maybe"): "--ranks=maybe",
        (str(file), "--methods=kgs"): "did you mean 'ksg'",
        (str(file), "--k=60", "--methods=ksg"): "ksg: 60 samples are too few; give 61 at least",
        (str(file), "--k=0"): "--k=0",
        (str(file), "--seed=-1"): "--seed=-1",
        (str(file), "--sed=1"): "--seed",
        (str(file), "--out=page.html"): "--out without --pairs",
        (str(file), "--pairs", "--x=x"): "name the columns as --pairs=a,b,c",
        (str(file), "--pairs", "--methods=ksg,cca"): "give one method",
        (str(file), "--pairs=x"): "1 columns make no pair",
        (str(file), "--pairs=x,lift"): "did you mean 'left'",
        (str(file), "--pairs=x,short"): "differ in length: x 60, short 59",
        (str(folder / "table.csv"),): "say --x=NAME --y=NAME, of: temp, wind, rain, season, id",
        (str(folder / "table.csv"), "--x=tepm", "--y=wind"): "did you mean 'temp'",
        (str(folder / "table.csv"), "--x=temp", "--y=wind"): "column 'wind' has NaN or infinity in 1 of 60 rows",
        (str(folder / "table.csv"), "--x=temp", "--y=id"): "column 'id' holds words, 60 different ones",
        (str(folder / "table.csv"), "--x=temp,season", "--y=rain"): "words beside columns of numbers",
    }
    for arguments, part in said.items():
        assert run_job(estimate.main, list(arguments)) == 2, arguments
        line = capsys.readouterr().err
        assert line.startswith("mi_contrast: error: ") and line.count("\n") == 1 and part in line, line


def write_columns(path, **columns):
    lines = zip(*columns.values(), strict=True)
    path.write_text("\n".join([",".join(columns), *(",".join(map(str, line)) for line in lines)]))
    return str(path)


def draw_series(coefficient, rows, seed):
    noise, series = np.random.default_rng(seed).normal(size=rows), np.zeros(rows)
    for i in range(1, rows):
        series[i] = coefficient * series[i - 1] + noise[i]
    return series


def test_neighbouring_rows_that_resemble_each_other_are_not_believed(tmp_path, capsys):
    x, y = draw_series(0.99, 900, 1), draw_series(0.99, 900, 2)
    file = write_columns(tmp_path / "series.csv", temp=x, wind=y)
    out = f"--json={tmp_path / 'o.json'}"
    assert run_job(estimate.main, [file, "--methods=ksg", out]) == 0
    verdict = capsys.readouterr().out.splitlines()[-1]
    assert json.loads((tmp_path / "o.json").read_text())["outcome"] == "dependent rows"
    assert "do not believe these numbers (ksg" in verdict and "900 rows count as about" in verdict
    assert "neighbouring rows of temp and wind resemble each other" in verdict and "take more rows" in verdict
    assert run_job(estimate.main, [file, "--pairs", f"--out={tmp_path / 'p.html'}"]) == 0
    assert "verdict: do not believe the numbers of 1 of 1 pairs" in capsys.readouterr().out
    order = np.random.default_rng(0).permutation(900)  # control: the same pairs in another order
    shuffled = write_columns(tmp_path / "shuffled.csv", temp=x[order], wind=y[order])
    assert run_job(estimate.main, [shuffled, "--methods=ksg", out]) == 0
    assert json.loads((tmp_path / "o.json").read_text())["outcome"] == "believe"


def number_days(rows):
    return [str(np.datetime64("2021-03-01") + day) for day in range(rows)]


def test_shuffled_rows_are_compared_in_the_order_of_their_dates(tmp_path, capsys):
    x, y = draw_series(0.9, 900, 1), draw_series(0.9, 900, 2)
    order = np.random.default_rng(0).permutation(900)
    forms = {
        "day": number_days(900),
        "hour": [f"{day[8:]}.{day[5:7]}.{day[:4]} 12:30" for day in number_days(900)],
        "step": np.arange(900) * 0.1,
    }
    for name, places in forms.items():
        columns = {name: np.array(places)[order], "a": x[order], "b": y[order]}
        file = write_columns(tmp_path / "shuffled.csv", **columns)
        assert run_job(estimate.main, [file, "--x=a", "--y=b", "--methods=ksg"]) == 0
        verdict = capsys.readouterr().out.splitlines()[-1]
        assert f"resemble each other in the order of {name!r}" in verdict and "do not believe" in verdict
        assert f"; sort them by {name!r} and keep every" in verdict
        assert "do not shuffle them: that hides the dependence and does not remove it" in verdict
        assert run_job(estimate.main, [file, "--pairs=a,b", f"--out={tmp_path / 'p.html'}"]) == 0
        assert f"in the order of {name!r}" in capsys.readouterr().out
        free = write_columns(tmp_path / "free.csv", **columns | {"a": X[:, 0].repeat(15)[order], "b": draw_free(900)})
        assert run_job(estimate.main, [free, "--x=a", "--y=b", "--methods=ksg"]) == 0
        *_, note, verdict = capsys.readouterr().out.splitlines()
        assert note == f"neighbouring rows were compared in the order of {name!r}, too" and "no dependence" in verdict
    file = write_columns(tmp_path / "code.csv", code=np.random.default_rng(1).normal(size=900), a=x[order], b=y[order])
    assert run_job(estimate.main, [file, "--x=a", "--y=b", "--methods=ksg"]) == 0
    assert "not believe" not in capsys.readouterr().out, "control: a column that tells no order"


def draw_free(rows):
    return np.random.default_rng(7).normal(size=rows)


def test_missing_values_are_left_out_pair_by_pair(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = {"a": X[:, 0].copy(), "b": Y.copy(), "c": X[:, 1].copy()}
    columns["a"][:5] = np.nan
    columns["c"][10:30] = np.nan
    file = write_columns(tmp_path / "gaps.csv", **columns)
    assert run_job(estimate.main, [file, "--pairs", "--drop_missing", "--json=o.json"]) == 0
    out = capsys.readouterr().out
    assert "by one quick method; run a pair alone for the full answer: --x=NAME --y=NAME" in out.splitlines()
    rows = {(row["x"], row["y"]): row for row in json.loads((tmp_path / "o.json").read_text())["rows"]}
    assert {pair: row["samples"] for pair, row in rows.items()} == {("a", "b"): 55, ("a", "c"): 35, ("b", "c"): 40}
    for (first, second), row in rows.items():
        x, y = columns[first], columns[second]
        kept = np.isfinite(x) & np.isfinite(y)
        assert row["nats"] == pytest.approx(float(mi.ksg(x[kept], y[kept], 3, normal_scores=True).nats))
        line = next(line for line in out.splitlines() if line.startswith(f"{first} and {second}"))
        assert line.endswith(f" {row['samples']}  ksg")
    never = write_columns(tmp_path / "never.csv", a=columns["a"], b=Y, c=np.where(np.isnan(columns["a"]), Y, np.nan))
    assert run_job(estimate.main, [never, "--pairs", "--drop_missing", "--json=o.json"]) == 0
    (row,) = [
        row for row in json.loads((tmp_path / "o.json").read_text())["rows"] if (row["x"], row["y"]) == ("a", "c")
    ]
    assert row["nats"] is None and row["samples"] == 0 and not row["sound"]


def test_pairs_and_a_pair_alone_name_the_same_rows_to_keep(tmp_path, capsys):
    columns = {"a": draw_series(0.9, 3000, 1), "b": draw_series(0.9, 3000, 2)}
    columns["a"][np.random.default_rng(0).random(3000) < 0.5] = np.nan
    file = write_columns(tmp_path / "series.csv", **columns)
    steps = []
    for flags in (["--x=a", "--y=b", "--methods=cca,ksg"], ["--pairs", f"--out={tmp_path / 'p.html'}"]):
        assert run_job(estimate.main, [file, "--drop_missing", *flags]) == 0
        steps.append(re.search(r"--every=(\d+)", capsys.readouterr().out)[1])
    assert steps[0] == steps[1]


def test_a_log_gets_a_line_every_30_seconds_and_a_terminal_every_5(monkeypatch):
    waits = []

    class Event(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return super().wait(timeout)

    class Stream(io.StringIO):
        def __init__(self, is_terminal):
            super().__init__()
            self.isatty = lambda: is_terminal

    for is_terminal in (False, True):
        monkeypatch.setattr(heartbeat.sys, "stderr", Stream(is_terminal))
        monkeypatch.setattr(heartbeat.threading, "Event", Event)
        with report_time("info_nce"):
            time.sleep(0.05)
        monkeypatch.undo()
    assert [timeout for timeout in waits if timeout in (5.0, 30.0)] == [30.0, 5.0]


def test_help_messages_and_pages_name_the_same_kinds_of_file_and_one_command(capsys):
    kinds = ", ".join(list(READERS)[:-1]) + f" or {list(READERS)[-1]}"
    with pytest.raises(SystemExit):
        estimate.main(["--help"])
    text = capsys.readouterr().out
    assert f"a {kinds} file" in text and "mi-contrast estimate table.csv" in text and "python -m" not in text
    assert run_job(estimate.main, []) == 2
    assert f"give a {kinds} file of samples" in capsys.readouterr().err
    page = Path(__file__).parents[1] / "docs" / "mutual_information" / "index.md"
    for text in (estimate.estimate.__doc__, page.read_text()):
        assert kinds in " ".join(text.split())


def test_every_kth_row_is_named_and_used(tmp_path, capsys):
    x, y = draw_series(0.9, 3000, 1), draw_series(0.9, 3000, 2)
    x[5] = np.nan
    file = write_columns(tmp_path / "series.csv", a=x, b=y)
    assert run_job(estimate.main, [file, "--methods=ksg", "--drop_missing"]) == 0
    flag = next(word for word in capsys.readouterr().out.split() if word.startswith("--every="))
    step = int(flag.strip(";").partition("=")[2])
    assert run_job(estimate.main, [file, "--methods=ksg", "--drop_missing", f"--every={step}"]) == 0
    dropped, thinned, _, row, _, verdict = capsys.readouterr().out.splitlines()
    kept = np.delete(np.stack([x, y]), 5, axis=1)[:, ::step]
    assert dropped.startswith("1 of 3,000 rows have missing") and f"every {step}th (--every={step})" in thinned
    assert row.split()[1] == f"{mi.ksg(*kept, 3, normal_scores=True).nats:.3f}"
    assert verdict.startswith("verdict: no dependence of a and b found; up to 0.")


def test_rounded_numbers_read_the_truth_and_ties_are_said_once(tmp_path, capsys):
    """Rounding to a tenth of a standard deviation takes .005 nats or less away; ties as they are added .1."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=1500)
    y = 0.8 * x + 0.6 * draw.normal(size=1500)
    file = write_columns(tmp_path / "t.csv", temp=x.round(1), wind=y.round(1), free=draw.normal(size=1500).round(1),
                         site=draw.choice(["a", "b", "c"], size=1500))  # fmt: skip
    assert run_job(estimate.main, [file, "--x=temp", "--y=wind", "--methods=ksg,cca"]) == 0
    out = capsys.readouterr().out
    _, ksg, _, _, note, verdict = out.splitlines()
    assert (
        note == "temp and wind have repeated (rounded) values; ties are broken at random" and out.count("repeat") == 1
    )
    assert float(ksg.split()[1]) == pytest.approx(-0.5 * np.log(1 - 0.64), abs=0.05) and "believe that" in verdict
    assert run_job(estimate.main, [file, "--x=free", "--y=site", "--methods=ksg"]) == 0
    assert "no dependence of free and site found" in capsys.readouterr().out


def test_the_table_fits_100_columns(tmp_path, capsys):
    x, y = np.random.default_rng(0).normal(size=(2, 70))
    labels = np.arange(70) % 2
    file = write_columns(tmp_path / "t.csv", x=x, y=x + y, tied=np.round(x, 1), flag=labels)
    every = f"--methods={','.join(METHODS)}"
    quick = "--methods=ksg,ksg2,three_kl,cca"
    for more in ([every], [quick, "--ranks=no"], [quick, "--y=tied"], [quick, "--y=flag"]):
        assert run_job(estimate.main, [file, *more]) == 0
        lines = capsys.readouterr().out.splitlines()
        head = next(i for i, line in enumerate(lines) if line.startswith("method "))
        assert max(map(len, lines[head:-1])) <= 100, lines


def test_a_pair_of_columns_that_means_nothing_is_one_clear_line(tmp_path, capsys):
    file = write_columns(
        tmp_path / "t.csv", a=X[:, 0], b=Y, const=[4] * 60, none=[""] * 60, id=[f"r{i}" for i in range(60)],
        day=number_days(60)
    )  # fmt: skip
    two = write_columns(tmp_path / "two.csv", a=[1, 2, 3], b=[3, 1, 2])
    head = tmp_path / "head.csv"
    head.write_text("a,b\n")
    said = {
        (file, "--x=a", "--y=a"): "column 'a' is on both sides; name different columns",
        (file, "--x=a,b", "--y=b"): "column 'b' is on both sides",
        (file, "--x=a,a", "--y=b"): "column 'a' is named twice",
        (file, "--pairs=a,b,a"): "column 'a' is named twice",
        (file, "--x=a", "--y=const"): "column 'const' holds one value in all of its 60 rows",
        (file, "--pairs=a,const"): "column 'const' holds one value",
        (file, "--x=a", "--y=none"): "column 'none' has NaN or infinity in 60 of 60 rows; name another",
        (file, "--x=a", "--y=none", "--drop_missing"): "a value is missing in each of the 60 rows",
        (file, "--x=a", "--y=id"): "column 'id' holds words, 60 different ones in 60 rows",
        (two, "--methods=ksg"): "3 samples are too few; give 4 at least",
        (str(head),): "column 'a' has no rows",
        (file, "--x=a", "--y=day"): "column 'day' looks like dates; leave it out or turn it into a number",
        (file, "--pairs=a,day"): "column 'day' looks like dates",
        (file, "--x=a", "--y=b", "--every=0"): "--every=0",
    }  # fmt: skip
    for arguments, part in said.items():
        assert run_job(estimate.main, list(arguments)) == 2, arguments
        line = capsys.readouterr().err
        assert line.startswith("mi_contrast: error: ") and line.count("\n") == 1 and part in line, line
    assert run_job(estimate.main, [file, "--pairs", f"--out={tmp_path / 'p.html'}"]) == 0
    out = capsys.readouterr().out
    assert out.count("left out: column") == 4 and "a and b" in out, "what cannot be paired is said and left out"
