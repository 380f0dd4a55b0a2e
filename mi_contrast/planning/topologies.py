"""Slices of accelerators that are not here: their names, and devices that XLA compiles for without them."""

from __future__ import annotations

import importlib.util
import math
import os
import re
from dataclasses import dataclass
from typing import Any

import jax

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.planning.chips import CHIPS, NAMES, Chip, write_target

EXAMPLES = "v5e:4x4, v4:2x2x2, v6e:4x4, h200:8, a100-40:8, h100:16"


@dataclass(frozen=True)
class Slice:
    """Chips of one kind that are connected.

    Attributes:
      shape: chips along each side of a TPU's torus; of GPUs their number.
    """

    chip: Chip
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name as --topology takes it, such as 'v5e:4x4'."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def size(self) -> int:
        """Number of chips."""
        return math.prod(self.shape)


def parse_topology(text: str) -> Slice:
    """Returns the slice that a text such as 'v5e:4x4' or 'h200:8' names. Raises UserError where it names none."""
    name, _, sides = text.strip().lower().partition(":")
    if name not in NAMES:
        raise unknown("chip in --topology", name, NAMES)
    chip = next(chip for chip in CHIPS if chip.name == name)
    fix = f"write it as one of: {EXAMPLES}"
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sides):
        raise UserError(f"--topology={text} has no size", fix=fix)
    shape = tuple(map(int, sides.split("x")))
    dimensions = 1 if chip.target else 3 if name in ("v4", "v5p") else 2
    if len(shape) != dimensions:
        what = "a number" if dimensions == 1 else f"{dimensions} sides"
        raise UserError(f"--topology={text} has {len(shape)} sides, and a slice of {name} has {what}", fix=fix)
    found = Slice(chip, shape)
    if chip.target and found.size > chip.a_host and found.size % chip.a_host:
        raise UserError(f"--topology={text} is no whole number of hosts of {chip.a_host}", fix=fix)
    return found


def describe_devices(wanted: Slice) -> list[Any]:
    """Returns the devices of a slice, which serve to compile for and not to compute on.

    JAX must not have been used in this process before: it is told to compute on the CPU alone.

    Raises:
      UserError: the compiler for that platform is not installed, or knows no such slice.
    """
    check_compiler(wanted.chip)
    jax.config.update("jax_platforms", "cpu")  # otherwise the plugins look for their devices, and fail
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # no question to a metadata server
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing is computed on a TPU, so that many may compile
    from jax.experimental import topologies

    try:
        if not wanted.chip.target:
            return list(topologies.get_topology_desc(platform="tpu", topology_name=wanted.name).devices)
        hosts, a_host = max(wanted.size // wanted.chip.a_host, 1), min(wanted.size, wanted.chip.a_host)
        described = topologies.get_topology_desc(
            platform="cuda", target_config=write_target(wanted.chip), topology=f"1x{hosts}x{a_host}"
        )
        return list(described.devices)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"the compiler knows no slice {wanted.name} ({reason})", fix=f"try {EXAMPLES}") from None


def check_compiler(chip: Chip) -> None:
    """Raises UserError where the compiler for a chip is not installed."""
    if not chip.target and importlib.util.find_spec("libtpu") is None:
        raise UserError("compiling for a TPU needs libtpu", fix="pip install 'mi-contrast[tpu]'; no TPU is needed")
    plugins = [f"jax_{cuda}_plugin" for cuda in ("cuda12", "cuda13", "cuda14")]
    if chip.target and not any(importlib.util.find_spec(plugin) for plugin in plugins):
        fix = "pip install 'mi-contrast[cuda13]'; no GPU is needed"
        raise UserError("compiling for a GPU needs JAX's CUDA plugin", fix=fix)
