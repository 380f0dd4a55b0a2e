"""Binary NCE, the historical loss of instance discrimination, and its normaliser: state that the caller keeps.

The softmax forms are the default and this is not, because its normaliser Z has to be guessed: the released code sets it
once, from the first batch against a random bank, where it is far from what training makes of it (far more so with a
queue of keys). The softmax over the same candidates needs no Z, is a lower bound on I in nats, and is the same
method once the bank's momentum is 0 (Wu et al. 2020).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from mi_contrast.estimators.mass import Mass, join, log_mean, mass, present
from mi_contrast.estimators.scores import fitting


def binary_nce(
    positive: Float[Array, "... B"],
    pool: Float[Array, "... B K"],
    log_normaliser: Float[Array, "..."] | float,
    data_size: Float[Array, "..."] | int,
    *,
    where: Array | None = None,
) -> Float[Array, "... B"]:
    """Binary NCE: the positive told from noise and the candidates told to be noise, one by one; minus the loss.

    With P = e^f / Z, K the number of valid candidates of the anchor, N the size of the data:
    value = log( P+ / (P+ + K/N) ) + sum_j log( (K/N) / (P_j + K/N) ), computed as
    log sigmoid(f+ - c) + sum_j log sigmoid(c - f_j), c = log Z + log(K/N).

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with candidates drawn uniformly from the data.
      log_normaliser: log Z, f32, one for all or [..., B]: `first_normaliser`, kept as it is or moved by
        `moving_normaliser`. State of the caller's.
      data_size: N, how many examples there are.
      where: bool or weights >= 0 [..., B, K], valid candidates (weights count as multiplicities); default all.
    Returns:
      nats, f32 [..., B], at most 0; 0 with zero gradient where there is no positive or no candidate. No bound on I.
    Raises:
      UserError: shapes that do not fit.
    Source: Wu et al. 2018; minus the released loss of one anchor, without the 1e-7 that it adds to both denominators,
    which lowers the released value by at most about 1e-7 N nats (.13 on ImageNet) where candidates are likely noise.

    >>> nats = binary_nce(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([[1.0, 3.0]])), jnp.log(2.0), 4)
    >>> bool(jnp.allclose(nats, jnp.log(3 / 3.5) + jnp.log(0.5 / 1) + jnp.log(0.5 / 2)))
    True
    """
    return _binary_nce(*fitting(positive, pool), log_normaliser, data_size, where)


@jax.jit
def _binary_nce(positive: Array, pool: Array, log_normaliser: Array, data_size: Array, where: Array | None) -> Array:
    here, weights = present(pool, where)
    size = jnp.sum(weights, axis=-1)
    nothing = (positive == -jnp.inf) | (size == 0)
    noise = jnp.log(jnp.where(nothing, 1.0, size)) - jnp.log(jnp.asarray(data_size, jnp.float32)) + log_normaliser
    found = jax.nn.log_sigmoid(jnp.where(nothing, 0.0, positive) - noise)
    refused = jax.nn.log_sigmoid(noise[..., None] - jnp.where(here, pool, 0.0))
    return jnp.where(nothing, 0.0, found + jnp.sum(jnp.where(here, weights * refused, 0.0), axis=-1))


def first_normaliser(
    positive: Float[Array, "... B"],
    pool: Float[Array, "... B K"],
    data_size: Float[Array, "..."] | int,
    *,
    where: Array | None = None,
) -> Float[Array, ""]:
    """Log Z of the first batch: log( mean e^f over all columns, the positives' too, and all rows ) + log N.

    Args:
      positive, pool, data_size, where: as for `binary_nce`.
    Returns:
      f32 []; 0 + log N where nothing counts. No gradient.
    Source: Wu et al. 2018, as released.

    >>> f = jnp.log(jnp.array([[1.0, 3.0]]))
    >>> bool(jnp.allclose(first_normaliser(jnp.log(jnp.array([8.0])), f, 10), jnp.log(4.0 * 10)))
    True
    """
    positive, pool = lax.stop_gradient(fitting(positive, pool))
    weights = None if where is None else lax.stop_gradient(jnp.broadcast_to(where, pool.shape)).reshape(-1)
    everything = join(mass(positive.reshape(-1), None), mass(pool.reshape(-1), weights))
    return log_mean(everything) + jnp.log(jnp.asarray(data_size, jnp.float32))


def moving_normaliser(
    log_normaliser: Float[Array, ""] | float, fresh: Float[Array, ""] | float, momentum: Float[Array, ""] | float
) -> Float[Array, ""]:
    """Log of the moving average of Z: log( momentum Z + (1 - momentum) Z_fresh ).

    Args:
      log_normaliser: the caller's state, f32; -inf where there is none yet, which takes the fresh one whole.
      fresh: log Z of this batch, `first_normaliser`.
      momentum: in [0, 1], the weight of the old one; 1 keeps the first batch's for good, as released.
    Returns:
      f32, the new state.

    >>> state = moving_normaliser(-jnp.inf, jnp.log(8.0), 0.75)
    >>> bool(jnp.allclose(moving_normaliser(state, jnp.log(4.0), 0.75), jnp.log(7.0)))
    True
    """
    old, fresh, momentum = (jnp.asarray(x, jnp.float32) for x in (log_normaliser, fresh, momentum))
    both = join(Mass(old + jnp.log(momentum), momentum), Mass(fresh + jnp.log1p(-momentum), 1 - momentum))
    return jnp.where(old == -jnp.inf, fresh, both.log_sum)
