import math

import pytest

from mi_contrast.reporting.estimates import explain_table, find_correlation, format_table, reach_verdict


def row(method, nats, error=0.05, high=None, sound=True):
    low, top = nats - 1.645 * error, nats + 1.645 * error
    return dict(method=method, nats=nats, low=low, high=top if high is None else high, sound=sound)


@pytest.mark.parametrize(
    ("rows", "outcome", "part"),
    [
        ([row("ksg", 0.5), row("info_nce", 0.52)], "believe", "0.510 nats (0.736 bits)"),
        ([row("ksg", 0.5), row("nwj", 0.1), row("cca", 0.0)], "believe", "by ksg"),  # a lower bound may lie below
        ([row("ksg", 0.5), row("info_nce", 1.5)], "disagree", "believe no number"),
        ([row("ksg", 0.5), row("cca", 1.5)], "disagree", "cca 1.500"),  # a lower bound may not lie above
        ([row("ksg", 5.4, high=math.inf), row("info_nce", 4.2)], "lower limit", "at least 5.318 nats"),
        ([row("ksg", 0.5, high=math.inf), row("info_nce", 0.9)], "believe", "by info_nce"),
        ([row("ksg", 0.01, high=math.inf)], "lower limit", "too few rows to say anything"),
        ([row("ksg", math.nan, sound=False), row("info_nce", 0.5)], "believe", "by info_nce"),
        ([row("smile", 0.5), row("cca", 0.5)], "nothing", "add ksg or info_nce"),
        ([row("ksg", math.nan, sound=False)], "nothing", "nothing is known"),
    ],
)
def test_the_verdict_follows_from_the_intervals(rows, outcome, part):
    verdict = reach_verdict(rows)
    assert verdict.outcome == outcome and part in verdict.text, verdict
    assert "\n" not in verdict.text


def test_the_verdict_is_a_sentence_about_the_two_variables():
    text = reach_verdict([row("ksg", 0.5)], ("temp", "wind")).text
    assert text.startswith("verdict: believe that temp and wind share 0.500 nats") and "correlation of 0.80" in text
    assert "correlation" not in reach_verdict([row("discrete", 0.5)]).text, "labels have none"
    none = reach_verdict([row("ksg", 0.03)]).text
    assert "no dependence of x and y found; up to 0.112 nats (a correlation of 0.45) is not excluded" in none
    assert "correlation" not in reach_verdict([row("discrete", 0.03)]).text, "labels have none"
    for sure in (row("info_nce", 0.03, error=0.01), row("cca", 0.03, error=0.01)):
        assert "x and y share little or nothing" in reach_verdict([row("ksg", 0.03), sure]).text
    limit = reach_verdict([row("ksg", 5.4, high=math.inf)], ("temp", "wind")).text
    assert "(ksg) are shared by temp and wind" in limit


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.999])
def test_the_correlation_is_that_of_two_normal_variables(rho):
    assert find_correlation(-0.5 * math.log(1 - rho**2)) == pytest.approx(rho, abs=1e-9)


def test_the_verdict_says_its_rule_and_where_a_relation_is_a_curve():
    mean = reach_verdict([row("ksg", 0.5), row("info_nce", 0.52), row("cca", 0.5)]).text
    assert "the mean of ksg and info_nce, whose intervals overlap" in mean and "curve" not in mean
    curve = reach_verdict([row("ksg", 0.5), row("info_nce", 0.52), row("cca", 0.001)]).text
    assert "a curve, not a line: its linear part (cca) is 0.001 nats" in curve and "two normal" not in curve
    limit = reach_verdict([row("ksg", 5.4, high=math.inf), row("cca", 0.0)]).text
    assert "a curve, not a line" in limit
    for cca in (row("cca", 0.2), row("cca", 0.0, error=0.3), row("cca", 0.0, sound=False)):
        assert "curve" not in reach_verdict([row("ksg", 0.5), cca]).text, "above 0, or too wide to tell, or unsound"
    assert "curve" not in reach_verdict([row("ksg", 0.05), row("cca", 0.0)]).text, "nothing may be shared"


def test_doubtful_rows_are_not_believed():
    rows = [row("ksg", 0.5), row("info_nce", 0.52), row("cca", 0.1)]
    verdict = reach_verdict(rows, doubt="the rows are one walk")
    assert verdict.outcome == "dependent rows"
    assert (
        verdict.text == "verdict: do not believe these numbers (ksg 0.500, info_nce 0.520 nats): the rows are one walk"
    )
    assert reach_verdict([row("ksg", math.nan, sound=False)], doubt="the rows are one walk").outcome == "nothing"


def test_the_table_has_no_line_above_100_columns():
    more = dict(standard_error=0.05, ceiling=math.inf, seconds=12.3, samples=20000)
    rows = [
        row("discrete_continuous", 0.5) | more | dict(what="3 neighbours within a label; a lower limit"),
        row("nwj", -374550.4) | more | dict(what="lower bound"),
        row("cca", math.inf) | more | dict(what="linear " * 20),
        row("ksg", math.nan, sound=False) | more | dict(what="none: " + "too few samples " * 10),
    ]
    lines = format_table(rows).splitlines()
    assert max(map(len, lines)) <= 100 and len(lines) > len(rows) + 1
    assert next(line for line in lines if line.startswith("nwj")).split()[1] == "-4e+05"
    assert next(line for line in lines if line.startswith("cca")).split()[1] == "inf"
    assert next(line for line in lines if line.startswith("ksg")).split()[1] == "none:"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([row("ksg", 0.5), row("info_nce", 0.52, error=0.1)], (0.51, 0.3555, 0.6845)),
        ([row("ksg", -0.03, error=0.01)], (0.0, 0.0, 0.0)),
        ([row("ksg", 5.4, high=math.inf)], (None, 5.31775, None)),
        ([row("ksg", 0.5), row("info_nce", 1.5)], (None, 0.41775, None)),
        ([row("ksg", math.nan, sound=False)], (None, None, None)),
    ],
)
def test_the_verdict_has_its_numbers(rows, expected):
    verdict = reach_verdict(rows)
    for number, value in zip((verdict.nats, verdict.low, verdict.high), expected, strict=True):
        assert number == (value if value is None else pytest.approx(value, abs=1e-9))
    doubtful = reach_verdict(rows, doubt="the rows are one walk")
    assert (doubtful.nats, doubtful.low, doubtful.high) == (None, None, None)


@pytest.mark.parametrize(("samples", "part"), [(20, "; give at least 60 (20 now)"), (500, "so many columns (500 now)")])
def test_too_few_rows_are_said(samples, part):
    text = reach_verdict([row("ksg", 0.01, high=math.inf) | {"samples": samples}]).text
    assert text.startswith("verdict: too few rows to say anything") and text.endswith(part)


def test_the_words_of_the_table_are_explained():
    plain = explain_table([row("ksg", 0.5) | {"what": "3 nearest neighbours"}])
    assert plain == "+-: standard error; ceiling: the most a method can show"
    clipped = explain_table([row("smile", 0.5) | {"what": "clipped, no bound"}])
    assert clipped.startswith(f"{plain}; clipped, no bound: ") and len(clipped) <= 100
