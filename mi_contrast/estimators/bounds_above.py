"""Upper bounds on mutual information from square matrices of log p(y | x), with the conventions of `matrices`.

Both need the conditional density itself, up to a function of y, which cancels. A critic that was trained for a lower
bound is not a density. A density of 0 should be replaced by a small number: -inf would remove the pair, where the bound
should be infinite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.estimators.mass import log_mean, mass
from mi_contrast.estimators.matrices import Pairs, masked_mean, mean_joint, split_pairs, zero_if_empty


def club(log_conditional: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """Returns CLUB, the contrastive log-ratio upper bound.

    value = mean_i log q(y_i | x_i) - mean_{i != j} log q(y_j | x_i).

    Args:
      log_conditional: f32 or bf16 [..., N, N], log q(y_j | x_i) plus any function of y; -inf removes a pair.
    Returns:
      nats, f32 [...]. The mean over batches of independent pairs is an upper bound on I if q is the true conditional,
      or close to it: the divergence of p(x) q(y|x) from p(x,y) must be less than that from p(x) p(y). With a learned q
      it is no bound. It is loose: d rho^2 / (1 - rho^2) for d pairs of normals of correlation rho.
    Raises:
      UserError: not a square matrix of at least 2 x 2.
    Source: Cheng et al. 2020. Their code averages over i = j too, which lowers the value by a factor 1 - 1/N.

    >>> club(jnp.array([[3.0, 1.0], [2.0, 4.0]]))
    Array(2., dtype=float32)
    """
    return _club(split_pairs(log_conditional))


def leave_one_out(log_conditional: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """Returns the leave-one-out upper bound: InfoNCE over columns, without the positive in the denominator.

    value = mean_i [log p(y_i | x_i) - log mean_{j != i} p(y_i | x_j)].

    Args:
      log_conditional: f32 or bf16 [..., N, N], log p(y_j | x_i) plus any function of y; -inf removes a pair. The
        optimum critic log p(x,y) / (p(x) p(y)) may be used too.
    Returns:
      nats, f32 [...]. The mean over batches of independent pairs is an upper bound on I if p is the true conditional;
      with a learned one it is no bound. A column without crossed pairs contributes 0.
    Raises:
      UserError: not a square matrix of at least 2 x 2.
    Source: Poole et al. 2019.

    >>> value = leave_one_out(jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]])))
    >>> bool(jnp.allclose(value, (jnp.log(6 / 2) + jnp.log(6 / 1)) / 2))
    True
    """
    return _leave_one_out(split_pairs(log_conditional))


@jax.jit
def _club(pairs: Pairs) -> Array:
    return zero_if_empty(pairs, mean_joint(pairs) - masked_mean(pairs.crossed, pairs.crossed != -jnp.inf, num_axes=2))


@jax.jit
def _leave_one_out(pairs: Pairs) -> Array:
    others = mass(jnp.swapaxes(pairs.crossed, -2, -1), None)
    valid = pairs.joint != -jnp.inf
    values = jnp.where(others.size == 0, 0.0, jnp.where(valid, pairs.joint, 0.0) - log_mean(others))
    return zero_if_empty(pairs, masked_mean(values, valid))
