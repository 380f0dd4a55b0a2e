import csv
import io
import xml.etree.ElementTree as ElementTree

from mi_contrast.reporting.transfer import as_csv, as_markdown, write_tables
from mi_contrast.reporting.transfer_figure import _x, draw


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


def test_the_figure_places_every_number():
    drawn = draw(result_of(ROWS))
    tree = ElementTree.fromstring(drawn)
    circles = [c for c in tree.iter("{http://www.w3.org/2000/svg}circle") if c.get("class") in ("trained", "untrained")]
    places = {(c.get("class"), c.get("cx")) for c in circles[:2]}
    assert places == {("trained", f"{_x(0.625):.1f}"), ("untrained", f"{_x(0.5):.1f}")}
    assert "prefers-color-scheme: dark" in drawn and "<script" not in drawn and "birds &amp; co" in drawn


def test_files_lie_beside_the_result(tmp_path):
    written = write_tables(result_of(ROWS), tmp_path / "transfer-linear.json")
    assert [p.name for p in written] == [f"transfer-linear.{suffix}" for suffix in ("csv", "md", "svg")]
    assert all(p.stat().st_size > 100 for p in written)
