"""Shuffled batch normalisation: keys change places between groups before they are normalised, and return after.

Where batch statistics are of groups, an anchor and its key must not share a group, or a network can tell from the
statistics which key belongs to which anchor. The permutation is fixed for a run and depends on its seed and groups
alone, never on the number of devices: slot i of group g goes to slot i of group g + shift[i], so that every group of
keys is made of equal parts of all groups of anchors. On devices these are cyclic shifts, and each device sends and
receives no more images than its own share of the batch.

Source: He et al. 2020 (MoCo), section 3.3, which shuffles over GPUs at random in every step.
"""

from __future__ import annotations

from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Int, Shaped

from mi_contrast.core.mesh import DATA


def shuffled_positions(batch: int, groups: int, seed: int) -> Int[np.ndarray, " B"]:
    """Returns where each position of the batch goes: a permutation of 0 .. batch - 1.

    Args:
      batch: a multiple of `groups`, which are contiguous parts of it.
      seed: orders the shifts.
    """
    size = batch // groups
    shifts = np.random.default_rng(seed).permutation(groups)
    group, slot = np.divmod(np.arange(batch), size)
    return (group + shifts[slot * groups // size]) % groups * size + slot


def move_rows(x: Shaped[Array, "B ..."], positions: Int[np.ndarray, " B"], mesh: Mesh) -> Shaped[Array, "B ..."]:
    """Returns y with y[positions[p]] = x[p], each device keeping its contiguous share of the rows.

    Rows travel in cyclic permutes, at most batch / devices rows a device in all. Where groups and devices divide each
    other in neither way, the compiler chooses how they travel; the result is the same.

    Args:
      x: rows along axis 0, cut over the mesh axis `data`.
      positions: static, a permutation.
    """
    devices, share = mesh.size, len(positions) // mesh.size
    target, row = np.divmod(positions.reshape(devices, share), share)
    cyclic = (row == row[0]).all() and all(len(set(column)) == devices for column in target.T)
    if devices == 1 or not cyclic:
        return x[np.argsort(positions)]
    together: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for at, column in enumerate(target.T):
        together[tuple(map(int, column))].append(at)

    def on_device(x: Array) -> Array:
        moved = [
            lax.ppermute(x[np.array(rows)], DATA, list(enumerate(targets)))
            if targets != tuple(range(devices))
            else x[np.array(rows)]
            for targets, rows in together.items()
        ]
        arrived = np.concatenate([row[0][rows] for rows in together.values()])
        return jnp.concatenate(moved)[np.argsort(arrived)]

    return jax.shard_map(on_device, mesh=mesh, in_specs=PartitionSpec(DATA), out_specs=PartitionSpec(DATA))(x)
