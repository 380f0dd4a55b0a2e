"""Reads the text of compiled programs: instructions, how often they run, and the bytes of arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from mi_contrast.benchmarks.programs import split_computations

INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<result>\(.*?\)|\S+) (?P<operation>[a-z][\w\-]*)\((?P<inside>[^)]*)"
)
ARRAY = re.compile(r"\b(pred|token|[a-z]+\d+[a-z0-9]*)\[([\d,]*)\](?:\{([^}]*)\})?")
CALLED = re.compile(
    r"(?:body|condition|calls|true_computation|false_computation|branch_computations|called_computations|async_computation)"
    r"=(?:\{([^}]*)\}|%?([\w.\-]+))"
)
TRIPS = re.compile(r'known_trip_count":?\{"?n"?[:=]"?(\d+)')
LIMIT = re.compile(r"constant\((\d+)\)")
# Iterations of a loop whose number depends on the data. The search for the edges of a ring is such a loop: on 65,536
# normal scores it takes 12 passes, and 2 * 17 + log4(K) at most (`estimators.selection`).
OPEN_LOOP_RUNS = 12
SOURCE = re.compile(r'op_name="([^"]*)"')
BITS = {"pred": 8, "token": 0}


@dataclass(frozen=True)
class Array:
    """An array in a program's text. on_chip: whether its layout places it on the core, outside the main memory."""

    dtype: str
    shape: tuple[int, ...]
    on_chip: bool = False

    @property
    def bytes(self) -> int:
        """Bytes of the elements, without padding."""
        bits = BITS.get(self.dtype)
        if bits is None:
            bits = int(re.sub(r"^[a-z]+", "", self.dtype).partition("e")[0])
        return math.ceil(math.prod(self.shape) * bits / 8)


@dataclass(frozen=True)
class Instruction:
    """A line of a program.

    Attributes:
      result: its type, which may be a tuple.
      operands: the names of its operands.
    """

    name: str
    result: str
    operation: str
    operands: tuple[str, ...]
    line: str

    @property
    def arrays(self) -> list[Array]:
        """The arrays of the result."""
        return read_arrays(self.result)

    @property
    def source(self) -> str:
        """The path of the Python operation that it was made of; '' if the text names none."""
        match = SOURCE.search(self.line)
        return match[1] if match else ""

    @property
    def called(self) -> list[str]:
        """The names of the computations that it runs."""
        words = [several or one for several, one in CALLED.findall(self.line)]
        if self.operation == "call":
            words += re.findall(r"to_apply=%?([\w.\-]+)", self.line)
        return [name.strip().lstrip("%") for word in words for name in word.split(",")]


@dataclass(frozen=True)
class Run:
    """How a computation runs.

    Attributes:
      times: how often.
      open_loop: it is inside a loop whose number of iterations depends on the data; `OPEN_LOOP_RUNS` are assumed.
    """

    times: int
    open_loop: bool = False


class Program:
    """A compiled program, read from its text (`compiled.as_text()`)."""

    def __init__(self, text: str):
        lines, self.entry = split_computations(text)
        self.computations = {name: list(_read_instructions(part)) for name, part in lines.items()}
        self.devices = _count_devices(text)

    @cached_property
    def runs(self) -> dict[str, Run]:
        """How each computation that the entry reaches runs, fused ones included."""
        runs = {self.entry: Run(1)}
        queue = [self.entry]
        while queue:
            name = queue.pop(0)
            run = runs[name]
            for instruction in self.computations.get(name, ()):
                inner = run
                if instruction.operation == "while":
                    trips = self._count_trips(instruction)
                    inner = Run(run.times * (trips or OPEN_LOOP_RUNS), run.open_loop or trips is None)
                for called in instruction.called:
                    if called in self.computations and called not in runs:
                        runs[called] = inner
                        queue.append(called)
        return runs

    def _count_trips(self, loop: Instruction) -> int | None:
        """Returns the number of iterations of a loop that is told or counts up from 0 to a constant, or None."""
        if told := TRIPS.search(loop.line):
            return int(told[1])
        name = next((word for word in re.findall(r"condition=%?([\w.\-]+)", loop.line)), "")
        condition = {one.name: one for one in self.computations.get(name, ())}
        for one in condition.values():
            if one.operation == "compare" and "direction=LT" in one.line and "ROOT" in one.line:
                limit = condition.get(one.operands[-1])
                if limit is not None and (number := LIMIT.search(limit.line)):
                    return int(number[1])
        return None

    def instructions(self) -> Iterator[tuple[Instruction, Run]]:
        """Yields every instruction that runs, inside fusions too, with how it runs."""
        for name, run in self.runs.items():
            for instruction in self.computations[name]:
                yield instruction, run


def read_arrays(text: str) -> list[Array]:
    """Returns the arrays of a type, such as f32[8,4]{1,0:T(8,128)S(1)} or a tuple of types."""
    return [
        Array(dtype, tuple(int(side) for side in sides.split(",") if side), "S(1)" in (layout or ""))
        for dtype, sides, layout in ARRAY.findall(text)
    ]


def _read_instructions(lines: list[str]) -> Iterator[Instruction]:
    for line in lines:
        if match := INSTRUCTION.match(line):
            operands = tuple(re.findall(r"%([\w.\-]+)", match["inside"]))
            yield Instruction(match["name"], match["result"], match["operation"], operands, line)


def _count_devices(text: str) -> int:
    """Returns the number of devices of a program, from its first line."""
    head = text.partition("\n")[0]
    counts = [int(n) for n in re.findall(r"(?:num_partitions|replica_count)=(\d+)", head)]
    return math.prod(counts) if counts else 1
