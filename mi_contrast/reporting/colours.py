"""The colours of pages and charts, for light and dark screens, and the Vega-Lite theme made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Colours c1 to c8 tell curves and settings apart; c0 is that of ceilings.
LIGHT = {
    "page": "#f6f5f2", "card": "#ffffff", "ink": "#1b1d21", "soft": "#5d636e", "faint": "#767c87", "rule": "#e4e1da",
    "grid": "#ecebe6", "track": "#e7e5df", "bad": "#c0262d", "c0": "#767c87", "c1": "#2459c4", "c2": "#c8641b",
    "c3": "#14806a", "c4": "#9a3f8f", "c5": "#a07d00", "c6": "#0f7fa8", "c7": "#b03a5b", "c8": "#5b6b1f",
}  # fmt: skip
DARK = {
    "page": "#131519", "card": "#1b1e24", "ink": "#e9e7e3", "soft": "#a9afba", "faint": "#8b929e", "rule": "#2b2f37",
    "grid": "#262a32", "track": "#2b2f37", "bad": "#ff6b6b", "c0": "#8b929e", "c1": "#82a8ff", "c2": "#f0a061",
    "c3": "#55c8ab", "c4": "#dd8fd2", "c5": "#d9bd4f", "c6": "#6cc3e6", "c7": "#f08aa6", "c8": "#b3c56b",
}  # fmt: skip
VARIABLES = {name: f"var(--{name})" for name in LIGHT}  # resolved by the CSS of `write_css` in a page or an SVG file
CATEGORIES = tuple(name for name in LIGHT if name[0] == "c" and name[1:].isdigit() and name != "c0")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
SMALLEST = 12  # pixels of the smallest text of any chart


def write_css() -> str:
    """Returns the CSS that defines every colour as a variable, with the dark ones where the reader prefers them."""
    light, dark = ("".join(f"--{name}:{value};" for name, value in scheme.items()) for scheme in (LIGHT, DARK))
    return f":root{{color-scheme:light dark;{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def theme(colours: Mapping[str, str]) -> dict[str, Any]:
    """Returns the Vega-Lite config of every chart in these colours.

    Args:
      colours: LIGHT or DARK for a picture, VARIABLES where CSS resolves them.
    """
    text = {"labelFontSize": SMALLEST, "titleFontSize": SMALLEST, "titleFontWeight": 500}
    return {
        "background": colours["card"],
        "font": FONT,
        "locale": {"number": {"decimal": ".", "thousands": ",", "grouping": [3], "currency": ["", ""],
                              "percent": "\N{NARROW NO-BREAK SPACE}%"}},
        "view": {"stroke": None},
        "range": {"category": [colours[name] for name in CATEGORIES]},
        "title": {"anchor": "start", "fontSize": 15, "fontWeight": 600, "color": colours["ink"],
                  "subtitleFontSize": SMALLEST, "subtitleColor": colours["soft"], "subtitlePadding": 4, "offset": 12},
        "axis": {**text, "labelColor": colours["faint"], "titleColor": colours["soft"], "domain": False,
                 "ticks": False, "gridColor": colours["grid"], "labelPadding": 6, "labelOverlap": "greedy"},
        # A label at the top of an axis would push its panel's title above those beside it.
        "axisYQuantitative": {"labelFlush": True},
        "legend": {**text, "labelColor": colours["soft"], "titleColor": colours["soft"], "orient": "top",
                   "title": None, "symbolStrokeWidth": 2, "columnPadding": 16, "labelLimit": 240, "symbolOpacity": 1},
        "header": {**text, "labelColor": colours["ink"], "titleColor": colours["soft"]},
        "text": {"fontSize": SMALLEST, "color": colours["soft"]},
        "style": {
            "ceiling": {"color": colours["c0"]},
            "hover": {"color": colours["faint"]},
            "bad": {"color": colours["bad"]},
            "first": {"color": colours["c1"]},
            "second": {"color": colours["c2"]},
            "halo": {"color": colours["card"], "stroke": colours["card"]},
            "soft": {"color": colours["soft"]},
            "rail": {"color": colours["rule"]},
            "ink": {"color": colours["ink"]},
        },
    }  # fmt: skip
