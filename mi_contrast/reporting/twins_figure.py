"""A clip's first frame with its twins: a line from each patch to its partner, coloured by nats."""

from __future__ import annotations

import io

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

from mi_contrast.reporting.figures import axis_number, ticks

WIDE, HIGH, FINE = 960, 600, 2  # the most pixels of the frame as drawn; drawn so much larger first, for smooth lines
BAR, EDGE, HEAD = 96, 14, 34  # the colour bar's part, margins, the title's height
DIM = 0.55  # the frame's brightness behind the lines
# Viridis at eleven places: dark and blue is little, light and yellow is much, in grey too.
SCALE = np.array(
    [
        (68, 1, 84),
        (72, 36, 117),
        (65, 68, 135),
        (53, 95, 141),
        (42, 120, 142),
        (33, 145, 140),
        (34, 168, 132),
        (68, 191, 112),
        (122, 209, 81),
        (189, 223, 38),
        (253, 231, 37),
    ]
)


def draw(
    title: str,
    frame: UInt8[np.ndarray, "H W 3"],
    centres: Int[np.ndarray, "P 2"],
    twin: Int[np.ndarray, " P"],
    nats: Float[np.ndarray, " P"],
    accepted: Bool[np.ndarray, " P"],
    *,
    tracked: Bool[np.ndarray, " P"],
    objects: Bool[np.ndarray, "H W"] | None = None,
) -> bytes:
    """A PNG: accepted twins by thick lines, others by faint ones, most nats on top; tracked patches are filled dots,
    others rings; objects, where known, are outlined in white. The colour bar is in nats.

    Args:
      centres: row and column of each patch; twin: its partner's place, its own where it has none; nats: NaN there.
    """
    height, width = frame.shape[:2]
    shown = min(WIDE / width, HIGH / height)
    wide, high = round(shown * width) * FINE, round(shown * height) * FINE
    sheet = Image.fromarray((frame * DIM).astype(np.uint8)).resize((wide, high), Image.Resampling.BICUBIC)
    if objects is not None:
        sheet.paste((255, 255, 255), mask=outline(objects, (wide, high)))
    places = (centres[:, ::-1] + 0.5) * wide / width
    there = np.isfinite(nats) & (twin != np.arange(len(twin)))
    low, top = span(nats[there])
    pen = ImageDraw.Draw(sheet, "RGBA")
    for sure in (False, True):
        for place in np.flatnonzero(there & (accepted == sure))[np.argsort(nats[there & (accepted == sure)])]:
            line = [tuple(places[place]), tuple(places[twin[place]])]
            ink = (*colour(float(nats[place]), low, top), 255 if sure else 130)
            pen.line(line, fill=ink, width=3 * FINE if sure else FINE)
    for place, (x, y) in enumerate(places):
        size = 2.5 * FINE
        box = (x - size, y - size, x + size, y + size)
        if tracked[place]:
            pen.ellipse(box, fill=(255, 255, 255, 230))
        else:
            pen.ellipse(box, outline=(255, 255, 255, 110), width=1)
    return framed(title, sheet, low, top)


def outline(objects: Bool[np.ndarray, "H W"], size: tuple[int, int]) -> Image.Image:
    """Where the edge of the objects runs at that size, two pixels thick as shown, as a mask."""
    inside = Image.fromarray(np.asarray(objects, np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)
    filled = np.asarray(inside) > 127
    shrunk = filled.copy()
    for axis in (0, 1):
        for step in (-FINE, FINE):
            shrunk &= np.roll(filled, step, axis)
    return Image.fromarray((filled & ~shrunk).astype(np.uint8) * 255)


def span(nats: Float[np.ndarray, " n"]) -> tuple[float, float]:
    """The colour bar's ends: 0, or the least where that is below, and the largest; never the same."""
    low, top = (min(0.0, float(nats.min())), float(nats.max())) if len(nats) else (0.0, 1.0)
    return low, max(top, low + 0.1)


def colour(value: float, low: float, top: float) -> tuple[int, int, int]:
    """The colour of so many nats.

    >>> colour(0.0, 0.0, 1.0), colour(2.0, 0.0, 1.0)
    ((68, 1, 84), (253, 231, 37))
    """
    at = np.clip((value - low) / (top - low), 0, 1) * (len(SCALE) - 1)
    red, green, blue = (round(float(np.interp(at, np.arange(len(SCALE)), SCALE[:, c]))) for c in range(3))
    return red, green, blue


def framed(title: str, sheet: Image.Image, low: float, top: float) -> bytes:
    """The PNG of the drawn frame, below its title and beside its colour bar."""
    shown = sheet.resize((sheet.width // FINE, sheet.height // FINE), Image.Resampling.LANCZOS)
    page = Image.new("RGB", (shown.width + 2 * EDGE + BAR, shown.height + HEAD + EDGE), "white")
    page.paste(shown, (EDGE, HEAD))
    pen = ImageDraw.Draw(page)
    words, small = ImageFont.load_default(15), ImageFont.load_default(13)
    pen.text((EDGE, 8), title, fill=(30, 30, 34), font=words)
    left, bottom, first = shown.width + 2 * EDGE + 4, HEAD + shown.height - 1, HEAD + 22
    for y in range(first, bottom + 1):
        value = top - (top - low) * (y - first) / (bottom - first)
        pen.line((left, y, left + 16, y), fill=colour(value, low, top))
    pen.text((left, HEAD - 2), "nats", fill=(30, 30, 34), font=small)
    marks = ticks(low, top, 6)
    for mark in marks:
        level = first + (bottom - first) * (top - mark) / (top - low)
        text = axis_number(mark, marks[1] - marks[0] if len(marks) > 1 else 1.0, "")
        pen.line((left + 16, level, left + 20, level), fill=(90, 90, 96))
        pen.text((left + 24, level), text, fill=(60, 60, 66), font=small, anchor="lm")
    file = io.BytesIO()
    page.save(file, "PNG", optimize=True)
    return file.getvalue()
