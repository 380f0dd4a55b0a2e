"""How many bytes a compiled program moves between a device and its memory."""

from __future__ import annotations

from collections.abc import Mapping

from mi_contrast.benchmarks.programs import FREE
from mi_contrast.planning.hlo import Array, Instruction, Program

READS_A_PART = ("dynamic-slice", "slice", "gather")
FINISHES = ("-done", "-update")


def count_traffic(program: Program) -> float:
    """Returns the bytes that one step reads from the main memory of a device and writes to it.

    An operation that runs by itself reads its operands and writes its results; what is fused moves nothing. Of operands
    of which only slices are read the slices count, and of arrays that are updated in place the updates. Arrays that the
    compiler keeps on the core move nothing. Loops count as often as they run; where that depends on
    the data, it is assumed (`hlo.OPEN_LOOP_RUNS`). Caches and padding are not known, so that this is an estimate.
    """
    fused = {name for i, _ in program.instructions() if i.operation == "fusion" for name in i.called}
    total = 0.0
    for name, run in program.runs.items():
        if name in fused:
            continue
        instructions = program.computations[name]
        by_name = {instruction.name: instruction for instruction in instructions}
        total += run.times * sum(_count_one(program, instruction, by_name) for instruction in instructions)
    return total


def _count_one(program: Program, one: Instruction, by_name: Mapping[str, Instruction]) -> float:
    operation = one.operation
    if operation in FREE or operation.endswith(FINISHES) or 'custom_call_target="Sharding"' in one.line:
        return 0.0
    operands = [by_name[name].arrays if name in by_name else [] for name in one.operands]
    if operation in READS_A_PART or operation == "slice-start":
        part = one.arrays[:1] if operation in READS_A_PART else one.arrays[1:2]  # a start's result: old, new, a flag
        is_near = bool(operands) and all(array.on_chip for array in operands[0])
        return _bytes(part) + (0.0 if is_near else _bytes(part, everywhere=True))
    if operation == "dynamic-update-slice":
        return 2.0 * _bytes(operands[1])
    if operation == "scatter":
        return 2.0 * sum(map(_bytes, operands[2:]))
    if operation == "async-start":  # the computation that it starts counts
        return 0.0
    if operation.endswith("-start"):  # the result has the operands too, a copy's after the new array
        results = one.arrays[:1] if operation == "copy-start" else one.arrays[len(one.arrays) // 2 :]
        if operation == "collective-permute-start":
            results = one.arrays[1:2]
        return sum(map(_bytes, operands)) + _bytes(results)
    inner = program.computations.get(one.called[0], []) if operation == "fusion" and one.called else []
    return _count_operands(operands, inner) + _count_result(one, inner)


def _count_operands(operands: list[list[Array]], inner: list[Instruction]) -> float:
    """Returns the bytes that are read; of an operand that a fusion only slices, those of the slices."""
    parameters = [one for one in inner if one.operation == "parameter"]
    numbers = {one.name: int(one.line.partition("parameter(")[2].partition(")")[0]) for one in parameters}
    slices = dict.fromkeys(numbers.values(), 0.0)  # bytes that the slices of an operand have
    whole = set(range(len(operands))) - set(slices)  # operands that are read as a whole
    for one in inner:
        for place, name in enumerate(one.operands):
            if name in numbers and place == 0 and one.operation in READS_A_PART:
                slices[numbers[name]] += _bytes(one.arrays, everywhere=True)
            elif name in numbers and not (place == 0 and one.operation == "dynamic-update-slice"):
                whole.add(numbers[name])
    total = 0.0
    for number, arrays in enumerate(operands):
        size = _bytes(arrays)
        total += size if number in whole else min(size, slices[number])
    return total


def _count_result(one: Instruction, inner: list[Instruction]) -> float:
    """Returns the bytes that are written; of a fusion that updates an array in place, those of the update."""
    by_name = {instruction.name: instruction for instruction in inner}
    updates = [i for i in inner if i.operation == "dynamic-update-slice" and i.result.split("{")[0] in one.result]
    if len(updates) == 1 and len(one.arrays) == 1 and updates[0].operands[1] in by_name:
        return 0.0 if one.arrays[0].on_chip else _bytes(by_name[updates[0].operands[1]].arrays, everywhere=True)
    return _bytes(one.arrays)


def _bytes(arrays: list[Array], everywhere: bool = False) -> float:
    """Returns the bytes of those arrays that are in the main memory, or of all."""
    return float(sum(array.bytes for array in arrays if everywhere or not array.on_chip))
