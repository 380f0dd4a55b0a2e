"""Shuffled batch norm: keys change groups before they are encoded, and return to their places after.

Where batch norm works on groups of the batch, an anchor and its key must not share a group, or the network can tell
from the statistics which key belongs to which anchor. The permutation is fixed for a run. It depends on the seed and
the groups alone, never on the number of devices: slot i of group g goes to slot i of group g + shift[i], so that every
group of keys consists of equal parts of all groups of anchors. On devices these are cyclic shifts, in which no device
sends or receives more images than its own share of the batch.

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
    """Returns the new position of each example of the batch: a permutation of 0 .. batch - 1.

    Args:
      batch: number of examples, a multiple of `groups`. Groups are contiguous.
      seed: decides the order of the shifts.
    """
    size = batch // groups
    shifts = np.random.default_rng(seed).permutation(groups)
    group, slot = np.divmod(np.arange(batch), size)
    return (group + shifts[slot * groups // size]) % groups * size + slot


def move_rows(x: Shaped[Array, "B ..."], positions: Int[np.ndarray, " B"], mesh: Mesh) -> Shaped[Array, "B ..."]:
    """Returns y with y[positions[p]] = x[p], sharded over the mesh as x is.

    Rows travel in cyclic permutes, at most batch / devices rows for each device in all. If neither groups divide
    devices nor devices groups, the compiler chooses how rows travel. The result is the same. Training refuses such a
    number of groups (`assemble.check_groups`).

    Args:
      x: rows along axis 0, sharded over the mesh axis `data`.
      positions: a permutation, known at compile time.
    """
    devices, share = mesh.size, len(positions) // mesh.size
    target, row = np.divmod(positions.reshape(devices, share), share)  # of each row: its new device, its place there
    cyclic = (row == row[0]).all() and all(len(set(column)) == devices for column in target.T)
    if devices == 1 or not cyclic:
        return x[np.argsort(positions)]
    permutes: dict[tuple[int, ...], list[int]] = defaultdict(list)  # from each device's target to the rows it sends
    for place, column in enumerate(target.T):
        permutes[tuple(map(int, column))].append(place)

    def on_device(x: Array) -> Array:
        moved = [
            lax.ppermute(x[np.array(rows)], DATA, list(enumerate(targets)))
            if targets != tuple(range(devices))
            else x[np.array(rows)]
            for targets, rows in permutes.items()
        ]
        arrived = np.concatenate([row[0][rows] for rows in permutes.values()])
        return jnp.concatenate(moved)[np.argsort(arrived)]

    return jax.shard_map(on_device, mesh=mesh, in_specs=PartitionSpec(DATA), out_specs=PartitionSpec(DATA))(x)
