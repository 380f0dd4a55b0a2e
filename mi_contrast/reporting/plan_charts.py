"""Charts of plans: what fills the memory of a chip, and how long each part of a step takes at least."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from mi_contrast.reporting.charts import WIDTH, finish

GIB = 2**30
MEMORY = {
    "weights and optimiser": ("parameters", "target network", "batch statistics", "optimiser",
                              "probe, generator and the rest"),
    "pools": ("pools",),
    "batch and labels": ("batch", "labels and groups"),
}  # fmt: skip
MEMORY_KINDS = (*MEMORY, "activations and temporaries", "code")
TERMS = ("compute", "bandwidth", "network")
BAR, GAP = 30, 14  # pixels


def memory_rows(predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows (slice, kind, gib) of what each prediction holds in a chip's memory."""
    rows = []
    for one in predictions:
        sizes = {kind: sum(one["held"].get(part, 0) for part in parts) for kind, parts in MEMORY.items()}
        if one["compiles"]:
            sizes |= {"activations and temporaries": one["memory"]["temporaries"], "code": one["memory"]["code"]}
        elif "needed" in one:
            sizes["activations and temporaries"] = max(one["needed"] - sum(sizes.values()), 0)
        rows += [{"slice": one["topology"], "kind": kind, "gib": size / GIB} for kind, size in sizes.items()]
    return rows


def term_rows(predictions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows (slice, term, ms) of the roofline of each prediction that compiles."""
    return [
        {"slice": one["topology"], "term": term, "ms": 1e3 * seconds}
        for one in predictions
        if one["compiles"]
        for term, seconds in one["roofline"]["seconds"].items()
    ]


def draw_memory(predictions: Sequence[Mapping[str, Any]]) -> alt.LayerChart:
    """Returns a bar for each slice, of what a chip's memory holds; a dashed line is the chip's memory."""
    rows, limit = memory_rows(predictions), predictions[0]["chip"]["memory"] / GIB
    base = alt.Chart(alt.InlineData(values=rows))
    kinds = alt.Scale(domain=list(MEMORY_KINDS))
    bars = base.mark_bar(size=BAR).encode(
        x=alt.X("gib:Q", title="GiB a chip", axis=alt.Axis(tickCount=5)),
        y=_slices(predictions),
        color=alt.Color("kind:N", scale=kinds),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("slice:N"), alt.Tooltip("kind:N"), alt.Tooltip("gib:Q", title="GiB", format=",.3~r")],
    )
    bars = bars.transform_calculate(order=f"indexof({list(MEMORY_KINDS)}, datum.kind)")
    line = alt.Chart(alt.InlineData(values=[{"gib": limit}])).mark_rule(style="ceiling", strokeDash=[6, 4])
    tip = alt.Tooltip("gib:Q", title="memory of a chip, GiB", format=",.4~r")
    layers = alt.layer(bars, line.encode(x="gib:Q", tooltip=tip))
    return finish(layers.properties(width=WIDTH, height=alt.Step(BAR + GAP)))


def draw_terms(predictions: Sequence[Mapping[str, Any]]) -> alt.LayerChart:
    """Returns for each slice a bar a term of the roofline, in milliseconds."""
    rows = term_rows(predictions)
    base = alt.Chart(alt.InlineData(values=rows)).encode(
        x=alt.X("ms:Q", title="ms a step at the chip's public rates", axis=alt.Axis(tickCount=5)),
        y=_slices([one for one in predictions if one["compiles"]]),
        yOffset=alt.YOffset("term:N", scale=alt.Scale(domain=list(TERMS))),
        tooltip=[alt.Tooltip("slice:N"), alt.Tooltip("term:N"), alt.Tooltip("ms:Q", format=",.3~r")],
    )
    bars = base.mark_bar().encode(color=alt.Color("term:N", scale=alt.Scale(domain=list(TERMS))))
    return finish(alt.layer(bars).properties(width=WIDTH, height=alt.Step(18)))


def _slices(predictions: Sequence[Mapping[str, Any]]) -> alt.Y:
    names = [one["topology"] for one in predictions]
    return alt.Y("slice:N", title=None, scale=alt.Scale(domain=names), axis=alt.Axis(grid=False))
