"""Binary NCE, the original loss of instance discrimination, and its normaliser Z, which the caller keeps as state.

The softmax forms are the default. Binary NCE needs a guess of Z. The released code computes Z once, from the first
batch against a random bank, which is far from its value later in training, most of all with a queue of keys. The
softmax over the same candidates needs no Z and is a lower bound on I. Without momentum in the bank the two are the same
method (Wu et al. 2020).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mi_contrast.estimators.mass import Mass, join, log_mean, mask_weights, mass
from mi_contrast.estimators.scores import as_float32


def binary_nce(
    positive: Float[Array, "... B"],
    pool: Float[Array, "... B K"],
    log_normaliser: Float[Array, "..."] | float,
    data_size: Float[Array, "..."] | int,
    *,
    where: Array | None = None,
) -> Float[Array, "... B"]:
    """Returns minus the binary NCE loss, which classifies the positive as data and each candidate as noise.

    With P = e^f / Z, K the number of valid candidates of the anchor and N the size of the data:
    value = log( P+ / (P+ + K/N) ) + sum_j log( (K/N) / (P_j + K/N) ), computed as
    log sigmoid(f+ - c) + sum_j log sigmoid(c - f_j), c = log Z + log(K/N).

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with candidates drawn uniformly from the data.
      log_normaliser: log Z, f32, one for all or [..., B]: the constant `first_normaliser`, or the running value of
        `moving_normaliser`.
      data_size: N, the number of examples.
      where: bool or weights >= 0 [..., B, K], valid candidates; weights are multiplicities; default all.
    Returns:
      nats, f32 [..., B], at most 0; 0 with zero gradient where there is no positive or no candidate. No bound on I.
    Raises:
      UserError: shapes that do not fit.
    Source: Wu et al. 2018. The released loss of one anchor is minus this value, except that it adds 1e-7 to both
    denominators. This changes the value by at most about 1e-7 N nats (.13 on ImageNet) if candidates are likely noise.

    >>> nats = binary_nce(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([[1.0, 3.0]])), jnp.log(2.0), 4)
    >>> bool(jnp.allclose(nats, jnp.log(3 / 3.5) + jnp.log(0.5 / 1) + jnp.log(0.5 / 2)))
    True
    """
    return _binary_nce(*as_float32(positive, pool), log_normaliser, data_size, where)


@jax.jit
def _binary_nce(positive: Array, pool: Array, log_normaliser: Array, data_size: Array, where: Array | None) -> Array:
    valid, weights = mask_weights(pool, where)
    size = jnp.sum(weights, axis=-1)
    empty = (positive == -jnp.inf) | (size == 0)
    offset = jnp.log(jnp.where(empty, 1.0, size)) - jnp.log(jnp.asarray(data_size, jnp.float32)) + log_normaliser
    log_data = jax.nn.log_sigmoid(jnp.where(empty, 0.0, positive) - offset)
    log_noise = jax.nn.log_sigmoid(offset[..., None] - jnp.where(valid, pool, 0.0))
    return jnp.where(empty, 0.0, log_data + jnp.sum(jnp.where(valid, weights * log_noise, 0.0), axis=-1))


def first_normaliser(
    positive: Float[Array, "... B"],
    pool: Float[Array, "... B K"],
    data_size: Float[Array, "..."] | int,
    *,
    where: Array | None = None,
) -> Float[Array, ""]:
    """Returns log Z from one batch: log(mean of e^f over the positives and candidates of all anchors) + log N.

    Args:
      positive, pool, data_size, where: see `binary_nce`.
    Returns:
      f32 []; log N if there is no valid score. No gradient.
    Source: the released code of Wu et al. 2018.

    >>> f = jnp.log(jnp.array([[1.0, 3.0]]))
    >>> bool(jnp.allclose(first_normaliser(jnp.log(jnp.array([8.0])), f, 10), jnp.log(4.0 * 10)))
    True
    """
    positive, pool = lax.stop_gradient(as_float32(positive, pool))
    weights = None if where is None else lax.stop_gradient(jnp.broadcast_to(where, pool.shape)).reshape(-1)
    all_scores = join(mass(positive.reshape(-1), None), mass(pool.reshape(-1), weights))
    return log_mean(all_scores) + jnp.log(jnp.asarray(data_size, jnp.float32))


def moving_normaliser(
    log_normaliser: Float[Array, ""] | float, fresh: Float[Array, ""] | float, momentum: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Returns the log of the moving average of Z: log(momentum Z + (1 - momentum) Z_fresh).

    Args:
      log_normaliser: log Z so far, f32; -inf before the first batch, which sets it to `fresh`.
      fresh: log Z of this batch, `first_normaliser`.
      momentum: in [0, 1], the weight of the old value. With 1 the value of the first batch stays, as in the released
        code.
    Returns:
      the new log Z, f32.

    >>> state = moving_normaliser(-jnp.inf, jnp.log(8.0), 0.75)
    >>> bool(jnp.allclose(moving_normaliser(state, jnp.log(4.0), 0.75), jnp.log(7.0)))
    True
    """
    old, fresh, momentum = (jnp.asarray(x, jnp.float32) for x in (log_normaliser, fresh, momentum))
    total = join(Mass(old + jnp.log(momentum), momentum), Mass(fresh + jnp.log1p(-momentum), 1 - momentum))
    return jnp.where(old == -jnp.inf, fresh, total.log_sum)
