"""Reads the data of charts out of their Vega-Lite specs, and what Vega draws of them."""

import json
import re
import xml.etree.ElementTree as ElementTree

import vl_convert


def layers(spec):
    """Returns (mark, style, encoding, rows) of every layer of a chart; the rows are those before its transforms."""
    found = []

    def walk(part, name):
        name = part.get("data", {}).get("name", name)
        for child in (*part.get("layer", ()), *part.get("concat", ())):
            walk(child, name)
        if "mark" in part:
            mark = {"type": part["mark"]} if isinstance(part["mark"], str) else part["mark"]
            rows = spec.get("datasets", {}).get(name, part.get("data", {}).get("values"))
            found.append((mark["type"], mark.get("style"), part["encoding"], rows))

    walk(spec, spec.get("data", {}).get("name"))
    return found


def rows_of(chart, mark, style=None):
    """Returns the rows of the one layer with this mark and style."""
    (rows,) = [rows for kind, its, _, rows in layers(chart.to_dict()) if (kind, its) == (mark, style)]
    return rows


def marks(chart, kind):
    """Returns (x, y, item) of every mark of that kind as Vega draws it, with its place on the whole picture."""
    found = []

    def walk(node, x, y):
        for item in node.get("items", ()):
            at = (x + item.get("x", 0), y + item.get("y", 0))
            if node["marktype"] == kind:
                found.append((*at, item))
            if node["marktype"] == "group":
                for child in item.get("items", ()):
                    walk(child, *at)

    walk(vl_convert.vegalite_to_scenegraph(chart.to_dict())["scenegraph"], 0, 0)
    return found


def page_specs(html):
    """Returns the Vega-Lite specs inside a page."""
    return [json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)]


def svg_words(text):
    """Returns every text of an SVG file."""
    return [item.text for item in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
