"""Estimators from square matrices of scores whose gradient is that of another function, the surrogate.

They return one value and carry the gradient of a surrogate g, which each docstring names. The conventions for matrices
are those of `matrices`: rows x, columns y, joint pairs on the diagonal, -inf removes a pair.
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
    concrete_value,
    log_mean_crossed,
    masked_mean,
    mean_joint,
    nwj,
    split_pairs,
    zero_if_empty,
)


class Partition(NamedTuple):
    """The moving average of the partition function E e^f that `mine` keeps, one for each matrix.

    Attributes:
      log_ema: log of the exponential moving average, not corrected for its start at 0, f32 [...].
      step: number of batches so far, int32 [...].
    """

    log_ema: Float[Array, "..."]
    step: Int[Array, "..."]

    @classmethod
    def first(cls, shape: tuple[int, ...] = ()) -> Partition:
        """Returns the partition before the first batch. `shape` holds the leading axes of the scores."""
        return cls(jnp.full(shape, -jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32))


def mine(
    scores: Float[Array, "... N N"], partition: Partition, *, decay: Float[Array, ""] | float = 0.99
) -> tuple[Float[Array, "..."], Partition]:
    """Returns MINE: the value of Donsker-Varadhan, with a gradient that averages the partition function over batches.

    value = mean_i F_ii - log b_t, with b_t = mean_{i != j} e^{F_ij} of this batch;
    gradient of g = mean_i F_ii - b_t / b, with b constant: b = m_t / (1 - decay^t), m_t = decay m_{t-1} + (1 - decay)
    b_t, m_0 = 0. So b is a weighted mean of b_1 ... b_t, and at t = 1 the gradient is that of Donsker-Varadhan. All
    averages are kept as logarithms, so that no e^f overflows.

    Averaging makes the *gradient* nearly unbiased. The value is as biased as that of `donsker_varadhan`.
    Optimum critic: log p(x,y) / (p(x) p(y)) + any constant.

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
      partition: the result of the last call, or `Partition.first(scores.shape[:-2])`.
      decay: in [0, 1); may be traced. With 0 this is Donsker-Varadhan.
    Returns:
      nats, f32 [...], which are no bound (see `donsker_varadhan`), and the next partition, without gradient. The
      partition does not change if the matrix has no crossed pair; it is NaN from the first b_t that is not finite.
    Raises:
      UserError: not a square matrix of at least 2 x 2; a partition that does not fit; a concrete decay outside [0, 1).
    Source: Belghazi et al. 2018, where the average starts from the first batch and is not corrected.

    >>> f = jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]]))
    >>> nats, partition = mine(f, Partition.first(), decay=0.5)
    >>> bool(jnp.allclose(nats, jnp.log(6 / 1.5))), bool(jnp.allclose(partition.log_ema, jnp.log(0.5 * 1.5)))
    (True, True)
    """
    concrete = concrete_value(decay)
    if concrete is not None and not np.all((concrete >= 0) & (concrete < 1)):
        raise UserError(f"decay {decay} is outside [0, 1)", fix="give a share of the past to keep, such as .99")
    pairs = split_pairs(scores)
    shapes = jnp.shape(partition.log_ema), jnp.shape(partition.step)
    if shapes != (pairs.joint.shape[:-1],) * 2:
        raise UserError(
            f"a partition of {shapes[0]} and {shapes[1]} does not fit {pairs.joint.shape[:-1]} matrices",
            fix="start from Partition.first(scores.shape[:-2])",
        )
    return _mine(pairs, partition, jnp.asarray(decay, jnp.float32))


def jensen_shannon(scores: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """Returns NWJ of f + 1, with the gradient of the f-GAN bound of the Jensen-Shannon divergence.

    value = 1 + mean_i F_ii - mean_{i != j} e^{F_ij};
    gradient of g = - mean_i softplus(-F_ii) - mean_{i != j} softplus(F_ij), at most 0.

    The optimum critic of g is f = log p(x,y) / (p(x) p(y)), and that of NWJ is f + 1. Without the 1 the value would be
    low by 1/e at the optimum.

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
    Returns:
      nats, f32 [...]. The mean over batches of independent pairs is a lower bound on I for any critic.
    Raises:
      UserError: not a square matrix of at least 2 x 2.
    Source: Nowozin et al. 2016, Poole et al. 2019. Their released code returns NWJ of f.

    >>> value = jensen_shannon(jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]])))
    >>> bool(jnp.allclose(value, 1 + jnp.log(6.0) - 1.5))
    True
    """
    scores = jnp.asarray(scores).astype(jnp.float32)
    return _replace_gradient(nwj(scores + 1.0), _divergence(split_pairs(scores)))


def smile(scores: Float[Array, "... N N"], clip: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """Returns SMILE: Donsker-Varadhan with clipped crossed scores, and the gradient of `jensen_shannon`.

    value = mean_i F_ii - log mean_{i != j} e^{min(max(F_ij, -clip), clip)}; joint pairs are not clipped;
    gradient of g = - mean_i softplus(-F_ii) - mean_{i != j} softplus(F_ij), whose optimum critic is
    f = log p(x,y) / (p(x) p(y)).

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
      clip: > 0, one for all or [...]; may be traced. If it is infinite, the value is that of `donsker_varadhan`.
    Returns:
      nats, f32 [...], which are no bound. Clipping lowers the variance. With the optimum critic the value is too high.
    Raises:
      UserError: not a square matrix of at least 2 x 2; a concrete clip <= 0.
    Source: Song and Ermon 2020 (SMILE).

    >>> value = smile(jnp.log(jnp.array([[6.0, 1.0], [9.0, 6.0]])), jnp.log(2.0))
    >>> bool(jnp.allclose(value, jnp.log(6 / 1.5)))
    True
    """
    concrete = concrete_value(clip)
    if concrete is not None and not np.all(concrete > 0):
        raise UserError(f"clip {clip} is not above 0", fix="give a bound on |f|, such as 5, or infinity")
    pairs = split_pairs(scores)
    return _replace_gradient(_smile(pairs, jnp.asarray(clip, jnp.float32)), _divergence(pairs))


@jax.custom_jvp
def _replace_gradient(value: Array, surrogate: Array) -> Array:
    """Returns the value with the gradient of the surrogate.

    This is surrogate + stop_gradient(value - surrogate) without its rounding errors.
    """
    return value


_replace_gradient.defjvps(None, lambda tangent, out, value, surrogate: tangent)


@jax.jit
def _mine(pairs: Pairs, partition: Partition, decay: Array) -> tuple[Array, Partition]:
    log_batch = log_mean_crossed(pairs.crossed)
    nonempty = jnp.any(pairs.crossed != -jnp.inf, axis=(-2, -1))
    step = partition.step + nonempty
    # An infinite average would make the gradients of all later batches 0 without a sign of it. A NaN is visible.
    log_finite = jnp.where(log_batch == jnp.inf, jnp.nan, log_batch)
    log_ema = jnp.logaddexp(jnp.log(decay) + partition.log_ema, jnp.log1p(-decay) + log_finite)
    log_ema = lax.stop_gradient(jnp.where(nonempty, log_ema, partition.log_ema))
    log_average = log_ema - jnp.log(-jnp.expm1(step.astype(jnp.float32) * jnp.log(decay)))
    ratio = jnp.exp(jnp.where(nonempty, log_batch - lax.stop_gradient(log_average), 0.0))
    surrogate = zero_if_empty(pairs, mean_joint(pairs) - ratio)
    return _replace_gradient(zero_if_empty(pairs, mean_joint(pairs) - log_batch), surrogate), Partition(log_ema, step)


@jax.jit
def _smile(pairs: Pairs, clip: Array) -> Array:
    clip = clip[..., None, None]
    clipped = jnp.where(pairs.crossed == -jnp.inf, -jnp.inf, jnp.clip(pairs.crossed, -clip, clip))
    return zero_if_empty(pairs, mean_joint(pairs) - log_mean_crossed(clipped))


@jax.jit
def _divergence(pairs: Pairs) -> Array:
    """Returns -mean softplus(-F_ii) - mean_{i != j} softplus(F_ij).

    At the optimum critic this is twice the Jensen-Shannon divergence minus 2 log 2.
    """
    is_joint, is_crossed = pairs.joint != -jnp.inf, pairs.crossed != -jnp.inf
    joint = masked_mean(jax.nn.softplus(-jnp.where(is_joint, pairs.joint, 0.0)), is_joint)
    crossed = masked_mean(jax.nn.softplus(jnp.where(is_crossed, pairs.crossed, 0.0)), is_crossed, num_axes=2)
    return zero_if_empty(pairs, -joint - crossed)
