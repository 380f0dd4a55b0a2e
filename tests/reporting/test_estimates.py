import math

import pytest

from mi_contrast.reporting.estimates import find_correlation, reach_verdict


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
