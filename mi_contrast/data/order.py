"""Who comes when: permutations that depend on integers alone, the same on every machine and version."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, UInt64


def random_bits(count: int, *key: int) -> UInt64[np.ndarray, " count"]:
    """Random 64-bit integers from the key alone: the raw stream of PCG64, which numpy keeps stable across versions.

    Args:
      key: integers >= 0; other integers, other bits.
    """
    return np.random.PCG64(np.random.SeedSequence((len(key), *key))).random_raw(count)  # (1,) is not (1, 0)


def permutation(count: int, *key: int) -> Int[np.ndarray, " count"]:
    """A permutation of 0 .. count - 1, int32, uniform over all of them, from the key alone."""
    return np.argsort(random_bits(count, *key), kind="stable").astype(np.int32)


def draw_distinct(count: int, size: int, *key: int) -> Int[np.ndarray, " size"]:
    """`size` distinct of 0 .. count - 1 in random order, int32, uniform over all such, from the key alone; its cost is
    that of `size`, not of `count`.
    """
    if 2 * size > count:
        return permutation(count, *key)[:size]
    asked = 2 * size
    while True:
        drawn = random_bits(asked, *key) % np.uint64(count)
        _, first = np.unique(drawn, return_index=True)
        if len(first) >= size:
            return drawn[np.sort(first)[:size]].astype(np.int32)
        asked *= 2
