"""The page of a plan for a slice: one self-contained HTML file, from the plan's data alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mi_contrast.reporting import drawing, plan_charts, templates
from mi_contrast.reporting.page import fields
from mi_contrast.reporting.story import Card, Figure
from mi_contrast.reporting.words import THIN, count, interval, number, size


@drawing.unvalidated
def render(plan: Mapping[str, Any]) -> str:
    """Returns the HTML of a plan, as `mi_contrast.plan` writes it in JSON."""
    predictions = plan["predictions"]
    first = predictions[0]
    config = plan["config"]
    single = {name: item for name, item in config.items() if not isinstance(item, Mapping)}
    nested = [(name, item) for name, item in config.items() if isinstance(item, Mapping)]
    return templates.render(
        "plan.html.j2",
        plan=plan,
        facts=list(_facts(plan)),
        cards=list(_cards(plan)),
        figures=list(_figures(predictions)),
        sizes=[_size_row(one) for one in predictions],
        held=list(_held(first)),
        collectives=list(_collectives(first)),
        verdicts=first.get("verdicts", []),
        program=first.get("program"),
        estimator=list(_estimator(plan["estimator"])),
        why_no_estimator=plan["estimator"].get("reason"),
        first=first,
        chip=list(_chip(first["chip"])),
        sections=[(name, list(fields(item))) for name, item in [("", single), *nested]],
    )


def _facts(plan: Mapping[str, Any]) -> Iterator[str]:
    yield f"{plan['backbone']} in {plan['dtype']}"
    yield f"{count(plan['examples'])} examples"
    yield from (f"{name} {version}" for name, version in plan["versions"].items())


def _cards(plan: Mapping[str, Any]) -> Iterator[Card]:
    one = plan["predictions"][0]
    where = f"on {one['topology']}, {count(one['batch_a_chip'])} images a chip"
    if not one["compiles"]:
        words = size(one["needed"]) if "needed" in one else "does not compile"
        of = f"of {size(one['limit'])}" if "limit" in one else ""
        yield Card(f"Memory a chip {where}", None, words, of, one["reason"], None)
        return
    memory, roofline = one["memory"], one["roofline"]
    share = memory["peak"] / memory["of"]
    note = f"{'It fits' if share <= 1 else 'It does not fit'} {where}."
    of = f"of {size(memory['of'])}"
    yield Card("Memory a chip", None, size(memory["peak"]), of, note, (0.0, min(share, 1.0)))
    yield Card(
        "A step takes at least", None, interval(roofline["at_least"]), f"up to {interval(roofline['at_most'])}",
        "The largest term of the roofline where all else is hidden behind it, and the sum of all terms.", None,
    )  # fmt: skip
    shares = {name: seconds / roofline["at_most"] for name, seconds in roofline["seconds"].items()}
    others = ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if name != roofline["largest"])
    of = f"{shares[roofline['largest']]:.0%} of the sum"
    yield Card("Largest term", None, roofline["largest"], of, f"Beside it: {others}.", None)
    if rows := plan["estimator"].get("rows"):
        step = sum(rows[name]["step"] for name in roofline["seconds"])
        whole = sum(rows[name]["whole"] for name in roofline["seconds"])
        note = (
            "Share of the sum of all terms that the selection of candidates adds to the same step with whole supports."
        )
        yield Card("The estimator's share", None, number((step - whole) / step, "%"), "of the roofline", note, None)
    else:
        rate = one["batch"] / roofline["at_least"]
        yield Card("Images a second", None, count(round(rate)), "at most", "At the public rates of the chips.", None)


def _figures(predictions: list[Mapping[str, Any]]) -> Iterator[Figure]:
    names = [(kind, "", i) for i, kind in enumerate(plan_charts.MEMORY_KINDS, start=1)]
    note = "The dashed line is the memory of a chip. Temporaries are those of the moment that needs most."
    yield Figure("What fills the memory", note, plan_charts.draw_memory(predictions), tuple(names))
    if any(one["compiles"] for one in predictions):
        terms = [(term, "", i) for i, term in enumerate(plan_charts.TERMS, start=1)]
        note = "Work divided by the chip's public rate, each term by itself."
        yield Figure("Roofline of a step", note, plan_charts.draw_terms(predictions), tuple(terms))


def _size_row(one: Mapping[str, Any]) -> list[str]:
    head = [one["topology"], count(one["chips"]), count(one["batch"])]
    if not one["compiles"]:
        return [*head, size(one["needed"]) if "needed" in one else "", "does not compile", "", "", "", ""]
    roofline, sent = one["roofline"], sum(row["sent"] for row in one["collectives"].values())
    return [
        *head,
        size(one["memory"]["peak"]),
        f"{interval(roofline['at_least'])} to {interval(roofline['at_most'])}",
        roofline["largest"],
        count(round(one["batch"] / roofline["at_least"])),
        count(sum(row["runs"] for row in one["collectives"].values())),
        size(sent),
    ]


def _held(one: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((name, size(value)) for name, value in one["held"].items())
    if one["compiles"]:
        memory = one["memory"]
        padding = memory["arguments"] - sum(one["held"].values())
        yield "padding of the layouts", size(max(padding, 0))
        yield "activations and temporaries", size(memory["temporaries"])
        yield "code", size(memory["code"])
        yield "at the peak", f"{size(memory['peak'])} of {size(memory['of'])}"


def _collectives(one: Mapping[str, Any]) -> Iterator[list[str]]:
    for kind, row in one.get("collectives", {}).items():
        loops = f"{row['in_open_loops']} in loops of assumed length" if row["in_open_loops"] else ""
        yield [kind, count(row["runs"]), size(row["bytes"]), size(row["sent"]), loops]


def _estimator(estimator: Mapping[str, Any]) -> Iterator[list[str]]:
    writers = {"peak memory": size, "bytes sent": size, "launches": lambda value: count(round(value))}
    for name, row in estimator.get("rows", {}).items():
        write = writers.get(name, interval)
        yield [name, write(row["step"]), write(row["whole"]), number(row["share"], "%")]


def _chip(chip: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    names = {"bfloat16": "bfloat16", "float32": "float32 by default", "exact": "exact float32"}
    for name, text in names.items():
        if name in chip["peaks"]:
            yield text, f"{chip['peaks'][name] / 1e12:,.4g}{THIN}TFLOP/s"
    yield "memory", size(chip["memory"])
    for name, text in (("bandwidth", "bandwidth"), ("link", "links, one way"), ("network", "network of a host")):
        if chip[name]:
            yield text, f"{chip[name] / 1e9:,.4g}{THIN}GB/s"
