"""The device mesh, the two shardings that a run uses (replicated, and cut along the batch), and arrays on it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

DATA, MODEL = "data", "model"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """Makes a mesh with one axis, `data`, of type Auto, over `devices` (all by default)."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices), (DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps the whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that cuts axis 0 over the mesh axis `data`."""
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
    own = replicated(make_mesh(jax.local_devices()))

    def take(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or not leaf.is_fully_replicated:
            return leaf
        return jax.make_array_from_single_device_arrays(leaf.shape, own, [s.data for s in leaf.addressable_shards])

    return jax.tree.map(take, tree)
