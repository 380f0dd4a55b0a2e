"""The device mesh, the two shardings that a run uses (replicated, and cut along the batch), and arrays on it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from mi_contrast.core import processes

DATA, MODEL = "data", "model"
GATHERED_BYTES = 2**26  # what `gather_rows` holds on a device at a time


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Makes a mesh with one axis, `data`, of type Auto, over `devices` (all by default)."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices), (DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of axis 0 over the mesh axis `data`."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def place(array: Any, sharding: Sharding) -> jax.Array:
    """Puts an array on devices, those of other processes included. Every process must have the same array.

    `jax.device_put` would gather the arrays of all processes to compare them, which needs memory for each of them.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(array, sharding)
    whole = np.asarray(array)
    return jax.make_array_from_callback(whole.shape, sharding, lambda at: whole[at])


def take_local(tree: Any) -> Any:
    """Returns a tree of arrays on this process's own devices, so that it can compute without the other processes.

    Arrays that are replicated over several processes are not copied: each device has them already. Arrays that are cut,
    and all arrays of a single process, stay as they are.
    """
    own = replicated(local_mesh())

    def take(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or not leaf.is_fully_replicated:
            return leaf
        return jax.make_array_from_single_device_arrays(leaf.shape, own, [s.data for s in leaf.addressable_shards])

    return jax.tree.map(take, tree)


def local_mesh() -> Mesh:
    """Makes the mesh of this process's own devices. With one process it is the mesh of all."""
    return make_mesh(jax.local_devices())


def share_rows(count: int) -> np.ndarray:
    """Returns the rows, of so many, that this process works on, int64. All processes get equally many.

    The last row is repeated where they do not divide evenly; `gather_rows` drops the repeats. One process gets all.
    """
    each = -(-count // processes.count())
    return np.minimum(np.arange(each) + each * processes.index(), count - 1)


def gather_rows(rows: np.ndarray, count: int) -> np.ndarray:
    """Returns the results of all processes for their `share_rows(count)`, in order, [count, ...], on all of them."""
    if processes.count() == 1:
        return rows
    step = max(1, GATHERED_BYTES // max(1, processes.count() * rows[:1].nbytes))
    parts = [multihost_utils.process_allgather(rows[i : i + step]) for i in range(0, len(rows), step)]
    return np.concatenate(np.concatenate(parts, axis=1))[:count]


@lru_cache(maxsize=1)
def host_device() -> jax.Device | None:
    """Returns the host's first CPU device, on which readers draw, or None if JAX was started without one."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
