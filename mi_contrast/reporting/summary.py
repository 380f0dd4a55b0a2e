"""A run in a few lines of HTML, for notebooks."""

from __future__ import annotations

import html

from mi_contrast.reporting import story
from mi_contrast.reporting.held_out import as_data_url
from mi_contrast.reporting.run import Run


def write_summary(run: Run, title: str) -> str:
    """Returns HTML of a run: a title, its headline numbers, and the picture of its views if it has one.

    Args:
      title: HTML.
    """
    rows = []
    for card in story.cards(run):
        first = f"{html.escape(card.first)} &rarr; " if card.first else ""
        pale = ' style="opacity:.5"' if card.pale else ""
        cells = f"<td>{first}<b>{html.escape(card.last)}</b></td><td>{html.escape(card.of)}</td>"
        rows.append(f'<tr{pale}><td style="text-align:left">{html.escape(card.title)}</td>{cells}</tr>')
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    few = story.explain_few(run)
    table += f"<p>{html.escape(few)}</p>" if few else ""
    pictures = dict(run.pictures)
    picture = ""
    if "pairs" in pictures:
        source = as_data_url(pictures["pairs"], "png")
        picture = f'<img src="{source}" alt="pairs of views" style="max-width:100%;image-rendering:pixelated">'
    return f"<div><code>{title}</code>{table}{picture}</div>"
