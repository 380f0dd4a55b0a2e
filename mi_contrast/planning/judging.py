"""Judges the text of a compiled step: what must not be in it, and how many kernels and loops it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mi_contrast.benchmarks.programs import TARGET
from mi_contrast.planning.collectives import Collective, find_pool_sized
from mi_contrast.planning.hlo import Instruction, Program

HOST = ("infeed", "outfeed", "send", "recv")
SHOWN = 5  # examples of each fault that a verdict names


@dataclass(frozen=True)
class Verdict:
    """Whether a step is free of something.

    Attributes:
      fault: what must not be there.
      count: how many there are.
      examples: where the first of them come from.
    """

    fault: str
    count: int
    examples: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there are none."""
        return self.count == 0


def judge(
    program: Program,
    collectives: Iterable[Collective],
    *,
    dtype: str,
    pools: Mapping[str, tuple[int, ...]],
    batch_sides: tuple[int, int],
) -> list[Verdict]:
    """Returns the verdicts on a compiled step.

    Args:
      dtype: that of the config; in bfloat16 no convolution of float32 arrays may be left. Matrix products are none,
        though a TPU computes them as such.
      pools: of each pool the number of its rows, over all devices and on one.
      batch_sides: number of examples of the batch, over all devices and on one. What is no longer may be sorted.
    """
    found: dict[str, list[str]] = {"sort of more than a batch": [], "callback into the host": [], "float64": []}
    if dtype == "bfloat16":
        found["float32 convolution"] = []
    for name in program.runs:
        instructions = program.computations[name]
        types = {instruction.name: instruction for instruction in instructions}
        for one in instructions:
            target = (TARGET.search(one.line) or ("", ""))[1].lower()
            where = one.source or one.name
            longest = max((side for array in one.arrays for side in array.shape), default=0)
            if (one.operation == "sort" or "sort" in target) and longest > max(batch_sides):
                found["sort of more than a batch"].append(where)
            if one.operation in HOST or "callback" in target:
                found["callback into the host"].append(where)
            if any(array.dtype in ("f64", "c128") for array in one.arrays):
                found["float64"].append(where)
            if dtype == "bfloat16" and is_float32_convolution(one, types):
                found["float32 convolution"].append(where)
    found["collective as long as a pool"] = find_pool_sized(collectives, pools, batch_sides)
    return [Verdict(fault, len(where), tuple(dict.fromkeys(where))[:SHOWN]) for fault, where in found.items()]


def is_float32_convolution(one: Instruction, by_name: Mapping[str, Instruction]) -> bool:
    """Whether an instruction convolves float32 arrays, and is no matrix product in the form of a convolution.

    Args:
      by_name: the instructions of its computation, among which its operands are.
    """
    target = (TARGET.search(one.line) or ("", ""))[1].lower()
    if one.operation != "convolution" and "conv" not in target:
        return False
    if one.source.rpartition("/")[2].startswith("dot_general"):
        return False
    operands = [array for name in one.operands[:2] if name in by_name for array in by_name[name].arrays[:1]]
    return bool(operands) and all(array.dtype == "f32" for array in operands)
