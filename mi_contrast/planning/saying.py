"""Writes plans as lines of text for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mi_contrast.core.progress import format_duration
from mi_contrast.reporting.words import interval, size


def say_prediction(prediction: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of a step on one slice."""
    batch = f"batch {prediction['batch']:,}, {prediction['batch_a_chip']:,} a chip"
    yield f"{prediction['topology']}: {prediction['chips']} chips, {batch}"
    if not prediction["compiles"]:
        limit = ""
        if "needed" in prediction:
            limit = f": {size(prediction['needed'])} of {size(prediction['limit'])}"
        yield f"  does not compile: {prediction['reason']}{limit}"
        yield from _say_held(prediction["held"])
        return
    memory, roofline, program = prediction["memory"], prediction["roofline"], prediction["program"]
    yield f"  compiles, in {format_duration(prediction['seconds'])}"
    yield f"  memory   {say_memory(memory)}"
    yield from _say_held(prediction["held"])
    for name in ("temporaries", "code"):
        yield f"             {size(memory[name]):>9}  {'activations and temporaries' if name != 'code' else name}"
    operations = sum(prediction["products"].values())
    yield f"  work     {operations / 1e12:,.3g} TFLOP of products, {size(prediction['traffic'])} from and to memory"
    yield from say_collectives(prediction["collectives"])
    yield f"  kernels  {program['launched']:,}; loops {program['loops']}"
    terms = ", ".join(f"{name} {interval(seconds)}" for name, seconds in roofline["seconds"].items())
    yield f"  roofline {terms}; largest: {roofline['largest']}"
    between = f"{interval(roofline['at_least'])} (all else hidden) to {interval(roofline['at_most'])} (nothing hidden)"
    yield f"           a step takes at least {between}, at the chip's public rates"
    for verdict in prediction["verdicts"]:
        yield f"  {'none' if verdict['passed'] else verdict['count']:>6} of: {verdict['fault']}" + (
            "" if verdict["passed"] else f" ({verdict['examples'][0]})"
        )


def say_memory(memory: Mapping[str, Any]) -> str:
    """Returns the peak memory of a device, and of how much, in words."""
    if not memory["of"]:
        return f"{size(memory['peak'])} a device at the peak"
    share = memory["peak"] / memory["of"]
    fits = "" if share <= 1 else ": it does not fit"
    return f"{size(memory['peak'])} of {size(memory['of'])} a device, {share:.0%}{fits}"


def _say_held(held: Mapping[str, int]) -> Iterator[str]:
    for name, count in held.items():
        yield f"             {size(count):>9}  {name}"


def say_collectives(collectives: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yields a line for each kind of collective."""
    if not collectives:
        yield "  network  no collectives"
    for kind, row in collectives.items():
        loops = f", {row['in_open_loops']} of them in loops of assumed length" if row["in_open_loops"] else ""
        yield f"  network  {row['runs']:,} x {kind}, {size(row['bytes'])}{loops}"


def say_estimator(estimator: Mapping[str, Any]) -> Iterator[str]:
    """Yields what the selection of candidates costs, beside the same step with whole supports."""
    if "reason" in estimator:
        yield f"the estimator's share: {estimator['reason']}"
        return
    yield "the estimator's share, beside the same step with the support 'all':"
    for name, row in estimator["rows"].items():
        write = interval if name in ("compute", "bandwidth", "network") else _count if name == "launches" else size
        yield f"  {name:<12} {write(row['step'])} beside {write(row['whole'])}: {row['share']:.1%}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


def say_sizes(predictions: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yields a table of the slices, a line each."""
    columns = f"{'memory':>11}{'at least':>11}{'largest':>9}{'images/s':>12}{'sent':>11}"
    yield f"{'slice':<12}{'chips':>6}{'batch':>8}{columns}"
    for one in predictions:
        head = f"{one['topology']:<12}{one['chips']:>6}{one['batch']:>8,}"
        if not one["compiles"]:
            yield f"{head}  {one['reason']}"
            continue
        step, sent = one["roofline"], sum(row["sent"] for row in one["collectives"].values())
        figures = f"{interval(step['at_least']):>11}{step['largest']:>9}{one['batch'] / step['at_least']:>12,.0f}"
        yield f"{head}{size(one['memory']['peak']):>11}{figures}{size(sent):>11}"


def say_here(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of a plan for the devices of this machine."""
    seconds, disk = plan["seconds_a_step"], plan["disk"]
    spread = f"{interval(seconds['min'])} to {interval(seconds['max'])} in {plan['timed_steps']} steps"
    yield f"{plan['device']}, batch {plan['batch']:,}; the step compiled in {format_duration(plan['compile_seconds'])}"
    yield f"  memory  {say_memory(plan['memory'])}"
    yield f"  steps   {plan['steps']:,}, which are {plan['epochs']:.3g} epochs of {plan['examples']:,} examples"
    yield f"  a step  {interval(seconds['median'])} ({spread}), {plan['images_per_second']:,.0f} images/s"
    yield f"  in all  {format_duration(plan['seconds'])}, without measurements and checkpoints"
    free = "" if disk["free"] is None else f"; {size(disk['free'])} are free"
    kept = f"{disk['kept']} checkpoints of {size(disk['checkpoint'])} at a time, and the export"
    yield f"  disk    {size(disk['total'])} at most: {kept}{free}"
