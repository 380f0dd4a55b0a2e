"""Upper bounds on mutual information from a square matrix of log p(y | x), rows x and columns y, read as in `matrices`.

Both need the conditional density itself, up to a function of y, which cancels; a critic that was trained to bound from
below is none. A density that may be 0 has to be kept above it: -inf removes the pair instead of making the bound
infinite.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.estimators.mass import log_mean, mass
from mi_contrast.estimators.matrices import Pairs, average, counted, mean_joint, parted


def club(log_conditional: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """CLUB: the contrastive log-ratio upper bound.

    value = mean_i log q(y_i | x_i) - mean_{i != j} log q(y_j | x_i), the pair's own y not among the others.

    Args:
      log_conditional: f32 or bf16 [..., N, N], log q(y_j | x_i) plus any function of y; -inf removes a pair.
    Returns:
      nats, f32 [...]: in the mean over batches of independent pairs an upper bound on I where q is the true
      conditional, or near enough: where p(x) q(y|x) diverges less from p(x,y) than from p(x) p(y). With a learned q
      neither. Very loose: d rho^2 / (1 - rho^2) for d pairs of normals of correlation rho.
    Raises:
      UserError: no square matrix of at least 2 x 2.
    Source: Cheng et al. 2020 (whose code counts the own y among the others, which reads low by 1/N of the value).

    >>> club(jnp.array([[3.0, 1.0], [2.0, 4.0]]))
    Array(2., dtype=float32)
    """
    return _club(parted(log_conditional))


def leave_one_out(log_conditional: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """The leave-one-out upper bound: InfoNCE with the positive left out, over columns.

    value = mean_i [log p(y_i | x_i) - log mean_{j != i} p(y_i | x_j)].

    Args:
      log_conditional: f32 or bf16 [..., N, N], log p(y_j | x_i) plus any function of y; -inf removes a pair. So the
        optimum critic log p(x,y) / (p(x) p(y)) serves as well.
    Returns:
      nats, f32 [...]: in the mean over batches of independent pairs an upper bound on I where p is the true
      conditional; with a learned one neither. A column without other x gives 0.
    Raises:
      UserError: no square matrix of at least 2 x 2.
    Source: Poole et al. 2019.

    >>> value = leave_one_out(jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]])))
    >>> bool(jnp.allclose(value, (jnp.log(6 / 2) + jnp.log(6 / 1)) / 2))
    True
    """
    return _leave_one_out(parted(log_conditional))


@jax.jit
def _club(pairs: Pairs) -> Array:
    return counted(pairs, mean_joint(pairs) - average(pairs.crossed, pairs.crossed != -jnp.inf, axes=2))


@jax.jit
def _leave_one_out(pairs: Pairs) -> Array:
    others = mass(jnp.swapaxes(pairs.crossed, -2, -1), None)
    here = pairs.joint != -jnp.inf
    each = jnp.where(others.size == 0, 0.0, jnp.where(here, pairs.joint, 0.0) - log_mean(others))
    return counted(pairs, average(each, here))
