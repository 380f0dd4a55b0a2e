"""Top-1 accuracy and its 95 % interval, for independent examples or for groups of dependent examples."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

Arrays = Array | np.ndarray
Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution

# Fewer images than these measure nothing. InfoNCE of N pairs is at most log N, and where single pairs differ by a nat
# or so, its mean has a standard error of 1 / sqrt(N). An accuracy has one of up to 0.5 / sqrt(N). Of 16 images the nats
# have a ceiling of 2.77 and a 95 % interval 1.0 wide, and the accuracy has one of 44 points. Of 8 these are 2.08,
# 1.4 and 57, and no gain over an untrained network stands out from that.
FEWEST = 16


@jax.jit
def top1(scores: Float[Arrays, "Q C"], labels: Int[Arrays, " Q"]) -> Float[Array, ""]:
    """Returns the share of rows whose largest score is at the label. The lower class wins a tie.

    Args:
      scores: float [Q, C], larger for more likely classes.
      labels: int [Q], in [0, C).

    Returns:
      float32 scalar in [0, 1]; NaN if any score is NaN.
    """
    hits = jnp.mean((jnp.argmax(scores, axis=-1) == labels).astype(jnp.float32))
    return jnp.where(jnp.any(jnp.isnan(scores)), jnp.nan, hits)


def effective_count(hits: Bool[np.ndarray, " N"], groups: Int[np.ndarray, " N"]) -> float:
    """Returns the number of independent examples whose accuracy would have the same variance.

    Examples of one group, such as frames of one object, tend to be right or wrong together, so N of them say less than
    N independent ones. With p the share of hits, G groups and e_g = sum_{i in g} (hit_i - p), the variance of p is
    G/(G-1) sum_g e_g^2 / N^2, and the count is p (1 - p) / variance, at most N. It is G if all or none are hits.

    Args:
      hits: whether each example is right, bool [N].
      groups: group of each example, int [N].
    Returns:
      a number in [1, N].
    Source: Kish 1965, "Survey sampling" (design effect of clusters), without small-sample factors.
    """
    _, group = np.unique(groups, return_inverse=True)
    share, num_groups = float(np.mean(hits)), int(group.max()) + 1
    if num_groups < 2 or share in (0.0, 1.0):
        return float(num_groups)
    errors = np.bincount(group, weights=np.asarray(hits, np.float64) - share)
    variance = num_groups / (num_groups - 1) * float(np.sum(errors**2)) / len(hits) ** 2
    return float(len(hits)) if variance == 0.0 else min(max(share * (1 - share) / variance, 1.0), float(len(hits)))


def interval95(share: float, count: float) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share from `count` independent trials, without continuity correction.

    The interval is centre +- half, with n = count and z = 1.96:
    centre = (share + z^2/2n) / (1 + z^2/n), half = z sqrt(share (1 - share)/n + z^2/4n^2) / (1 + z^2/n).

    Returns:
      (low, high), both in [0, 1].
    Raises:
      ValueError: count < 1, or share outside [0, 1].
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if count < 1 or not 0.0 <= share <= 1.0:
        raise ValueError(f"no interval for a share of {share} in {count} trials")
    ratio = Z95**2 / count
    centre = (share + ratio / 2) / (1 + ratio)
    half = Z95 * math.sqrt(share * (1 - share) / count + ratio / (4 * count)) / (1 + ratio)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
