"""The page of equations names only tests and functions that exist."""

import re
from pathlib import Path

from mi_contrast import estimators as mi

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "mi_contrast" / "estimators" / "README.md").read_text()
TESTS = {
    name
    for file in (ROOT / "tests" / "estimators").glob("test_*.py")
    for name in re.findall(r"def (test_\w+)", file.read_text())
}


def test_every_difference_names_a_test_that_is_there():
    lines = PAGE.split("## Differences")[1].splitlines()
    rows = [line for line in lines if line.startswith("| ") and "tested by" not in line]
    named = [re.findall(r"`(test_\w+)`", row) for row in rows]
    assert len(rows) >= 15
    for row, names in zip(rows, named, strict=True):
        assert names, row
        assert set(names) <= TESTS, row


def test_every_function_named_is_at_the_door():
    named = set(re.findall(r"^\| `(\w+)`", PAGE.split("## Differences")[0], re.M))
    assert len(named) >= 18
    assert [name for name in named if not hasattr(mi, name)] == []
