import csv
import io

from mi_contrast.reporting.charts import WIDTH, draw_accuracies
from mi_contrast.reporting.transfer import accuracy_rows, as_csv, as_markdown, as_svg, write_tables
from tests.reporting.specs import marks, svg_words


def result_of(rows):
    return dict(task="transfer", by=dict(kind="linear", solver="lbfgs"), backbone="runs/x", step=3, size=32, rows=rows)


ROWS = [
    dict(
        dataset="folder:/data/birds & co",
        classes=4,
        chance=0.25,
        label="label",
        fit=dict(split="train", examples=1200),
        test=dict(split="test", examples=60),
        trained=dict(top1=0.625, interval95=(0.5, 0.73)),
        untrained=dict(top1=0.5, interval95=(0.37, 0.63)),
    ),
    dict(dataset="signs", classes=7, missing="signs is not in /there"),
]


def test_the_table_says_what_the_result_says():
    first, second = csv.DictReader(io.StringIO(as_csv(result_of(ROWS))))
    assert first["top1"] == "0.625" and first["untrained_high"] == "0.63" and first["fit_examples"] == "1200"
    assert second["missing"] == "signs is not in /there" and second["top1"] == ""
    table = as_markdown(result_of(ROWS))
    expected = (
        "| birds & co | 4 | train, 1,200 | test, 60 | 62.5 (50.0 to 73.0) | 50.0 (37.0 to 63.0) | +12.5\u202fpoints |"
    )
    assert expected in table.splitlines()
    assert "missing: signs is not in /there" in table
    lengths = {line.count("|") for line in table.splitlines() if line.startswith("|")}
    assert lengths == {8}
    assert "untrained" not in as_markdown(result_of([{k: v for k, v in ROWS[0].items() if k != "untrained"}]))


def test_the_chart_has_every_number():
    judged = {"name": "birds & co, 4 classes", "chance": 0.25}
    assert list(accuracy_rows(result_of(ROWS))) == [
        {**judged, "kind": "trained", "top1": 0.625, "low": 0.5, "high": 0.73},
        {**judged, "kind": "untrained", "top1": 0.5, "low": 0.37, "high": 0.63},
        {"name": "signs, 7 classes", "kind": "trained", "missing": "missing"},
    ]
    drawn = as_svg(result_of(ROWS))
    assert {"birds & co, 4 classes", "signs, 7 classes: missing"} <= set(svg_words(drawn))
    assert "prefers-color-scheme:dark" in drawn and "<script" not in drawn and "birds &amp; co" in drawn


def test_a_set_lies_where_its_shares_are():
    points = [(x, item) for x, _, item in marks(draw_accuracies(accuracy_rows(result_of(ROWS))), "symbol")]
    assert sorted(round(x - points[0][0], 3) for x, _ in points) == [0, round(0.125 * WIDTH, 3)]


def test_files_lie_beside_the_result(tmp_path):
    written = write_tables(result_of(ROWS), tmp_path / "transfer-linear.json")
    assert [p.name for p in written] == [f"transfer-linear.{suffix}" for suffix in ("csv", "md", "svg")]
    assert all(p.stat().st_size > 100 for p in written)
