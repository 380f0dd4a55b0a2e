import math

import numpy as np
import pytest

from mi_contrast.reporting import story
from mi_contrast.reporting.run import Curve, read_run
from tests.reporting.fake import make_run
from tests.reporting.specs import layers, rows_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return read_run(make_run(tmp_path_factory.mktemp("story") / "run"))


def plain(text):
    return text.replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_headlines_go_from_first_to_last_of_their_ceiling(run):
    cards = {card.title: card for card in story.cards(run)}
    card = cards["Mutual information"]
    assert (card.first, plain(card.last), plain(card.of)) == ("0.35", "4.13 nats", "of at most log 1,024 = 6.93 nats")
    np.testing.assert_allclose(card.meter, (0.35 / math.log(1024), run.curves["mi_nats"].last / math.log(1024)))
    assert plain(cards["kNN accuracy"].of) == "+38.3 points over untrained"
    assert "Training objective" in cards and "Linear probe" in cards


@pytest.mark.parametrize(
    ("share", "gap", "says"),
    [
        (1.0, 0.0, "a lower bound"),
        (0.96, 0.4, "For 4.0 % of anchors"),
        (0.6, -0.1, "easier than the pool on average"),
        (1.0, -0.1, "easier than the pool on average"),
        (None, 0.2, "Nothing was logged"),
        (0.9, math.nan, "Nothing was logged"),
    ],
)
def test_the_verdict_claims_a_bound_only_where_there_is_one(share, gap, says):
    sentence = plain(story.bound_sentence(share, gap))
    assert says in sentence
    assert ("lower bound" in sentence) == (share == 1.0 and gap == 0.0)


def test_metrics_that_never_moved_are_words_not_charts(run):
    found = {title: (charts, still) for title, charts, still in story.sections(run)}
    charts, still = found["The machine"]
    assert still == ["temperature 0.1", "bad steps 0"]
    assert [chart.title for chart in charts] == ["Learning rate", "Speed", "Gradient norm"]


def test_a_moving_ceiling_is_a_line_and_a_fixed_one_a_level(run):
    charts = {chart.title: chart for _, charts, _ in story.sections(run) for chart in charts}
    moving, fixed = (
        rows_of(charts[name].chart, "line", "ceiling") for name in ("Training objective", "Mutual information")
    )
    moving, fixed = ([row for row in rows if row["name"] == "ceiling"] for rows in (moving, fixed))
    logged = run.curves["objective_ceiling"]
    assert [(row["step"], row["value"]) for row in moving] == list(zip(logged.steps, logged.values, strict=True))
    assert [(row["step"], row["value"]) for row in fixed] == [(step, math.log(1024)) for step in range(0, 3001, 500)]
    assert charts["Mutual information"].legend[-1] == ("ceiling", story.say_ceiling(math.log(1024)), 0)
    assert rows_of(charts["Accuracy"].chart, "rule") == [
        {"name": "kNN", "value": 0.41},
        {"name": "linear probe", "value": 0.102},
    ]
    assert [plain(remark) for remark in charts["Accuracy"].remarks] == [
        "kNN at step 0: 41.0 %",
        "linear probe at step 0: 10.2 %",
    ]
    for chart in charts.values():
        line = next(encoding for mark, _, encoding, _ in layers(chart.chart.to_dict()) if mark == "line")
        assert line["x"]["scale"]["domain"] == [0, 3000]
        starts = [rows for mark, style, _, rows in layers(chart.chart.to_dict()) if (mark, style) == ("rule", "hover")]
        assert starts[0] == [{"step": 1500}]


def test_the_rows_of_a_chart_are_the_rows_of_the_run(run):
    (figure,) = (figure for _, figures, _ in story.sections(run) for figure in figures if figure.title == "Accuracy")
    rows = rows_of(figure.chart, "line")
    for name, metric in (("kNN", "knn_top1"), ("linear probe", "probe_top1")):
        drawn = [(row["step"], row["value"]) for row in rows if row["name"] == name]
        assert drawn == list(zip(run.curves[metric].steps, run.curves[metric].values, strict=True))


def test_unknown_metrics_are_shown_too(tmp_path):
    rows = [{"step": s, "seconds": s, "my_metric": s * 0.5} for s in (1, 2)]
    found = list(story.sections(read_run(make_run(tmp_path / "run", whole=False, metrics=rows))))
    assert [(title, charts[0].title) for title, charts, _ in found] == [("Everything else", "my metric")]


def test_constant_means_several_points_of_one_finite_value():
    steps = np.arange(2)
    assert story.is_constant(Curve(steps, np.array([2.0, 2.0])))
    assert not story.is_constant(Curve(steps, np.array([2.0, 2.1])))
    assert not story.is_constant(Curve(steps, np.array([np.nan, np.nan])))
    assert not story.is_constant(Curve(steps[:1], np.array([2.0])))
