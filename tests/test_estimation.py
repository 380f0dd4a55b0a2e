"""`mi_contrast.estimate` is a function and the job's module, in whatever order the two are used."""

import inspect
import pydoc
import re
import subprocess
import sys

import numpy as np
import pytest

import mi_contrast
from mi_contrast.core.errors import UserError
from mi_contrast.estimation import prepare_samples
from mi_contrast.samples import Pair

RNG = np.random.default_rng(0)
X = RNG.normal(size=800)
Y = 0.8 * X + 0.6 * RNG.normal(size=800)
TRUTH = -0.5 * np.log(1 - 0.8**2)


def test_the_verdict_of_a_gaussian_holds_the_truth_and_is_shown():
    estimates = mi_contrast.estimate(X, Y, methods="ksg,cca")
    (row,) = [row for row in estimates.rows if row["method"] == "ksg"]
    assert row["low"] <= TRUTH <= row["high"] and estimates.outcome == "believe"
    assert repr(estimates).endswith(estimates.verdict) and "verdict: believe" in estimates._repr_html_()


def test_calls_and_the_command_line_give_the_same_numbers(tmp_path, capsys):
    from mi_contrast.estimate import main

    np.savez(tmp_path / "samples.npz", x=X, y=Y)
    main([str(tmp_path / "samples.npz"), "--methods=ksg"])
    printed = capsys.readouterr().out
    assert mi_contrast.estimate(X, Y, methods=["ksg"]).verdict in printed


@pytest.mark.parametrize("first", ["import mi_contrast.estimate", "from mi_contrast.estimate import measure", "pass"])
def test_the_name_stays_a_function_after_the_module_is_imported(first):
    code = (
        f"{first}\nimport mi_contrast as mi\nassert callable(mi.estimate)\n"
        "from mi_contrast.estimate import main, format_table\nassert callable(mi.estimate) and callable(main)\n"
        "import numpy as np\n"
        "try:\n    mi.estimate(np.zeros(3), np.zeros(4))\n"
        "except ValueError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("x has 3 samples, y has 4")


def test_labels_are_recognised_and_large_samples_are_drawn_from():
    labels = (X > 0).astype(int)
    estimates = mi_contrast.estimate(labels, Y, methods="ksg", most=400)
    assert estimates.rows[0]["samples"] == 400 and any("read as labels" in note for note in estimates.notes)
    assert any("400 of 800 pairs" in note for note in estimates.notes)


@pytest.mark.parametrize(
    ("x", "y", "settings", "says"),
    [
        (X, Y, {"methods": "kgs"}, "did you mean 'ksg'"),
        (np.array(["a", "b"]), Y[:2], {}, "x is <U1"),
        (np.where(np.arange(800) == 3, np.nan, X), Y, {}, "x has NaN or infinity in 1 of 800 rows"),
        (X.reshape(2, 400), Y[:2], {}, "more columns than samples"),
    ],
)
def test_samples_that_are_none_are_refused(x, y, settings, says):
    with pytest.raises(UserError, match=says):
        mi_contrast.estimate(x, y, **settings)


class Frame(dict):
    """As much of a data frame as is used: `columns`, and a column by name or a frame by a list of names."""

    @property
    def columns(self):
        return list(self)

    def __getitem__(self, name):
        return Frame({n: self[n] for n in name}) if isinstance(name, list) else super().__getitem__(name)

    def __array__(self, dtype=None, copy=None):
        return np.stack([np.asarray(column) for column in self.values()], axis=1)


class Series(np.ndarray):
    """An array with a name."""

    def __new__(cls, values, name):
        array = np.asarray(values).view(cls)
        array.name = name
        return array

    def __array_finalize__(self, array):
        self.name = getattr(array, "name", None)


SITE = np.where(X > 0, "hill", "dale").astype(object)
FRAME = Frame(temp=Series(X, "temp"), wind=Series(Y, "wind"), rain=Series(X + Y, "rain"), site=Series(SITE, "site"))


def test_a_file_is_read_as_the_command_reads_it(tmp_path, capsys):
    from mi_contrast.estimate import main

    file = tmp_path / "weather.csv"
    rows = zip(X[:300], Y[:300], X[:300] + Y[::-1][:300], SITE[:300], strict=True)
    lines = [f"{a},{b},{c},{d}" for a, b, c, d in rows]
    lines[4] = lines[4].replace(str(Y[4]), "NA")
    file.write_text("\n".join(["temp,wind,rain,site", *lines]))
    for x, flag in (("temp", "temp"), (["temp", "rain"], "temp,rain"), ("site", "site")):
        estimates = mi_contrast.estimate(str(file), x=x, y="wind", methods="ksg", drop_missing=True)
        main([str(file), f"--x={flag}", "--y=wind", "--methods=ksg", "--drop_missing"])
        assert capsys.readouterr().out.splitlines()[-1] == estimates.verdict
        assert f"{flag} and wind" in estimates.verdict
    says = {
        (): 'has no column \'x\'; say x="NAME", y="NAME", of: temp, wind, rain, site',
        ("temp", "wnd"): "did you mean 'wind'",
        ("temp", "temp"): "column 'temp' is on both sides",
        ("temp", "wind"): "drop_missing=True",
    }
    with pytest.raises(UserError, match="x is a ndarray beside"):
        mi_contrast.estimate(file, x=X, y=Y)
    for names, part in says.items():
        with pytest.raises(UserError) as error:
            mi_contrast.estimate(file, **dict(zip("xy", names, strict=False)))
        assert part in str(error.value)


def test_series_and_data_frames_give_their_names():
    expected = mi_contrast.estimate(X, Y, methods="ksg").rows[0]["nats"]
    for estimates in (
        mi_contrast.estimate(FRAME, x="temp", y="wind", methods="ksg"),
        mi_contrast.estimate(FRAME["temp"], FRAME["wind"], methods="ksg"),
        mi_contrast.estimate(FRAME["temp"], y=FRAME["wind"], methods="ksg"),
        mi_contrast.estimate(FRAME[["temp", "wind"]], methods="ksg"),
    ):
        assert estimates.rows[0]["nats"] == expected and "temp and wind share" in estimates.verdict
    assert "wind,rain and site" in mi_contrast.estimate(FRAME[["wind", "rain"]], FRAME[["site"]]["site"] == "hill",
                                                        methods="ksg").verdict  # fmt: skip
    labelled = mi_contrast.estimate(FRAME, x="site", y="temp", methods="ksg")
    assert any(note.startswith("site has few values") for note in labelled.notes)
    assert "x and y share" in mi_contrast.estimate(FRAME["temp"], Series(Y, "temp"), methods="ksg").verdict


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [((), {}), ((X,), {}), ((X, Y), {"x": X}), (("data.csv", "temp"), {}), ((X,), {"x": Y}), ((), {"y": Y})],
)
def test_a_call_that_names_no_two_variables_says_how(arguments, settings):
    with pytest.raises(UserError, match=r'x="NAME", y="NAME"'):
        mi_contrast.estimate(*arguments, **settings)


def test_help_and_editors_show_the_call():
    assert list(inspect.signature(mi_contrast.estimate).parameters)[:4] == ["first", "second", "x", "y"]
    text = pydoc.plain(pydoc.render_doc(mi_contrast.estimate))
    assert "mi_contrast.estimate(x, y)" in text.partition("FUNCTIONS")[0]
    assert 'estimate("plots.csv", x="rain", y="yield")' in text.partition("FUNCTIONS")[2]
    assert "Returns estimates of the mutual information" in inspect.getdoc(mi_contrast.estimate.__call__)


def test_rows_that_resemble_their_neighbours_are_doubted_in_python_too():
    walks = np.cumsum(RNG.normal(size=(2, 500)), axis=1)
    estimates = mi_contrast.estimate(*walks, methods="ksg")
    assert estimates.outcome == "dependent rows" and "do not believe" in estimates._repr_html_()
    x, y = (np.repeat(z[:200], 10) + 1e-3 * RNG.normal(size=2000) for z in (X, Y))
    assert "; keep every" in mi_contrast.estimate(x, y, methods="ksg").verdict
    thinned = mi_contrast.estimate(x, y, methods="ksg", every=10)
    assert thinned.outcome == "believe" and thinned.rows[0]["samples"] == 200


def test_the_rows_to_keep_are_counted_in_the_file_where_a_part_is_read():
    steps = []
    walk = np.repeat(RNG.normal(size=(2, 2000)), 20, axis=1) + 1e-3 * RNG.normal(size=(2, 40_000))
    for settings in ({"most": 40_000}, {"most": 10_000}, {"every": 4}):
        samples = prepare_samples(Pair(walk[0][:, None], walk[1][:, None], ("x", "y"), []), ["cca"], k=3, seed=0,
                                  **{"most": 40_000, **settings})  # fmt: skip
        steps.append(int(re.search(r"--every=(\d+)", samples.doubt)[1]))
    assert max(steps) < 1.6 * min(steps) and min(steps) > 20


def test_the_numbers_of_the_verdict_are_attributes():
    estimates = mi_contrast.estimate(X, Y, methods="ksg,cca")
    (row,) = [row for row in estimates.rows if row["method"] == "ksg"]
    assert (estimates.nats, estimates.low, estimates.high) == (row["nats"], row["low"], row["high"])
    assert f".nats {row['nats']:.3f}, .low {row['low']:.3f}, .high {row['high']:.3f}" in repr(estimates)
    walks = mi_contrast.estimate(*np.cumsum(RNG.normal(size=(2, 500)), axis=1), methods="ksg")
    assert (walks.nats, walks.low, walks.high) == (None, None, None) and ".nats None" in walks._repr_html_()


def test_remarks_stand_below_the_table():
    lines = repr(mi_contrast.estimate(X.round(1), Y, methods="ksg")).splitlines()
    assert lines[0].startswith("method") and "x has repeated (rounded) values; ties are broken at random" in lines[2:]


def test_words_are_read_as_labels_as_in_a_frame():
    pandas = pytest.importorskip("pandas")
    expected = mi_contrast.estimate(FRAME, x="site", y="temp", methods="ksg").rows[0]["nats"]
    site, temp = pandas.Series(SITE, name="site"), pandas.Series(X, name="temp")
    for words in (site, SITE, SITE.astype(str), site.astype("category"), site.to_frame()):
        labelled = mi_contrast.estimate(words, temp, methods="ksg")
        assert labelled.rows[0]["nats"] == expected and labelled.rows[0]["method"] == "discrete_continuous"
    with pytest.raises(UserError, match="holds words, 800 different ones in 800 rows"):
        mi_contrast.estimate(site + temp.astype(str), temp)
    for days in (pandas.date_range("2024-01-01", periods=800), pandas.date_range("2024", periods=800, tz="Asia/Tokyo")):
        for dates in (days, days.astype(str), days.date):
            with pytest.raises(UserError, match="'when' looks like dates; leave it out or turn it into a number"):
                mi_contrast.estimate(pandas.Series(dates, name="when"), temp)


def test_two_series_are_paired_by_equal_indexes_alone():
    pandas = pytest.importorskip("pandas")
    x, y = pandas.Series(X, name="a"), pandas.Series(Y, name="b")
    for other in (y.iloc[::-1], y.rename(lambda i: i + 1), y[:-1]):
        with pytest.raises(UserError, match=r"^the indexes of a and b differ; align them .*\.to_numpy\(\)"):
            mi_contrast.estimate(x, other, methods="cca")
        with pytest.raises(UserError, match="indexes of a,b and b differ"):
            mi_contrast.estimate(pandas.DataFrame({"a": X, "b": X**2}), y=other, methods="cca")
    expected = mi_contrast.estimate(X, Y[::-1], methods="cca").rows[0]["nats"]
    for first, second in ((x, y.iloc[::-1].to_numpy()), (x, y.iloc[::-1].reset_index(drop=True))):
        assert mi_contrast.estimate(first, second, methods="cca").rows[0]["nats"] == expected


def test_shuffled_frames_are_compared_in_the_order_of_their_index():
    pandas = pytest.importorskip("pandas")
    x, y = (np.repeat(z[:200], 10) + 1e-3 * RNG.normal(size=2000) for z in (X, Y))
    frame = pandas.DataFrame({"a": x, "b": y}).sample(frac=1, random_state=0)
    days = frame.set_index(pandas.to_datetime("2024-01-01") + pandas.to_timedelta(frame.index, unit="h"))
    for estimates in (
        mi_contrast.estimate(frame, x="a", y="b", methods="ksg"),
        mi_contrast.estimate(days["a"], days["b"], methods="ksg"),
    ):
        assert estimates.outcome == "dependent rows" and "in the order of the index" in estimates.verdict
    hidden = frame.reset_index(drop=True)
    assert mi_contrast.estimate(hidden, x="a", y="b", methods="ksg").outcome == "believe", "control"
