"""The figures of the studies show the numbers of the tables on their pages."""

import re

import pytest

from docs import draw_figures
from tests.docs.blocks import DOCS

PAGES = sorted(path.stem for path in (DOCS / "studies").glob("*.md") if path.stem != "index")
WITHOUT = {"views"}  # its runs had one seed, and the page says all of them in a sentence


def numbers_of(chart):
    """Returns every number in the rows that a chart draws."""
    text = str(chart.to_dict(validate=False))
    return {round(float(n), 6) for n in re.findall(r"(?<=: )-?\d+\.?\d*(?=[,}])", text)}


def test_every_study_has_a_figure():
    assert set(draw_figures.DRAWINGS) == set(PAGES) - WITHOUT
    for page in draw_figures.DRAWINGS:
        assert f"(figures/{page}.svg)" in (DOCS / "studies" / f"{page}.md").read_text()
        assert (DOCS / "studies" / "figures" / f"{page}.svg").stat().st_size < 300_000


@pytest.mark.parametrize("page", draw_figures.DRAWINGS)
def test_the_stored_figure_names_every_setting(page):
    chart = draw_figures.DRAWINGS[page]().to_dict(validate=False)
    settings = set(re.findall(r"'setting': '([^']+)'", str(chart)))
    assert len(settings) >= 5
    stored = (draw_figures.FIGURES / f"{page}.svg").read_text()
    words = {word for name in settings for word in re.findall(r"\w+", name)}
    assert {word for word in words if word not in stored} == set()


def test_numbers_are_those_of_the_table():
    assert {0.430, 0.424, 0.435, 0.263, 0.286, 0.257} <= numbers_of(draw_figures.DRAWINGS["methods"]())
    assert {0.754, 0.701, 0.790} <= numbers_of(draw_figures.DRAWINGS["negatives"]())
    assert {2.44, 0.411, 0.406, 0.418} <= numbers_of(draw_figures.DRAWINGS["strengths"]())
    assert draw_figures.read_number("43.0 % (42.4 to 43.5)") == (0.430, 0.424, 0.435)
    assert draw_figures.read_number("-.62") == (-0.62, None, None)
    assert draw_figures.read_number("67.6 %, 62.8 %") is None
