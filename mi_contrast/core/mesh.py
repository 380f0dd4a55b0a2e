"""The device mesh, and the two shardings that a run uses: replicated, and sharded along the batch."""

from __future__ import annotations

from functools import lru_cache

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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


@lru_cache(maxsize=1)
def host_device() -> jax.Device | None:
    """Returns the host's first CPU device, on which readers draw, or None if JAX was started without one."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
