"""Top-1 accuracy and its 95 % interval."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Arrays = Array | np.ndarray  # every readout takes either
Z95 = 1.959963984540054  # the normal's 97.5 % point


@jax.jit
def top1(scores: Float[Arrays, "Q C"], labels: Int[Arrays, " Q"]) -> Float[Array, ""]:
    """Share of rows whose largest score is at the label; the lower class wins a tie.

    Args:
      scores: float [Q, C], larger is likelier.
      labels: int [Q], in [0, C).
    Returns:
      float32 scalar in [0, 1]; NaN where any score is NaN, never a silent number.
    """
    hits = jnp.mean((jnp.argmax(scores, axis=-1) == labels).astype(jnp.float32))
    return jnp.where(jnp.any(jnp.isnan(scores)), jnp.nan, hits)


def interval95(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share seen in `count` trials (Wilson's, without continuity correction).

    centre +- half, with n = count, z = 1.96:
    centre = (share + z^2/2n) / (1 + z^2/n), half = z sqrt(share (1 - share)/n + z^2/4n^2) / (1 + z^2/n).

    Returns: (low, high), both in [0, 1]. ValueError where count < 1 or share lies outside [0, 1].
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if count < 1 or not 0.0 <= share <= 1.0:
        raise ValueError(f"no interval for a share of {share} in {count} trials")
    widen = Z95**2 / count
    centre = (share + widen / 2) / (1 + widen)
    half = Z95 * math.sqrt(share * (1 - share) / count + widen / (4 * count)) / (1 + widen)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
