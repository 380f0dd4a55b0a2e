"""The scores as a Markdown table: a line a kind of prediction, at the start and at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
MOST = 20  # categories that a table has lines for
COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def as_markdown(result: Mapping[str, Any]) -> str:
    """Average precision in %, - where nothing of that size is there; then AP of each category."""
    how, test = result["settings"], result["test"]
    which = "untrained twin of " if result["untrained"] else ""
    title = (
        f"Detection ({how['model']}, {how['trainable_layers']} of 5 layers trained, norms {how['norm']}) on "
        f"{result['dataset']}, {test['images']} test images, {result['iterations']} iterations of {how['batch_size']}, "
        f"{which}backbone {result['backbone']}, step {result['step']}."
    )
    lines = [["", "when", *COLUMNS], ["---"] * (2 + len(COLUMNS))]
    for kind, ap in result["ap"].items():
        for when in ("start", "end"):
            lines.append([NAMES[kind], when, *(percent(ap[when].get(name)) for name in COLUMNS)])
    classes = [["category", *(f"{NAMES[kind]}, {when}" for kind in result["ap"] for when in ("start", "end"))]]
    classes.append(["---"] * len(classes[0]))
    names = list(next(iter(result["ap"].values()))["end"]["by_category"])
    if len(names) > MOST:
        return f"{title}\n\n{table_of(lines)}\n\nAP of each of the {len(names)} categories is in the .json beside.\n"
    for name in names:
        each = [ap[when]["by_category"][name] for ap in result["ap"].values() for when in ("start", "end")]
        classes.append([name.replace("|", "\\|"), *map(percent, each)])
    return f"{title}\n\n{table_of(lines)}\n\n{table_of(classes)}\n"


def table_of(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(share: float | None) -> str:
    """A share as a percentage, or a dash.

    >>> percent(0.1234), percent(None)
    ('12.3', '-')
    """
    return "-" if share is None else f"{100 * share:.1f}"
