"""A transfer as a figure: a row a set; the backbone a dot, its untrained twin a circle, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from markupsafe import escape

from mi_contrast.reporting.figures import svg_text
from mi_contrast.reporting.words import count

WIDTH, MARGIN, LEFT, RIGHT = 860.0, 24.0, 262.0, 92.0
HEAD, ROW, FOOT = 82.0, 34.0, 62.0
STYLE = """
.transfer { color-scheme: light dark; --card: #ffffff; --ink: #1b1d21; --soft: #5d636e; --faint: #8b919b;
  --rule: #e4e1da; --grid: #ecebe6; --stripe: #f8f7f4; --c1: #2459c4; --c2: #c8641b; }
@media (prefers-color-scheme: dark) { .transfer { --card: #1b1e24; --ink: #e9e7e3; --soft: #a9afba; --faint: #7c838f;
  --rule: #2b2f37; --grid: #262a32; --stripe: #20242b; --c1: #82a8ff; --c2: #f0a061; } }
.transfer text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  fill: var(--ink); }
.transfer text.h1 { font-size: 15px; font-weight: 620; }
.transfer text.facts { font-size: 12px; fill: var(--soft); }
.transfer text.tick { font-size: 11.5px; fill: var(--faint); font-variant-numeric: tabular-nums; }
.transfer text.value { font-weight: 620; font-variant-numeric: tabular-nums; }
.transfer .card { fill: var(--card); stroke: var(--rule); }
.transfer .stripe { fill: var(--stripe); }
.transfer path { fill: none; stroke-linecap: round; }
.transfer .grid { stroke: var(--grid); }
.transfer .trained { stroke: var(--c1); stroke-width: 2.2; }
.transfer circle.trained { fill: var(--c1); }
.transfer .untrained { stroke: var(--c2); stroke-width: 1.8; }
.transfer circle.untrained { fill: var(--card); }
.transfer .chance { stroke: var(--soft); stroke-width: 1.4; stroke-dasharray: 2 2; stroke-linecap: butt; }
"""


def draw(result: Mapping[str, Any]) -> str:
    """The figure as a whole SVG file, without script, that carries its colours for light and dark."""
    rows = result["rows"]
    bottom = HEAD + ROW * len(rows)
    height = bottom + FOOT
    by = ", ".join(str(result["by"][name]) for name in ("kind", "solver", "by") if name in result["by"])
    body = [
        svg_text("h1", MARGIN, 34, f"Transfer by {by}"),
        svg_text("facts", MARGIN, 54, f"top-1 on the test split and its 95 % interval; images at {result['size']} px"),
    ]
    for i in range(0, len(rows), 2):
        place = f'x="{MARGIN - 8:.0f}" y="{HEAD + ROW * i:.0f}" width="{WIDTH - 2 * MARGIN + 16:.0f}"'
        body.append(f'<rect class="stripe" {place} height="{ROW:.0f}" rx="4"/>')
    for mark in range(0, 101, 20):
        body.append(f'<path class="grid" d="M{_x(mark / 100):.1f} {HEAD:.0f}V{bottom:.0f}"/>')
        body.append(svg_text("tick", _x(mark / 100), bottom + 16, f"{mark} %", "middle"))
    for i, row in enumerate(rows):
        body += _row(row, HEAD + ROW * (i + 0.5))
    body += _legend(bottom + 44, any("untrained" in row for row in rows))
    size = f'viewBox="0 0 {WIDTH:.0f} {height:.0f}" width="{WIDTH:.0f}" height="{height:.0f}"'
    said = f"Transfer by {by} to {len(rows)} sets: top-1 with 95 % intervals"
    head = f'<svg class="transfer" xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{escape(said)}">'
    card = f'<rect class="card" x=".5" y=".5" width="{WIDTH - 1:.0f}" height="{height - 1:.0f}" rx="10"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", card, *body, "</svg>\n"])


def name_of(row: Mapping[str, Any]) -> str:
    """The set as a reader knows it: of a folder its last part."""
    return str(row["dataset"]).removeprefix("folder:").rstrip("/").rpartition("/")[2]


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * share


def _row(row: Mapping[str, Any], y: float) -> Iterator[str]:
    yield svg_text("row", MARGIN, y - 2, name_of(row))
    if "missing" in row:
        yield svg_text("facts", MARGIN, y + 12, f"{row['classes']} classes")
        yield svg_text("facts", LEFT, y + 4, "missing")
        return
    sizes = (
        f"{row['classes']} classes, {count(row['fit']['examples'])} to fit, {count(row['test']['examples'])} to test"
    )
    yield svg_text("facts", MARGIN, y + 12, sizes)
    yield f'<path class="chance" d="M{_x(row["chance"]):.1f} {y - 11:.1f}v22"><title>chance</title></path>'
    both = "untrained" in row
    if both:
        yield from _mark("untrained", row["untrained"], y + 6)
    yield from _mark("trained", row["trained"], y - 5 if both else y)
    yield svg_text("value", WIDTH - MARGIN, y + 4.5, f"{100 * row['trained']['top1']:.1f} %", "end")


def _mark(which: str, found: Mapping[str, Any], y: float) -> Iterator[str]:
    low, high = found["interval95"]
    said = f"{which}: {100 * found['top1']:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    yield f"<g><title>{said}</title>"
    yield f'<path class="{which}" d="M{_x(low):.1f} {y:.1f}H{max(_x(high), _x(low) + 1):.1f}"/>'
    yield f'<circle class="{which}" cx="{_x(found["top1"]):.1f}" cy="{y:.1f}" r="4.2"/></g>'


def _legend(y: float, twins: bool) -> Iterator[str]:
    x = MARGIN
    entries: list[tuple[str, str, Callable[[float], str]]] = [("trained", "trained", _dot("trained"))]
    entries += [("untrained", "its untrained twin", _dot("untrained"))] if twins else []
    entries += [("chance", "chance", lambda at: f'<path class="chance" d="M{at + 10:.1f} {y - 8:.1f}v16"/>')]
    for _, text, mark in entries:
        yield mark(x).replace("{y}", f"{y:.1f}")
        yield svg_text("facts", x + 28, y + 4.5, text)
        x += 28 + 6.6 * len(text) + 26


def _dot(which: str) -> Callable[[float], str]:
    return lambda at: (
        f'<path class="{which}" d="M{at:.1f} {{y}}h20"/><circle class="{which}" cx="{at + 10:.1f}" cy="{{y}}" r="4.2"/>'
    )
