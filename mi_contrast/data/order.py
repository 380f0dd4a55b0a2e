"""Permutations and random integers that depend on integer seeds alone, equal on every machine and numpy version."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt64


def random_bits(count: int, *seeds: int) -> UInt64[np.ndarray, " count"]:
    """Returns random 64-bit integers: the raw stream of PCG64, which numpy keeps stable across versions.

    Args:
      count: how many.
      seeds: any number of integers >= 0. The result depends on all of them and on their number.
    """
    # Without the length, SeedSequence would make (1,) and (1, 0) equal.
    return np.random.PCG64(np.random.SeedSequence((len(seeds), *seeds))).random_raw(count)


def permutation(count: int, *seeds: int) -> Int[np.ndarray, " count"]:
    """Returns a uniformly random permutation of 0 .. count - 1, int32."""
    return np.argsort(random_bits(count, *seeds), kind="stable").astype(np.int32)


def draw_distinct(count: int, size: int, *seeds: int) -> Int[np.ndarray, " size"]:
    """Draws `size` distinct integers of 0 .. count - 1 in random order, int32.

    The cost grows with `size`, not with `count`.
    """
    if 2 * size > count:
        return permutation(count, *seeds)[:size]
    num_draws = 2 * size
    while True:
        draws = random_bits(num_draws, *seeds) % np.uint64(count)
        _, first = np.unique(draws, return_index=True)
        if len(first) >= size:
            return draws[np.sort(first)[:size]].astype(np.int32)
        num_draws *= 2
