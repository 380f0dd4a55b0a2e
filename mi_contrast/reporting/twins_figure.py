"""Draws a clip's first frame with its twins: a line from each patch to its partner, coloured by nats."""

from __future__ import annotations

import base64
import io
from typing import Any

import altair as alt
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image

from mi_contrast.reporting import charts

WIDE, HIGH = 960, 600  # the most pixels of the frame as drawn
DIM = 0.55  # the frame's brightness behind the lines


def chart(
    title: str,
    frame: UInt8[np.ndarray, "H W 3"],
    centres: Int[np.ndarray, "P 2"],
    twin: Int[np.ndarray, " P"],
    nats: Float[np.ndarray, " P"],
    accepted: Bool[np.ndarray, " P"],
    *,
    tracked: Bool[np.ndarray, " P"],
    objects: Bool[np.ndarray, "H W"] | None = None,
) -> alt.LayerChart:
    """Returns the frame with its twins. Accepted twins have thick lines, others thin ones; most nats lie on top.

    Args:
      frame: RGB.
      centres: row and column of each patch.
      twin: the index of each patch's partner; its own where it has none.
      nats: what the two motions share; NaN where it is unknown.
      accepted: whether the test accepts the twin.
      tracked: whether the patch was followed to the end: tracked patches are dots, others rings.
      objects: the pixels of objects, outlined in white.
    """
    height, width = frame.shape[:2]
    scale = min(WIDE / width, HIGH / height)
    size = (round(width * scale), round(height * scale))
    x, y = (
        alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.5, width - 0.5], nice=False)),
        alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[height - 0.5, -0.5], nice=False)),
    )
    patches = [
        {"patch": i, "y": int(row), "x": int(column), "tracked": bool(tracked[i])}
        for i, (row, column) in enumerate(centres)
    ]
    layers: list[Any] = [
        alt.Chart(alt.InlineData(values=[{"url": _data_url(backdrop(frame, objects, size))}]))
        .mark_image(width=size[0], height=size[1], aspect=False)
        .encode(url="url:N", x=alt.XValue(size[0] / 2), y=alt.YValue(size[1] / 2))
    ]
    colour = alt.Color(
        "nats:Q",
        scale=alt.Scale(scheme="viridis", domain=span(nats[np.isfinite(nats)])),
        legend=alt.Legend(title="nats", orient="right", gradientOpacity=1, gradientLength=size[1] - 24),
    )
    rows = twin_rows(centres, twin, nats, accepted)
    for sure, width_of_line, opacity in ((False, 1, 0.5), (True, 3, 1)):
        lines = alt.Chart(alt.InlineData(values=[row for row in rows if row["accepted"] is sure]))
        lines = lines.mark_rule(strokeWidth=width_of_line, opacity=opacity)
        layers.append(lines.encode(x=x, y=y, x2="x2:Q", y2="y2:Q", color=colour))
    for known, filled, opacity in ((True, True, 0.9), (False, False, 0.45)):
        dots = alt.Chart(alt.InlineData(values=[row for row in patches if row["tracked"] is known]))
        dots = dots.mark_point(color="white", filled=filled, size=22, strokeWidth=1, opacity=opacity)
        layers.append(dots.encode(x=x, y=y))
    whole = alt.layer(*layers).properties(width=size[0], height=size[1], title=title)
    return charts.finish(whole)


def twin_rows(centres: np.ndarray, twin: np.ndarray, nats: np.ndarray, accepted: np.ndarray) -> list[dict[str, Any]]:
    """Returns a row for each patch that has a twin: both centres, nats, accepted; the row with most nats comes last."""
    matched = np.flatnonzero(np.isfinite(nats) & (twin != np.arange(len(twin))))
    return [
        {
            "y": int(centres[i, 0]),
            "x": int(centres[i, 1]),
            "y2": int(centres[twin[i], 0]),
            "x2": int(centres[twin[i], 1]),
            "nats": float(nats[i]),
            "accepted": bool(accepted[i]),
        }
        for i in matched[np.argsort(nats[matched])]
    ]


def backdrop(frame: np.ndarray, objects: np.ndarray | None, size: tuple[int, int]) -> Image.Image:
    """Returns the frame, darkened, at that width and height, with the objects outlined in white."""
    image = Image.fromarray((frame * DIM).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    if objects is not None:
        image.paste((255, 255, 255), mask=outline(objects, size))
    return image


def outline(objects: Bool[np.ndarray, "H W"], size: tuple[int, int]) -> Image.Image:
    """Returns a mask of the objects' edge at that width and height, two pixels thick."""
    inside = Image.fromarray(np.asarray(objects, np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    filled = np.asarray(inside) > 127
    shrunk = filled.copy()
    for axis in (0, 1):
        for step in (-1, 1, -2, 2):
            shrunk &= np.roll(filled, step, axis)
    return Image.fromarray((filled & ~shrunk).astype(np.uint8) * 255)


def span(nats: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """Returns the ends of the colour scale: 0, or the least value if that is below, and the largest; never the same."""
    low, top = (min(0.0, float(nats.min())), float(nats.max())) if len(nats) else (0.0, 1.0)
    return low, max(top, low + 0.1)


def _data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
