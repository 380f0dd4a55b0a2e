"""Device meshes and the two placements that a run uses: replicated, and cut along the batch."""

from __future__ import annotations

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

DATA, MODEL = "data", "model"


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """A mesh of one axis `data` over `devices` (all by default), of axis type Auto."""
    devices = jax.devices() if devices is None else devices
    return Mesh(np.array(devices), (DATA,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Axis 0 cut over `data`."""
    return NamedSharding(mesh, PartitionSpec(DATA))
