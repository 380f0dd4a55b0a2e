"""Writes the scores of a detector as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
MOST = 20  # categories for which the table has a line each
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def as_markdown(result: Mapping[str, Any]) -> str:
    """Returns a table of average precision in %, before and after fitting, and a table of each category's AP.

    A dash means that the test set has no object of that size.
    """
    settings, test = result["settings"], result["test"]
    twin = "untrained twin of " if result["untrained"] else ""
    title = (
        f"Detection ({settings['model']}, {settings['trainable_layers']} of 5 layers trained, "
        f"norms {settings['norm']}) on {result['dataset']}, {test['images']} test images, {result['iterations']} "
        f"iterations of {settings['batch_size']}, {twin}backbone {result['backbone']}, step {result['step']}."
    )
    lines = [["", "when", *COLUMNS], ["---"] * (2 + len(COLUMNS))]
    for kind, ap in result["ap"].items():
        for when in ("start", "end"):
            lines.append([NAMES[kind], when, *(percent(ap[when].get(name)) for name in COLUMNS)])
    classes = [["category", *(f"{NAMES[kind]}, {when}" for kind in result["ap"] for when in ("start", "end"))]]
    classes.append(["---"] * len(classes[0]))
    names = list(next(iter(result["ap"].values()))["end"]["by_category"])
    if len(names) > MOST:
        return f"{title}\n\n{format_table(lines)}\n\nThe .json has the AP of each of the {len(names)} categories.\n"
    for name in names:
        each = [ap[when]["by_category"][name] for ap in result["ap"].values() for when in ("start", "end")]
        classes.append([name.replace("|", "\\|"), *map(percent, each)])
    return f"{title}\n\n{format_table(lines)}\n\n{format_table(classes)}\n"


def format_table(lines: Sequence[Sequence[str]]) -> str:
    """Returns lines of cells in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float | None) -> str:
    """Returns a share as a percentage, or a dash for None.

    >>> percent(0.1234), percent(None)
    ('12.3', '-')
    """
    return "-" if share is None else f"{100 * share:.1f}"
