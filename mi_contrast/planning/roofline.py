"""A roofline estimate: how long a step takes at least, from the public figures of a chip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mi_contrast.planning.chips import Chip
from mi_contrast.planning.collectives import Collective, estimate_seconds


def estimate_step(
    chip: Chip, products: Mapping[str, float], traffic: float, collectives: Iterable[Collective], devices: int
) -> dict[str, Any]:
    """Returns the seconds of each term of a step, the largest of them and their sum.

    A step takes at least as long as the largest term, where all else is hidden behind it; it takes the sum where
    nothing is. Real steps reach a part of the public figures, so neither is a promise.

    Args:
      products: operations of matrix products and convolutions on one device, by their inputs (`Chip.peaks`).
      traffic: bytes between a device and its memory.
    Returns:
      seconds: of 'compute', 'bandwidth' (of the memory) and 'network'.
      largest: the name of the largest; at_least: its seconds; at_most: the sum of all.
      missing: a term whose public figure is not in the table.
    """
    known = {name: count / chip.peaks[name] for name, count in products.items() if name in chip.peaks}
    seconds = {"compute": sum(known.values())} if len(known) == len(products) else {}
    if chip.bandwidth:
        seconds["bandwidth"] = traffic / chip.bandwidth
    collectives = list(collectives)
    if not collectives:
        seconds["network"] = 0.0
    elif chip.link:
        seconds["network"] = estimate_seconds(collectives, chip, devices)
    missing = [name for name in ("compute", "bandwidth", "network") if name not in seconds]
    largest = max(seconds, key=lambda name: seconds[name])
    return {
        "seconds": seconds,
        "largest": largest,
        "at_least": seconds[largest],
        "at_most": sum(seconds.values()),
        "missing": missing,
    }
