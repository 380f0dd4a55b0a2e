"""`mi_contrast.estimate` is a function and the job's module, in whatever order the two are used."""

import subprocess
import sys

import numpy as np
import pytest

import mi_contrast
from mi_contrast.core.errors import UserError

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
