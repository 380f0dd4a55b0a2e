"""Top-1 accuracy and its 95 % interval, of independent examples or of groups that go together."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

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


def effective_count(hits: Bool[np.ndarray, " N"], groups: Int[np.ndarray, " N"]) -> float:
    """How many independent trials tell as much of the share as these, of which those of one group go together.

    Frames of one object are right or wrong together, so that N of them tell less than N objects would.
    With p the share, G groups and e_g = sum_{i in g} (hit_i - p): variance of p = G/(G-1) sum_g e_g^2 / N^2, and
    count = p (1 - p) / variance, at most N; G where all or none are hits.

    Args:
      hits: bool [N]; groups: int [N].

    Returns:
      in [1, N]. Source: Kish 1965, "Survey sampling" (design effect of clusters), without small-sample factors.
    """
    _, group = np.unique(groups, return_inverse=True)
    share, number = float(np.mean(hits)), int(group.max()) + 1
    if number < 2 or share in (0.0, 1.0):
        return float(number)
    errors = np.bincount(group, weights=np.asarray(hits, np.float64) - share)
    variance = number / (number - 1) * float(np.sum(errors**2)) / len(hits) ** 2
    return float(len(hits)) if variance == 0.0 else min(max(share * (1 - share) / variance, 1.0), float(len(hits)))


def interval95(share: float, count: float) -> tuple[float, float]:
    """The 95 % interval of a share seen in `count` independent trials (Wilson's, without continuity correction).

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
