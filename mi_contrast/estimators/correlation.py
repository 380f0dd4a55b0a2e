"""Mutual information as far as it is linear: from canonical correlations."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import digamma
from jaxtyping import Array, ArrayLike, Float

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.reading import Estimate
from mi_contrast.estimators.samples import paired

EPSILON = float(np.finfo(np.float32).eps)


def canonical_correlation(
    x: Float[ArrayLike, "... N dx"],
    y: Float[ArrayLike, "... N dy"],
    *,
    corrected: bool = True,
    tolerance: float = 1e-5,
    normal_scores: bool = False,
) -> Estimate:
    """The mutual information of Gaussians with these samples' canonical correlations r, in nats.

    sum_c -1/2 log(1 - r_c^2), in exact arithmetic 1/2 log( det S_x det S_y / det S_xy ).

    For any other data it reads the linear part: in the limit a lower bound where both marginals are Gaussian, else no
    bound. In sample this sum reads high by about dx dy / (2 N). `corrected` takes off the exact expectation of that
    for Gaussian data of any correlation, which makes the estimate unbiased there (and below 0 at times):

        1/2 ( sum_{i=1..p} - sum_{i=q+1..p+q} ) psi((N - i) / 2),   p and q the ranks of x and y.

    Args:
      x, y: numbers [..., N, dx] and [..., N, dy], or [N].
      corrected: whether the small-sample bias is taken off (the default).
      tolerance: singular values of x or y below this share of the greatest count as 0, columns being brought to unit
        variance first. So constant and repeated columns add nothing.
    Returns:
      Estimate, float32 [...]. nats: infinite where a correlation is 1 within float32; NaN where data are not finite.
      standard_error: from the spread over samples of the fitted Gaussians' log-ratio, first order: about right for any
      law of the data, high by a factor of up to sqrt(2) where there is no dependence, NaN where nats is infinite.
      ceiling: infinite. No gradient.
    Raises:
      UserError: shapes that do not fit, N < dx + dy + 2 (a correlation of 1 would be certain).
    Source: Bjoerck and Golub 1973 for cosines and sines of the angles; the correction from the mean of the logarithm of
    a Wishart determinant.

    >>> x, e = jax.random.normal(jax.random.key(0), (2, 2000, 1))
    >>> float(canonical_correlation(x, 0.8 * x + 0.6 * e).nats.round(1))
    0.5
    """
    samples = paired(x, y, normal_scores=normal_scores)
    x, y = samples.x / samples.deviation_x, samples.y / samples.deviation_y
    count, dimensions = x.shape[-2], x.shape[-1] + y.shape[-1]
    if count < dimensions + 2:
        raise UserError(f"{count} samples in {dimensions} dimensions", fix=f"give {dimensions + 2} at least")
    if not 0 < tolerance < 1:
        raise UserError(f"tolerance {tolerance} is outside (0, 1)", fix="leave it out")
    nats, error = _canonical(x, y, corrected, tolerance)
    return Estimate.from_error(nats, error, jnp.full_like(nats, jnp.inf))


def _basis(x: Float[Array, "N d"], tolerance: float) -> tuple[Float[Array, "N d"], Float[Array, ""]]:
    """An orthonormal basis of the centred columns, columns of 0 beyond their rank; and that rank."""
    size = jnp.max(jnp.abs(x), axis=0)
    x = x - jnp.mean(x, axis=0)
    x = x - jnp.mean(x, axis=0)  # the first mean is rounded
    length = jnp.linalg.norm(x, axis=0)
    x = jnp.where(length > 4 * EPSILON * size * np.sqrt(len(x)), x / jnp.where(length == 0, 1.0, length), 0.0)
    basis, spread, _ = jnp.linalg.svd(x, full_matrices=False)
    inside = spread > tolerance * spread[0]
    return basis * inside, jnp.sum(inside, dtype=jnp.float32)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _canonical(x: Array, y: Array, corrected: bool, tolerance: float) -> tuple[Array, Array]:
    x, y = lax.stop_gradient((x, y))
    count = x.shape[-2]

    def one(x: Array, y: Array) -> tuple[Array, Array]:
        finite = jnp.all(jnp.isfinite(x)) & jnp.all(jnp.isfinite(y))
        (of_x, rank_x), (of_y, rank_y) = (_basis(jnp.where(finite, z, 0.0), tolerance) for z in (x, y))
        if of_x.shape[1] < of_y.shape[1]:
            of_x, of_y = of_y, of_x
        to_x, cosine, to_y = jnp.linalg.svd(of_x.T @ of_y, full_matrices=False)
        u, v = of_x @ to_x, of_y @ to_y.T
        # 1 - r^2 from what of v lies outside x: exact where r is so near 1 that r^2 would round to it.
        cross = jnp.sum(jnp.square(v - u * cosine), axis=0)
        sine2 = jnp.where(jnp.square(cosine) > 0.5, cross, 1 - jnp.square(cosine))
        sine2 = jnp.where(sine2 > count * (4 * EPSILON) ** 2, jnp.minimum(sine2, 1.0), 0.0)
        nats = 0.5 * jnp.sum(jnp.log(1 / sine2))
        # per sample: log of the fitted joint density over that of the marginals, less its mean
        u, v = np.sqrt(count) * u, np.sqrt(count) * v
        joint = jnp.square(u - v) * (1 + cosine) / sine2 + jnp.square(u + v) / (1 + cosine)
        ratio = 0.5 * jnp.sum(jnp.square(u) + jnp.square(v) - 0.5 * joint, axis=1)
        error = jnp.std(ratio) / np.sqrt(count)
        if corrected:
            nats = nats - _bias(rank_x, rank_y, count, x.shape[-1] + y.shape[-1])
        return jnp.where(finite, nats, jnp.nan), jnp.where(finite, error, jnp.nan)

    flat = [z.reshape(-1, *z.shape[-2:]) for z in (x, y)]
    return jax.tree.map(lambda r: r.reshape(x.shape[:-2]), jax.vmap(one)(*flat))


def _bias(rank_x: Array, rank_y: Array, count: int, dimensions: int) -> Array:
    """The expectation of nats less the truth, for Gaussian data."""
    i = jnp.arange(1, dimensions + 1, dtype=jnp.float32)
    terms = digamma((count - i) / 2) - np.log(count / 2)  # of like size with the bias, so that sums keep their digits
    first, rest = i <= rank_x, (i > rank_y) & (i <= rank_x + rank_y)
    return 0.5 * (jnp.sum(jnp.where(first, terms, 0.0)) - jnp.sum(jnp.where(rest, terms, 0.0)))
