"""Checksums of arrays: a damaged leaf of a checkpoint is noticed, whatever devices wrote it and read it.

Each element's bits and its place are hashed (the finaliser of MurmurHash3, A. Appleby, public domain), twice with other
constants, and the hashes are summed modulo 2^32. A sum does not depend on the order in which devices add, so an
array has one checksum on every mesh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

LANES = (0x9E3779B9, 0x7F4A7C15)  # odd constants that start the two hashes
CHUNK = 1 << 18  # elements hashed at a time on the host, so that they stay in the processor's cache

Leaf = Array | np.ndarray


def describe(leaf: Leaf, sums: Sequence[int] | np.ndarray) -> str:
    """The checksum as text: dtype, shape and the two sums in hexadecimal, such as 'float32[2,3] 0123456789abcdef'."""
    shape = ",".join(str(size) for size in leaf.shape)
    return f"{leaf.dtype}[{shape}] {int(sums[0]):08x}{int(sums[1]):08x}"


def checksums(flat: Mapping[str, Leaf]) -> dict[str, str]:
    """The checksum of every leaf.

    Args:
      flat: arrays by name, of numpy or jax, of up to 8 bytes an element. All processes call with the same names.

    Returns:
      {name: text as `describe` gives it}, the same for the same bits on any devices.
    """
    sums = {name: _on_host(np.asarray(x)) if _is_here(x) else _on_devices(x) for name, x in flat.items()}
    return {name: describe(flat[name], found) for name, found in jax.device_get(sums).items()}


def _is_here(leaf: Any) -> bool:
    """Whether numpy can read the leaf without a copy from an accelerator or another process."""
    if not isinstance(leaf, Array):
        return True
    return leaf.is_fully_addressable and all(device.platform == "cpu" for device in leaf.devices())


def _mix(words: Any) -> Any:
    """MurmurHash3's finaliser of uint32 words: each bit of the input changes half of the output's bits."""
    words = (words ^ (words >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    words = (words ^ (words >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return words ^ (words >> np.uint32(16))


def _on_host(array: np.ndarray) -> np.ndarray:
    """uint32 [2]: the sums of an array on the host."""
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
def _on_devices(array: Array) -> Array:
    """uint32 [2]: the sums of an array over devices; each adds what it holds."""
    size = array.dtype.itemsize
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[size]
    bits = jax.lax.bitcast_convert_type(array, unsigned)  # of 8 bytes: [..., 2], the low word first
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
