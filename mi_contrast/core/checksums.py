"""Checksums of arrays, which detect damaged leaves of a checkpoint.

The bits of each element are hashed together with its flat index (by the finaliser of MurmurHash3, A. Appleby, public
domain). The hashes are summed modulo 2^32. This is done twice, with two constants. A sum does not depend on the order
of its terms, so an array has the same checksum on every mesh of devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LANES = (0x9E3779B9, 0x7F4A7C15)  # odd constants that start the two hashes
CHUNK = 1 << 18  # elements hashed at a time on the host, so that they stay in the processor's cache


def describe(leaf: Any, sums: Any) -> str:
    """Writes a checksum as text: dtype, shape and both sums in hexadecimal, as in 'float32[2,3] 0123456789abcdef'."""
    shape = ",".join(str(size) for size in leaf.shape)
    return f"{leaf.dtype}[{shape}] {int(sums[0]):08x}{int(sums[1]):08x}"


def compute_checksums(flat: Mapping[str, Any]) -> dict[str, str]:
    """Returns the checksum of every array.

    Args:
      flat: arrays of numpy or jax by name, at most 8 bytes an element. All processes must call with the same names.

    Returns:
      {name: text of `describe`}. Equal bits give equal text, whatever devices hold them.
    """
    sums = {name: _sum_on_host(np.asarray(x)) if _is_on_host(x) else _sum_on_devices(x) for name, x in flat.items()}
    return {name: describe(flat[name], both) for name, both in jax.device_get(sums).items()}


def _is_on_host(leaf: Any) -> bool:
    """Whether numpy can read the array without a copy from an accelerator or from another process."""
    if not isinstance(leaf, Array):
        return True
    return leaf.is_fully_addressable and all(device.platform == "cpu" for device in leaf.devices())


def _mix(words: Any) -> Any:
    """Hashes uint32 words by MurmurHash3's finaliser: each bit of the input changes half of the output's bits."""
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return words ^ (words >> np.uint32(16))


def _sum_on_host(array: np.ndarray) -> np.ndarray:
    """Returns both sums, uint32 [2], of an array on the host."""
    flat = np.ascontiguousarray(array).reshape(-1)
    size = flat.dtype.itemsize
    bits = flat.view(np.dtype(f"u{size}"))
    total = np.zeros(2, np.uint64)
    for begin in range(0, len(bits), CHUNK):
        part = bits[begin : begin + CHUNK]
        place = _mix(np.arange(begin, begin + len(part), dtype=np.uint64).astype(np.uint32))
        words = [part.astype(np.uint32)] if size < 8 else [part.astype(np.uint32), (part >> 32).astype(np.uint32)]
        for lane, constant in enumerate(LANES):
            for word in words:
                place = _mix(place + np.uint32(constant))
                total[lane] += _mix(word ^ place).sum(dtype=np.uint64)
    return (total & np.uint64(0xFFFFFFFF)).astype(np.uint32)


@partial(jax.jit, inline=False)
def _sum_on_devices(array: Array) -> Array:
    """Returns both sums, uint32 [2], of an array on devices. Each device sums its own shard."""
    size = array.dtype.itemsize
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[size]
    bits = jax.lax.bitcast_convert_type(array, unsigned)  # [..., 2] for elements of 8 bytes, the low word first
    words = [bits.astype(jnp.uint32)] if size < 8 else [bits[..., 0], bits[..., 1]]
    place = jnp.zeros(array.shape, jnp.uint32)
    for axis, length in enumerate(array.shape):
        place = place * jnp.uint32(length % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis)
    place, sums = _mix(place), []
    for constant in LANES:
        total = jnp.uint32(0)
        for word in words:
            place = _mix(place + jnp.uint32(constant))
            total += jnp.sum(_mix(word ^ place), dtype=jnp.uint32)
        sums.append(total)
    return jnp.stack(sums)
