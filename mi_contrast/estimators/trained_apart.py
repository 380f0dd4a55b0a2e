"""Estimators from a square matrix of scores whose gradient is not their value's: read one thing, climb another.

They return the value and carry the gradient of a surrogate g, which each docstring names. The matrix is read as in
`matrices`: rows x, columns y, joint pairs on the diagonal, -inf removes a pair.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.matrices import (
    Pairs,
    average,
    concrete,
    counted,
    log_mean_crossed,
    mean_joint,
    nwj,
    parted,
)


class Partition(NamedTuple):
    """The running mean of E e^f that `mine` keeps for each matrix: the logarithm of the sum that a mean of decaying
    weights has gathered (not yet divided by their sum), f32 [...], and how many batches it has seen, int32 [...].
    """

    log_ema: Float[Array, "..."]
    step: Int[Array, "..."]

    @classmethod
    def first(cls, shape: tuple[int, ...] = ()) -> Partition:
        """The partition that has seen nothing; `shape` is that of the leading axes of the scores."""
        return cls(jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32))


def mine(
    scores: Float[Array, "... N N"], partition: Partition, *, decay: Float[Array, ""] | float = 0.99
) -> tuple[Float[Array, "..."], Partition]:
    """MINE: the value of Donsker-Varadhan, the gradient with the partition averaged over batches.

    value = mean_i F_ii - log b_t, b_t = mean_{i != j} e^{F_ij} of this batch;
    gradient that of g = mean_i F_ii - b_t / b, b constant: b = m_t / (1 - decay^t), m_t = decay m_{t-1} + (1 - decay)
    b_t, m_0 = 0. So b is the mean of b_1 ... b_t with weights that sum to 1, this batch's included, and at t = 1 the
    gradient is Donsker-Varadhan's. Everything is kept as logarithms, so that no e^f overflows.

    The average makes the *gradient* nearly unbiased; the value stays as much too high as `donsker_varadhan`'s.

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
      partition: what the last call gave, or `Partition.first(scores.shape[:-2])`.
      decay: in [0, 1); may be traced. 0 is Donsker-Varadhan.
    Returns:
      nats, f32 [...], no bound from one batch (see `donsker_varadhan`); and the next partition, without gradient: as it
      was where no crossed pair is left, NaN from then on where b_t was not finite. Optimum critic: log p(x,y) / (p(x)
      p(y)) + any constant.
    Raises:
      UserError: no square matrix of at least 2 x 2; a partition that does not fit; a concrete decay outside [0, 1).
    Source: Belghazi et al. 2018, whose average starts from the first batch and is not corrected.

    >>> f = jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]]))
    >>> nats, partition = mine(f, Partition.first(), decay=0.5)
    >>> bool(jnp.allclose(nats, jnp.log(6 / 1.5))), bool(jnp.allclose(partition.log_ema, jnp.log(0.5 * 1.5)))
    (True, True)
    """
    known = concrete(decay)
    if known is not None and not np.all((known >= 0) & (known < 1)):
        raise UserError(f"decay {decay} is outside [0, 1)", fix="give a share of the past to keep, such as .99")
    pairs = parted(scores)
    shapes = jnp.shape(partition.log_ema), jnp.shape(partition.step)
    if shapes != (pairs.joint.shape[:-1],) * 2:
        raise UserError(
            f"a partition of {shapes[0]} and {shapes[1]} does not fit {pairs.joint.shape[:-1]} matrices",
            fix="start from Partition.first(scores.shape[:-2])",
        )
    return _mine(pairs, partition, jnp.asarray(decay, jnp.float32))


def jensen_shannon(scores: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """Trained as the f-GAN bound of the Jensen-Shannon divergence, read as NWJ of f + 1.

    value = 1 + mean_i F_ii - mean_{i != j} e^{F_ij};
    gradient that of g = - mean_i softplus(-F_ii) - mean_{i != j} softplus(F_ij), at most 0, whose optimum critic is
    f = log p(x,y) / (p(x) p(y)) itself: hence the 1, without which the value is low by 1/e at the optimum.

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
    Returns:
      nats, f32 [...]: in the mean over batches of independent pairs a lower bound on I, for any critic.
    Raises:
      UserError: no square matrix of at least 2 x 2.
    Source: Nowozin et al. 2016, Poole et al. 2019; the released read-outs are NWJ of f.

    >>> value = jensen_shannon(jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]])))
    >>> bool(jnp.allclose(value, 1 + jnp.log(6.0) - 1.5))
    True
    """
    scores = jnp.asarray(scores).astype(jnp.float32)
    return _climbing(nwj(scores + 1.0), _divergence(parted(scores)))


def smile(scores: Float[Array, "... N N"], clip: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """SMILE: Donsker-Varadhan with the crossed scores clipped, trained as `jensen_shannon` is.

    value = mean_i F_ii - log mean_{i != j} e^{min(max(F_ij, -clip), clip)}, the joint pairs not clipped;
    gradient that of g = - mean_i softplus(-F_ii) - mean_{i != j} softplus(F_ij), whose optimum critic is
    f = log p(x,y) / (p(x) p(y)).

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair, clipped or not.
      clip: > 0, one for all or [...]; may be traced, may be infinite (the value is then `donsker_varadhan`'s).
    Returns:
      nats, f32 [...]: neither bound. Clipping lowers the variance and, with the optimum critic, reads high.
    Raises:
      UserError: no square matrix of at least 2 x 2; a concrete clip <= 0.
    Source: Song and Ermon 2020 (SMILE).

    >>> value = smile(jnp.log(jnp.array([[6.0, 1.0], [9.0, 6.0]])), jnp.log(2.0))
    >>> bool(jnp.allclose(value, jnp.log(6 / 1.5)))
    True
    """
    known = concrete(clip)
    if known is not None and not np.all(known > 0):
        raise UserError(f"clip {clip} is not above 0", fix="give a bound on |f|, such as 5, or infinity")
    pairs = parted(scores)
    return _climbing(_smile(pairs, jnp.asarray(clip, jnp.float32)), _divergence(pairs))


@jax.custom_jvp
def _climbing(value: Array, surrogate: Array) -> Array:
    """The value, with the surrogate's gradient: surrogate + stop_gradient(value - surrogate), without its rounding."""
    return value


_climbing.defjvps(None, lambda slope, out, value, surrogate: slope)


@jax.jit
def _mine(pairs: Pairs, partition: Partition, decay: Array) -> tuple[Array, Partition]:
    log_batch = log_mean_crossed(pairs.crossed)
    some = jnp.any(pairs.crossed != -jnp.inf, axis=(-2, -1))
    step = partition.step + some
    finite = jnp.where(log_batch == jnp.inf, jnp.nan, log_batch)  # an infinite average would silence later batches
    log_ema = jnp.logaddexp(jnp.log(decay) + partition.log_ema, jnp.log1p(-decay) + finite)
    log_ema = lax.stop_gradient(jnp.where(some, log_ema, partition.log_ema))
    log_average = log_ema - jnp.log(-jnp.expm1(step.astype(jnp.float32) * jnp.log(decay)))
    ratio = jnp.exp(jnp.where(some, log_batch - lax.stop_gradient(log_average), 0.0))
    surrogate = counted(pairs, mean_joint(pairs) - ratio)
    return _climbing(counted(pairs, mean_joint(pairs) - log_batch), surrogate), Partition(log_ema, step)


@jax.jit
def _smile(pairs: Pairs, clip: Array) -> Array:
    clip = clip[..., None, None]
    clipped = jnp.where(pairs.crossed == -jnp.inf, -jnp.inf, jnp.clip(pairs.crossed, -clip, clip))
    return counted(pairs, mean_joint(pairs) - log_mean_crossed(clipped))


@jax.jit
def _divergence(pairs: Pairs) -> Array:
    """- mean softplus(-F_ii) - mean_{i != j} softplus(F_ij): at its optimum twice the divergence, less 2 log 2."""
    here, crossed = pairs.joint != -jnp.inf, pairs.crossed != -jnp.inf
    joint = average(jax.nn.softplus(-jnp.where(here, pairs.joint, 0.0)), here)
    other = average(jax.nn.softplus(jnp.where(crossed, pairs.crossed, 0.0)), crossed, axes=2)
    return counted(pairs, -joint - other)
