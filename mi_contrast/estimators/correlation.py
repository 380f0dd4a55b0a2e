"""Mutual information of linear dependence, from canonical correlations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import digamma
from jaxtyping import Array, ArrayLike, Float

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.result import Estimate
from mi_contrast.estimators.samples import prepare_pair

EPSILON = float(np.finfo(np.float32).eps)


def canonical_correlation(
    x: Float[ArrayLike, "... N dx"],
    y: Float[ArrayLike, "... N dy"],
    *,
    corrected: bool = True,
    tolerance: float = 1e-5,
    normal_scores: bool = False,
) -> Estimate:
    """Returns the mutual information of Gaussians with the samples' canonical correlations r, in nats.

    nats = sum_c -1/2 log(1 - r_c^2), which equals 1/2 log( det S_x det S_y / det S_xy ) in exact arithmetic.

    For other distributions it measures linear dependence: in the limit it is a lower bound if both marginals are
    Gaussian, and otherwise no bound. For N samples the sum is too high by about dx dy / (2 N). With `corrected`, its
    exact bias for Gaussian data of any correlation is subtracted. The estimate is then unbiased for Gaussians, and
    sometimes below 0. The bias is

        1/2 ( sum_{i=1..p} - sum_{i=q+1..p+q} ) psi((N - i) / 2),   with p and q the ranks of x and y.

    Args:
      x, y: numbers [..., N, dx] and [..., N, dy], or [N].
      corrected: whether to subtract the small-sample bias.
      tolerance: singular values of the standardised x or y below this share of the greatest count as 0, so constant and
        repeated columns contribute nothing.
      normal_scores: whether to replace each column by its normal scores first; see `normal_scores`.
    Returns:
      Estimate, float32 [...], without gradient. nats: infinite if a correlation is 1 in float32; NaN if data are not
      finite. standard_error: from the variance of the fitted Gaussians' log-ratio, to first order. It is about right
      for any distribution, too large by a factor of up to sqrt(2) without dependence, and NaN if nats is infinite.
      ceiling: infinite.
    Raises:
      UserError: shapes that do not fit; N < dx + dy + 2, for which a correlation of 1 is certain.
    Source: Bjoerck and Golub 1973 for cosines and sines of the angles. The bias follows from the mean of the logarithm
    of a Wishart determinant.

    >>> x, e = jax.random.normal(jax.random.key(0), (2, 2000, 1))
    >>> float(canonical_correlation(x, 0.8 * x + 0.6 * e).nats.round(1))
    0.5
    """
    samples = prepare_pair(x, y, normal_scores=normal_scores)
    x, y = samples.x / samples.deviation_x, samples.y / samples.deviation_y
    count, dimensions = x.shape[-2], x.shape[-1] + y.shape[-1]
    if count < dimensions + 2:
        raise UserError(f"{count} samples in {dimensions} dimensions", fix=f"give {dimensions + 2} at least")
    if not 0 < tolerance < 1:
        raise UserError(f"tolerance {tolerance} is outside (0, 1)", fix="leave it out")
    nats, error = _canonical(x, y, corrected, tolerance)
    return Estimate.from_error(nats, error, jnp.full_like(nats, jnp.inf))


def _basis(x: Float[Array, "N d"], tolerance: float) -> tuple[Float[Array, "N d"], Float[Array, ""]]:
    """Returns an orthonormal basis of the centred columns, with columns of 0 beyond their rank, and the rank."""
    size = jnp.max(jnp.abs(x), axis=0)
    x = x - jnp.mean(x, axis=0)
    x = x - jnp.mean(x, axis=0)  # again, because the first mean was rounded
    length = jnp.linalg.norm(x, axis=0)
    x = jnp.where(length > 4 * EPSILON * size * np.sqrt(len(x)), x / jnp.where(length == 0, 1.0, length), 0.0)
    basis, spread, _ = jnp.linalg.svd(x, full_matrices=False)
    is_kept = spread > tolerance * spread[0]
    return basis * is_kept, jnp.sum(is_kept, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _canonical(x: Array, y: Array, corrected: bool, tolerance: float) -> tuple[Array, Array]:
    x, y = lax.stop_gradient((x, y))
    count = x.shape[-2]

    def estimate_pair(x: Array, y: Array) -> tuple[Array, Array]:
        finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
        (basis_x, rank_x), (basis_y, rank_y) = (_basis(jnp.where(finite, z, 0.0), tolerance) for z in (x, y))
        if basis_x.shape[1] < basis_y.shape[1]:
            basis_x, basis_y = basis_y, basis_x
        left, cosine, right = jnp.linalg.svd(basis_x.T @ basis_y, full_matrices=False)
        u, v = basis_x @ left, basis_y @ right.T
        # 1 - r^2 is the squared length of the part of v orthogonal to u. This is exact even if r^2 would round to 1.
        residual = jnp.sum(jnp.square(v - u * cosine), axis=0)
        sine2 = jnp.where(jnp.square(cosine) > 0.5, residual, 1 - jnp.square(cosine))
        sine2 = jnp.where(sine2 > count * (4 * EPSILON) ** 2, jnp.minimum(sine2, 1.0), 0.0)
        nats = 0.5 * jnp.sum(jnp.log(1 / sine2))
        # The log-ratio of the fitted densities at each sample, up to its mean.
        u, v = np.sqrt(count) * u, np.sqrt(count) * v
        joint = jnp.square(u - v) * (1 + cosine) / sine2 + jnp.square(u + v) / (1 + cosine)
        ratio = 0.5 * jnp.sum(jnp.square(u) + jnp.square(v) - 0.5 * joint, axis=1)
        error = jnp.std(ratio) / np.sqrt(count)
        if corrected:
            nats = nats - _bias(rank_x, rank_y, count, x.shape[-1] + y.shape[-1])
        return jnp.where(finite, nats, jnp.nan), jnp.where(finite, error, jnp.nan)

    flat = [z.reshape(-1, *z.shape[-2:]) for z in (x, y)]
    return jax.tree.map(lambda r: r.reshape(x.shape[:-2]), jax.vmap(estimate_pair)(*flat))


def _bias(rank_x: Array, rank_y: Array, count: int, dimensions: int) -> Array:
    """Returns the bias of nats for Gaussian data."""
    i = jnp.arange(1, dimensions + 1, dtype=jnp.float32)
    terms = digamma((count - i) / 2) - np.log(
        count / 2
    )  # the logarithm cancels in the difference; without it the sums would lose digits
    is_first, is_last = i <= rank_x, (i > rank_y) & (i <= rank_x + rank_y)
    return 0.5 * (jnp.sum(jnp.where(is_first, terms, 0.0)) - jnp.sum(jnp.where(is_last, terms, 0.0)))
