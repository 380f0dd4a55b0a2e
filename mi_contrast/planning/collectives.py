"""The collectives of a compiled program: what travels between devices, how much of it, and how long that takes."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mi_contrast.planning.chips import Chip
from mi_contrast.planning.hlo import Array, Instruction, Program, Run

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
CHAIN = re.compile(r'chain_id="?(\d+)')
CHANNEL = re.compile(r"channel_id=(\d+)")


@dataclass(frozen=True)
class Collective:
    """An exchange between devices.

    Attributes:
      arrays: what a device has after an all-gather or a permute, before a reduce-scatter, and both for the others.
      group: number of devices that exchange with each other.
      times: how often it runs in a step.
      open_loop: it is in a loop whose number of iterations depends on the data (`hlo.OPEN_LOOP_RUNS`).
      source: the path of the Python operation.
    """

    kind: str
    arrays: tuple[Array, ...]
    group: int
    times: int
    open_loop: bool
    source: str

    @property
    def bytes(self) -> int:
        """Bytes of the arrays, times the number of runs."""
        return self.times * sum(array.bytes for array in self.arrays)

    @property
    def sent(self) -> float:
        """Bytes that a device sends, at least: of an all-reduce of x over n devices 2 (n - 1) / n x, as in a ring."""
        share = (self.group - 1) / self.group
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0, "collective-broadcast": 1.0}
        return factor.get(self.kind, share) * self.bytes


def find_collectives(program: Program) -> list[Collective]:
    """Returns the collectives of a program. One that is started and finished by two instructions counts once, and so
    does one that the compiler has cut into a chain of pieces.
    """
    found, chains = [], set()
    for instruction, run in program.instructions():
        kind = instruction.operation.removesuffix("-start")
        if kind not in KINDS:
            continue
        if chain := CHAIN.search(instruction.line):
            channel = CHANNEL.search(instruction.line)
            key = (kind, chain[1], channel and channel[1])
            if key in chains:
                continue
            chains.add(key)
        found.append(_read_collective(kind, instruction, run, program.devices))
    return [collective for collective in found if collective.group > 1]


def _read_collective(kind: str, instruction: Instruction, run: Run, devices: int) -> Collective:
    arrays, group = instruction.arrays, read_group_size(instruction.line, devices)
    if instruction.operation.endswith("-start"):  # the result also has the operands, and of a permute two semaphores
        if kind == "collective-permute":
            arrays = arrays[1:2]
        elif kind != "all-reduce":
            arrays = arrays[len(arrays) // 2 :]
    if kind == "reduce-scatter":
        arrays = [Array(array.dtype, (group, *array.shape), array.on_chip) for array in arrays]
    return Collective(kind, tuple(arrays), group, run.times, run.open_loop, instruction.source)


def read_group_size(line: str, devices: int) -> int:
    """Returns how many devices exchange with each other.

    Args:
      line: the instruction. Groups are written as {{0,1},{2,3}}, as [2,4]<=[8] for two groups of four, or as axes of a
        mesh: mesh['a'=2,'b'=4] {'a'}.
      devices: those of the program, which form one group where none is written.
    """
    if pairs := re.search(r"source_target_pairs=\{(\{\d+,\d+\}(?:,\s*\{\d+,\d+\})*)\}", line):
        return 1 if all(a == b for a, b in re.findall(r"\{(\d+),(\d+)\}", pairs[1])) else devices
    if mesh := re.search(r"replica_groups=@?mesh\[([^\]]*)\]\s*\{([^}]*)\}", line):
        sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        return math.prod(sizes[name] for name in re.findall(r"'([^']+)'", mesh[2]))
    if table := re.search(r"replica_groups=\[(\d+),(\d+)\]<=", line):
        return int(table[2])
    if groups := re.search(r"replica_groups=\{\{([\d,\s]+)\}", line):
        return len(groups[1].split(","))
    return devices


def summarise_collectives(collectives: Iterable[Collective]) -> dict[str, dict[str, Any]]:
    """Returns for each kind how many there are, how often they run, their bytes and the bytes that a device sends.

    in_open_loops: how many of them are inside a loop whose number of iterations depends on the data and is assumed.
    """
    rows: dict[str, dict[str, Any]] = {}
    for one in collectives:
        row = rows.setdefault(one.kind, {"count": 0, "runs": 0, "bytes": 0, "sent": 0.0, "in_open_loops": 0})
        row["count"] += 1
        row["runs"] += one.times
        row["bytes"] += one.bytes
        row["sent"] += one.sent
        row["in_open_loops"] += one.open_loop
    return dict(sorted(rows.items(), key=lambda item: -item[1]["bytes"]))


def estimate_seconds(collectives: Iterable[Collective], chip: Chip, devices: int) -> float:
    """Returns the seconds for which a chip sends at the public rate of its links, with nothing else in the way.

    Between hosts of GPUs, a host's network cards carry what its chips exchange: a reduction sums inside the host first,
    so that the rate a chip sees is the host's, and rows that move from chip to chip share it.
    """
    total = 0.0
    for one in collectives:
        rate = chip.link
        if chip.network and devices > chip.a_host:
            moves = one.kind in ("collective-permute", "all-to-all")
            rate = min(chip.link, chip.network / (chip.a_host if moves else 1))
        total += one.sent / rate
    return total


def find_pool_sized(
    collectives: Iterable[Collective], pools: Mapping[str, tuple[int, ...]], others: Iterable[int] = ()
) -> list[str]:
    """Returns a line for each collective with a side as long as a pool, whose cost would grow with the pool.

    Args:
      pools: of each pool the number of its rows, over all devices and on one.
      others: sides that are the batch's. A pool that has one of these lengths is not looked for.
    """
    lines, ambiguous = [], set(others)
    for one in collectives:
        for name, rows in pools.items():
            sides = {side for array in one.arrays for side in array.shape}
            if sides & (set(rows) - ambiguous):
                shapes = ", ".join(f"{a.dtype}{list(a.shape)}" for a in one.arrays[:3])
                lines.append(f"{one.kind} of {shapes} is as long as the pool {name} ({one.source or 'no source'})")
    return lines
