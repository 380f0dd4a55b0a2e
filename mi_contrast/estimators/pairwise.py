"""Mutual information of all pairs of many series, and of one of each pair shifted in time, by nearest neighbours.

A series meets every other, and a circular shift only moves its samples, so the distances within each series are
computed once; a pair then costs T x T maxima and comparisons. For many pairs of unlike samples there is `ksg`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.estimators.blocks import over_rows
from mi_contrast.estimators.distances import block_of, held
from mi_contrast.estimators.neighbours import digamma
from mi_contrast.estimators.samples import together, whole_number

ESTIMATORS = ("ksg", "three_kl")


def all_pairs(series: Float[ArrayLike, "P T d"], k: int = 3, estimator: str = "ksg") -> Float[Array, "P P"]:
    """The estimate of every pair of series, in nats, all in one program.

    ksg:       psi(k) + psi(T) - < psi(n_x + 1) + psi(n_y + 1) >, as `ksg`'s variant 1;
    three_kl:  psi(T) - psi(k) + dx <log eps_x> + dy <log eps_y> - (dx + dy) <log eps_xy>, as `three_kl`.

    Args:
      series: numbers [P, T, d]: P series of T samples, not rescaled; those of one call have like scales.
      k: neighbours, 1 <= k < T.
      estimator: 'ksg' or 'three_kl'.
    Returns:
      float32 [P, P], symmetric, -inf on the diagonal: a series is no partner of its own. NaN where a sample of the pair
      has k exact copies or more, or a series is not finite. No gradient.
    Raises:
      UserError: a shape that is not [P, T, d], k outside [1, T), an unknown estimator.
    Source: Kraskov et al. 2004; Kozachenko and Leonenko 1987.

    >>> x = jax.random.normal(jax.random.key(0), (3, 40, 2))
    >>> [round(float(nats), 3) for nats in all_pairs(x.at[1].set(x[0]))[0]]
    [-inf, 2.754, 0.026]
    """
    return shifted_pairs(series, jnp.zeros(1, jnp.int32), k, estimator)[0]


def shifted_pairs(
    series: Float[ArrayLike, "P T d"], shifts: Int[ArrayLike, " S"], k: int = 3, estimator: str = "ksg"
) -> Float[Array, "S P P"]:
    """The estimates of `all_pairs` with the first of each pair shifted circularly in time: sample t goes to t + shift.

    Row a of shift s holds the pairs of series a, shifted by s. Its column a then holds series a shifted by T - s, since
    what counts is how far one is shifted against the other.

    Args:
      shifts: whole numbers [S], may be traced.
      series, k, estimator: as `all_pairs`.
    Returns:
      float32 [S, P, P], -inf on the diagonals.

    >>> x = jax.random.normal(jax.random.key(0), (2, 40, 2))
    >>> x = jnp.stack([x[0], jnp.roll(x[0], 5, axis=0)])
    >>> [round(float(nats), 3) for nats in shifted_pairs(x, jnp.array([0, 5]))[:, 0, 1]]
    [0.16, 2.754]
    """
    series, k = checked(series, k, estimator), int(k)
    count, samples, _ = series.shape
    block, _ = block_of(samples, count, None)
    anchors = 1 if jax.default_backend() == "cpu" else max(1, held() // (samples**2 * block))
    return _shifted(series, jnp.asarray(shifts, jnp.int32), k, estimator, block, anchors)


def checked(series: Float[ArrayLike, "P T d"], k: int, estimator: str) -> Float[Array, "P T d"]:
    """Returns the series in float32, all scaled by one factor. UserError where they, k or the estimator can't be."""
    if np.ndim(series) != 3 or 0 in np.shape(series):
        raise UserError(f"series of shape {np.shape(series)}", fix="give [P, T, d]")
    series = together(series)
    if not 1 <= whole_number("k", k) < series.shape[1]:
        raise UserError(f"k = {k} neighbours among {series.shape[1]} samples", fix="give 1 <= k < T")
    if estimator not in ESTIMATORS:
        raise unknown("estimator of pairs", estimator, ESTIMATORS)
    return series


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _shifted(series: Array, shifts: Array, k: int, estimator: str, block: int, anchors: int) -> Array:
    count, samples, width = series.shape
    series = lax.optimization_barrier(lax.stop_gradient(series))
    far = jnp.max(jnp.abs(series[:, :, None] - series[:, None]), axis=-1)
    far = jnp.where(jnp.eye(samples, dtype=bool), jnp.inf, far)  # [P, T, T]
    psi = jnp.asarray(digamma(samples))
    log_edges = jnp.mean(jnp.log(jax.vmap(lambda d: _kth(d[:, :, None], None, k)[:, 0])(far)), axis=1)  # [P]
    finite = jnp.all(jnp.isfinite(series), axis=(1, 2))

    def of_block(partners: tuple[Array, Array, Array]) -> Array:
        """The partners of a block, [B] each, with every shifted anchor: [B, S P]."""
        others = jnp.moveaxis(partners[0], 0, -1)  # partners last: what is computed runs along them, T x T times

        def of_anchor(at: tuple[Array, Array]) -> Array:
            place, shift = at
            moved = (jnp.arange(samples) - shift) % samples
            own = far[place][moved][:, moved][:, :, None]
            edge = _kth(own, others, k)
            if estimator == "ksg":
                within = (jnp.sum(d < edge, axis=0, dtype=jnp.float32).astype(jnp.int32) for d in (own, others))
                nats = psi[k] + psi[samples] - jnp.mean(sum(psi[number + 1] for number in within), axis=0)
            else:
                of_each = log_edges[place] + partners[1]
                nats = psi[samples] - psi[k] + width * (of_each - 2 * jnp.mean(jnp.log(edge), axis=0))
            sound = jnp.all(edge > 0, axis=0) & finite[place] & partners[2]
            if estimator == "three_kl":
                sound &= jnp.isfinite(of_each)
            return jnp.where(sound, nats, jnp.nan)

        every = jnp.tile(jnp.arange(count), len(shifts)), jnp.repeat(shifts, count)
        return lax.map(of_anchor, every, batch_size=None if anchors == 1 else anchors).T

    nats = over_rows(of_block, (far, log_edges, finite), block)  # [P, S P]
    nats = nats.T.reshape(len(shifts), count, count)
    return jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, nats)


def _kth(own: Float[Array, "T T 1"], others: Float[Array, "T T B"] | None, k: int) -> Float[Array, "T B"]:
    """Down the columns, the k-th smallest of the larger of both: one pass that keeps the k smallest so far."""

    def keep(best: tuple[Array, ...], row: tuple[Array, Array | None]) -> tuple[tuple[Array, ...], None]:
        value = row[0] if row[1] is None else jnp.maximum(row[0], row[1])
        kept = []
        for smallest in best:
            kept.append(jnp.minimum(smallest, value))
            value = jnp.maximum(smallest, value)
        return tuple(kept), None

    shape = own.shape[1:] if others is None else others.shape[1:]
    return lax.scan(keep, tuple(jnp.full(shape, jnp.inf) for _ in range(k)), (own, others))[0][-1]
