"""The HTML pages' templates, and the text that both pages share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from mi_contrast.core import schedules
from mi_contrast.reporting import colours, drawing, glossary


def render(name: str, **values: Any) -> str:
    """Returns the HTML page of the template `name`, self-contained: charts, scripts and styles are embedded."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["spec"] = drawing.page_spec
    environment.filters["explain"] = glossary.explain
    environment.filters["without_rows"] = lambda spec: drawing.split_rows(spec)[0]
    environment.filters["rows_of_all"] = collect_rows
    page = {"script": drawing.javascript(), "chart_config": drawing.page_config(), "css": colours.write_css()}
    return environment.get_template(name).render(**page, **values)


def collect_rows(figures: Sequence[Any]) -> dict[str, Any]:
    """Returns the data sets of all these figures by name; charts of the same rows share one."""
    return {name: rows for f in figures for name, rows in drawing.split_rows(drawing.page_spec(f.chart))[1].items()}


def say(item: Any) -> str:
    """Returns a config's value in words; a schedule is 'linear(a=0, b=0.9, start=0, end=0.5)'."""
    if is_schedule(item):
        return f"{item['kind']}({', '.join(f'{n}={say(v)}' for n, v in item.items() if n != 'kind')})"
    if isinstance(item, Mapping):
        return ", ".join(f"{n} {say(v)}" for n, v in item.items()) or "none"
    if isinstance(item, (list, tuple)):
        return "(" + ", ".join(say(v) for v in item) + ")"
    if isinstance(item, bool) or item is None:
        return {True: "yes", False: "no", None: "none"}[item]
    return f"{item:g}" if isinstance(item, float) else str(item)


def is_schedule(item: Any) -> bool:
    """Returns whether the config's value is a schedule."""
    return isinstance(item, Mapping) and item.get("kind") in schedules.FIELDS
