"""Converts percentiles of similarity to exact integer ranks."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import UserError

Percentile = Float[Array, "..."] | float


def check_band(lower: Percentile, upper: Percentile) -> None:
    """Raises an error if a band is empty or not within [0, 1]. Traced percentiles are not checked.

    Raises:
      UserError: a concrete percentile is not in [0, 1], or a concrete lower >= upper.
    """
    edges = [None if isinstance(p, jax.core.Tracer) else np.asarray(p, np.float64) for p in (lower, upper)]
    for name, edge in zip(("lower", "upper"), edges, strict=True):
        if edge is not None and not np.all((edge >= 0) & (edge <= 1)):
            raise UserError(f"percentile {name} = {edge} is outside [0, 1]", fix="0 is least similar, 1 most similar")
    if edges[0] is not None and edges[1] is not None and not np.all(edges[0] < edges[1]):
        raise UserError(f"band [{edges[0]}, {edges[1]}) holds nothing", fix="give lower < upper, 0 being least similar")


def nan_or_zero(*percentiles: Percentile) -> Float[Array, "..."]:
    """Returns NaN where any percentile is NaN and 0 elsewhere.

    Ranks are integers and cannot hold a NaN. Adding this value to a result keeps a broken schedule visible.
    """
    is_nan = [jnp.isnan(jnp.asarray(p, jnp.float32)) for p in percentiles]
    return jnp.where(functools.reduce(jnp.logical_or, is_nan), jnp.float32(jnp.nan), 0.0)


def millionths(percentile: Percentile) -> Int[Array, "..."]:
    """Returns P = round(10^6 p) as int32, clipped to [0, 10^6].

    Device arrays are rounded in float32, numbers and numpy arrays in float64.
    """
    if isinstance(percentile, jax.Array):
        rounded = jnp.round(percentile.astype(jnp.float32) * 1e6)
    else:
        rounded = jnp.asarray(np.round(np.asarray(percentile, np.float64) * 1e6), jnp.float32)
    return jnp.clip(jnp.nan_to_num(rounded), 0, 1e6).astype(jnp.int32)


def rank(millionths: Int[Array, "..."] | int, count: Int[Array, "..."] | int) -> Int[Array, "..."]:
    """Returns how many of `count` candidates lie below a percentile: r = floor((n P + 500,000) / 10^6).

    All arithmetic is int32 and exact up to n = 2^31 - 1; float32 and float64 are off by one for some n and P.
    With q, s = divmod(n, 1000); a, b = divmod(P, 1000); u, v = divmod(b q, 1000):

        r = a q + u + (1000 v + P s + 500,000) // 10^6.

    Args:
      millionths: P, int32 [...], from 0 (least similar) to 10^6.
      count: n >= 0, int32 [...].
    Returns:
      int32 [...], from 0 to n.

    >>> int(rank(millionths(0.99), 65536)) - int(rank(millionths(0.9), 65536))
    5899
    """
    millionths = jnp.asarray(millionths, jnp.int32)
    q, s = jnp.divmod(jnp.asarray(count, jnp.int32), 1000)
    a, b = jnp.divmod(millionths, 1000)
    u, v = jnp.divmod(b * q, 1000)
    return a * q + u + (1000 * v + millionths * s + 500_000) // 1_000_000
