import math

import pytest

from mi_contrast.reporting.estimates import find_correlation, format_table, reach_verdict


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
        ([row("ksg", 0.01, high=math.inf)], "lower limit", "it is 0"),
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
    assert "x and y share little or nothing" in reach_verdict([row("ksg", 0.03)]).text
    limit = reach_verdict([row("ksg", 5.4, high=math.inf)], ("temp", "wind")).text
    assert "(ksg) are shared by temp and wind" in limit


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.999])
def test_the_correlation_is_that_of_two_normal_variables(rho):
    assert find_correlation(-0.5 * math.log(1 - rho**2)) == pytest.approx(rho, abs=1e-9)


def test_the_verdict_says_its_rule_and_where_a_relation_is_a_curve():
    mean = reach_verdict([row("ksg", 0.5), row("info_nce", 0.52), row("cca", 0.5)]).text
    assert "the mean of ksg and info_nce, which agree" in mean and "curve" not in mean
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
