"""Writes charts as SVG, as PNG and as parts of a page, without a network."""

from __future__ import annotations

import functools
import importlib.metadata
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import write_text
from mi_contrast.reporting.colours import LIGHT, VARIABLES, theme, write_css

PADDING = 18  # pixels around the chart of a file

# A decorator. Altair validates every part of a chart as it is made, which takes seconds a page, so functions that make
# whole pages go without; the tests validate the same charts.
unvalidated = debug_mode(False)


def page_spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Returns the Vega-Lite spec of a chart in a page: as wide as its element, its legend and colours the page's."""
    spec = chart.to_dict(validate=False) | {"width": "container", "background": "transparent"}
    return {name: part for name, part in spec.items() if name not in ("config", "$schema")}


def split_rows(spec: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns a page's spec without its data sets, and the data sets by name, which several charts can then share."""
    return {name: part for name, part in spec.items() if name != "datasets"}, dict(spec.get("datasets", {}))


def page_config() -> dict[str, Any]:
    """Returns the Vega-Lite config of every chart in a page, which writes the legends of curves itself."""
    config = theme(VARIABLES)
    return config | {"background": "transparent", "legend": config["legend"] | {"disable": True}}


def as_svg(chart: alt.TopLevelMixin) -> str:
    """Returns the chart as an SVG file that follows the reader's light or dark scheme."""
    svg = vl_convert.vegalite_to_svg(_file_spec(chart, VARIABLES))
    opening, closing, rest = svg.partition(">")
    return f"{opening}{closing}<style>{write_css()}</style>{rest}\n"


def as_png(chart: alt.TopLevelMixin, scale: float = 2.0) -> bytes:
    """Returns the chart as a PNG in light colours, with `scale` pixels a unit."""
    return vl_convert.vegalite_to_png(_file_spec(chart, LIGHT), scale=scale)


def _file_spec(chart: alt.TopLevelMixin, colours: Mapping[str, str]) -> dict[str, Any]:
    return {"padding": PADDING} | chart.to_dict(validate=False) | {"config": theme(colours)}


@functools.cache
def javascript() -> str:
    """Returns Vega, Vega-Lite and Vega-Embed as one script, some 900 kB, the same for every page.

    Bundling takes four seconds, so the script is kept in the user's cache folder.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mi_contrast"
    file = folder / f"vega-{importlib.metadata.version('vl-convert-python')}.js"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    with suppress(OSError, UserError):  # a cache that cannot be written costs four seconds and nothing else
        write_text(file, script)
    return script
