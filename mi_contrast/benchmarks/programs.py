"""Reads compiled programs: the kernels they launch, the operations they compute and the memory they hold."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?P<result>\(.*?\)|\S+) (?P<operation>[a-z][\w\-]*)\(")
RUN = re.compile(r"(?:body|condition|(?:true|false)_computation|branch_computations)=(?:\{([^}]*)\}|%?([\w.\-]+))")
TARGET = re.compile(r'custom_call_target="([^"]*)"')


def read_program(text: str) -> dict[str, Any]:
    """Returns counts of what a compiled program does, from its text (`compiled.as_text()`).

    launched: instructions that run as a kernel of their own, in the entry, in loops and in branches. An instruction in
      the body of a loop counts once; fused instructions count as one fusion. fusions, copies: how many of them are.
    convolutions: counted by the type of their result.
    sorts, transposes, callbacks (into Python), float64 (values), loops, branches: counted everywhere, also in fusions.
    """
    computations, entry = split_computations(text)
    launched = Counter(
        operation
        for name in find_reachable(computations, entry)
        for _, operation, line in instructions(computations[name])
        if operation not in FREE and not is_free_call(line)
    )
    everywhere: Counter[str] = Counter()
    convolutions: Counter[str] = Counter()
    for lines in computations.values():
        for result, operation, line in instructions(lines):
            everywhere[operation] += 1
            everywhere["float64"] += "f64[" in result
            target = (TARGET.search(line) or ["", ""])[1].lower()
            everywhere["callback"] += "callback" in target
            if operation == "convolution" or "conv" in target:
                convolutions[re.sub(r"\[.*", "", result.lstrip("("))] += 1
    return {
        "launched": launched.total(),
        "fusions": launched["fusion"],
        "copies": launched["copy"],
        "convolutions": dict(convolutions),
        "loops": everywhere["while"],
        "branches": everywhere["conditional"],
        "sorts": everywhere["sort"],
        "transposes": everywhere["transpose"],
        "callbacks": everywhere["callback"],
        "float64": everywhere["float64"],
    }


# Operations that move no data and start no kernel.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call", "after-all"}


def is_free_call(line: str) -> bool:
    """Whether the line is a custom call that is only an annotation."""
    return 'custom_call_target="Sharding"' in line or "AllocateBuffer" in line


def split_computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of each computation of a program by name, and the name of the entry."""
    computations: dict[str, list[str]] = {}
    lines: list[str] = []
    entry = ""
    for line in text.splitlines():
        if header := COMPUTATION.match(line):
            lines = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        else:
            lines.append(line)
    return computations, entry


def instructions(lines: list[str]) -> Iterator[tuple[str, str, str]]:
    """Yields the result's type, the operation and the line of each instruction."""
    for line in lines:
        if match := INSTRUCTION.match(line):
            yield match["result"], match["operation"], line


def find_reachable(computations: dict[str, list[str]], entry: str) -> list[str]:
    """Returns the entry and the computations of all loops, branches and calls that it reaches."""
    names, i = [entry], 0
    while i < len(names):
        for _, operation, line in instructions(computations.get(names[i], [])):
            called = [several or one for several, one in RUN.findall(line)]
            if operation == "call":
                called += re.findall(r"to_apply=(%?[\w.\-]+)", line)
            for group in called:
                names += [name for word in group.split(",") if (name := word.strip().lstrip("%")) not in names]
        i += 1
    return [name for name in names if name in computations]


def peak_bytes(program: Any) -> int:
    """Returns the peak memory of a compiled program on one device in bytes, as the program reports it.

    CPUs report a peak that leaves out temporaries; it is then the sum of arguments, results and temporaries.
    """
    memory = program.memory_analysis()
    if (peak := getattr(memory, "peak_memory_in_bytes", 0)) and peak >= memory.temp_size_in_bytes:
        return int(peak)
    arguments_and_results = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return int(arguments_and_results + memory.temp_size_in_bytes)


def reported_flops(program: Any) -> float | None:
    """Returns the floating-point operations on one device, as a compiled program reports them.

    The body of a loop counts once, and elementwise operations count. Returns None if the program reports nothing, as on
    some GPUs.
    """
    cost = program.cost_analysis()
    cost = cost[0] if isinstance(cost, list) and cost else cost
    flops = float(cost.get("flops", 0.0)) if cost else 0.0
    return flops if flops > 0 else None


def count_products(function: Callable[..., Any], *arguments: Any) -> float:
    """Returns 2 x the multiplications of all matrix products and convolutions of one call, over all devices.

    The peak of a device refers to these operations, and their number doesn't depend on the compiler. The body of a
    `scan` counts once per step, that of a `while` once. Of several branches the most expensive one counts, and of
    variants for several platforms (`jax.lax.platform_dependent`) the default one. Products with zeros of padding count;
    products with zeros of a dilated input don't.
    """
    return float(count_products_by_inputs(function, *arguments).total())


def count_products_by_inputs(function: Callable[..., Any], *arguments: Any) -> Counter[str]:
    """Returns `count_products` by the inputs of the products: 'bfloat16' (or float16), 'float32', or 'exact' for
    float32 at the highest precision.
    """
    return _count_in_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count_in_jaxpr(jaxpr: Any) -> Counter[str]:
    return sum((_count_in_equation(equation) for equation in jaxpr.eqns), Counter())


def _count_in_equation(equation: Any) -> Counter[str]:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return Counter(
            {_name_inputs(equation): 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)}
        )
    if name == "conv_general_dilated":
        kernel, out_channels = equation.invars[1].aval, params["dimension_numbers"].rhs_spec[0]
        per_output = kernel.size // kernel.shape[out_channels]  # multiplications: taps x input channels of the group
        count = 2 * equation.outvars[0].aval.size * per_output // math.prod(params["lhs_dilation"])
        return Counter({_name_inputs(equation): count})
    inner = [_count_in_jaxpr(jaxpr) for jaxpr in _inner_jaxprs(params)]
    if name == "cond":
        platforms = params.get("branches_platforms")
        if platforms and None in platforms:
            return inner[platforms.index(None)]
        return max(inner, key=Counter.total, default=Counter())
    times = params["length"] if name == "scan" else params["mesh"].size if name == "shard_map" else 1
    return Counter({inputs: times * count for inputs, count in sum(inner, Counter()).items()})


def _name_inputs(equation: Any) -> str:
    if any(variable.aval.dtype.itemsize <= 2 for variable in equation.invars[:2]):
        return "bfloat16"
    precision = equation.params.get("precision")
    return "exact" if "HIGHEST" in str(precision) else "float32"


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item
