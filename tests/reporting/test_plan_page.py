"""The page of a plan has what the plan has, and draws it."""

import re
from html import unescape

import pytest

from mi_contrast.reporting import plan_charts, plan_page, words
from tests.reporting.fake_plan import GIB, make_plan, make_prediction
from tests.reporting.specs import page_specs


def read_words(html):
    body = html.partition("<main>")[2].partition("</main>")[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_page_tells_what_was_predicted():
    html = plan_page.render(make_plan())
    text = read_words(html).replace(words.THIN, " ")
    assert "Predicted by compiling, not measured." in text and html.count("<h1>") == 1
    for what in (
        *("9.2 GiB of 16 GiB", "154 ms", "up to 209 ms", "bandwidth", "no float64", "2 float32 convolution"),
        *("1 in loops of assumed length", "kernels: 5,301", "does not compile", "20.5 GiB", "197 TFLOP/s"),
    ):
        assert what in text, what
    assert "jit(step)/&lt;conv&gt;" in html  # names of the program are text, not markup
    assert len(page_specs(html)) == 2
    assert re.search(r"The estimator's share ([\d.]+) %", text)[1] == "2.4"  # (209 - 204) / 209


def test_a_plan_that_does_not_compile_has_a_page():
    failing = make_prediction(reason="the compiler stopped")
    text = read_words(
        plan_page.render(make_plan(predictions=[failing], estimator={"reason": "the step does not compile"}))
    )
    assert "It does not compile: the compiler stopped." in text and "Judged" not in text


def test_the_rows_of_the_charts_are_the_plans():
    predictions = make_plan()["predictions"]
    rows = {(row["slice"], row["kind"]): row["gib"] for row in plan_charts.memory_rows(predictions)}
    assert rows["v5e:4x4", "weights and optimiser"] == pytest.approx(3 * 94 / 1024)
    assert rows["v5e:4x4", "activations and temporaries"] == pytest.approx(8.8)
    assert sum(size for (name, _), size in rows.items() if name == "v5e:2x2") == pytest.approx(20.5)
    terms = {(row["slice"], row["term"]): row["ms"] for row in plan_charts.term_rows(predictions)}
    assert terms == pytest.approx(
        {("v5e:4x4", "compute"): 54, ("v5e:4x4", "bandwidth"): 154, ("v5e:4x4", "network"): 1}
    )


def test_charts_are_valid():
    predictions = make_plan()["predictions"]
    for draw in (plan_charts.draw_memory, plan_charts.draw_terms):
        assert draw(predictions).to_dict(validate=True)["layer"]


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (9.2 * GIB, "9.2 GiB"),
        (151 * 2**20, "151 MiB"),
        (2**45, "32 TiB"),
    ],
)
def test_bytes_in_words(value, text):
    assert words.size(value).replace(words.THIN, " ") == text


@pytest.mark.parametrize("seconds, text", [(1.2e-6, "1.2 µs"), (0.154, "154 ms"), (2.1, "2.1 s"), (200, "3 min 20 s")])
def test_short_times_in_words(seconds, text):
    assert words.interval(seconds).replace(words.THIN, " ") == text
