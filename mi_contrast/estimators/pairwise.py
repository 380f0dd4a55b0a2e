"""Mutual information of all pairs of many series, also with one series of each pair shifted in time.

The estimates are those of `neighbours`. Each series is compared with every other, and a circular shift only permutes
its samples, so the distances within each series are computed once. A pair then takes T x T maxima and comparisons. For
pairs of different variables use `ksg`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Int

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.estimators.blocks import map_blocks
from mi_contrast.estimators.distances import choose_block_sizes, distances_per_block
from mi_contrast.estimators.neighbours import digamma
from mi_contrast.estimators.samples import as_whole_number, prepare_series
from mi_contrast.estimators.ties import warn_of_tied_series

ESTIMATORS = ("ksg", "three_kl")


def all_pairs(series: Float[ArrayLike, "P T d"], k: int = 3, estimator: str = "ksg") -> Float[Array, "P P"]:
    """Returns the mutual information of every pair of series, in nats.

    ksg:       psi(k) + psi(T) - < psi(n_x + 1) + psi(n_y + 1) >, variant 1 of `ksg`;
    three_kl:  psi(T) - psi(k) + dx <log eps_x> + dy <log eps_y> - (dx + dy) <log eps_xy>, see `three_kl`.

    Args:
      series: numbers [P, T, d], P series of T samples. They are not rescaled, so all should have similar scales.
      k: number of neighbours, 1 <= k < T.
      estimator: 'ksg' or 'three_kl'.
    Returns:
      float32 [P, P], symmetric, with -inf on the diagonal, so that a series is never its own best partner. NaN where a
      sample of the pair has k or more exact copies, or a series is not finite. No gradient.
    Raises:
      UserError: a shape that is not [P, T, d]; k outside [1, T); an unknown estimator.
    Warns:
      where a value of a column occurs more than k times (not under jit); see `discrete_continuous`.
    Source: Kraskov et al. 2004; Kozachenko and Leonenko 1987.

    >>> x = jax.random.normal(jax.random.key(0), (3, 40, 2))
    >>> [round(float(nats), 3) for nats in all_pairs(x.at[1].set(x[0]))[0]]
    [-inf, 2.754, 0.026]
    """
    return shifted_pairs(series, jnp.zeros(1, jnp.int32), k, estimator)[0]


def shifted_pairs(
    series: Float[ArrayLike, "P T d"], shifts: Int[ArrayLike, " S"], k: int = 3, estimator: str = "ksg"
) -> Float[Array, "S P P"]:
    """Returns the estimates of `all_pairs` with the first series of each pair shifted circularly in time.

    Entry [s, a, b] is the estimate for series a, whose sample t has moved to t + shifts[s], and series b. Only the
    relative shift matters, so it is also the estimate for series a and series b shifted by T - shifts[s].

    Args:
      shifts: integers [S]; may be traced.
      series, k, estimator: see `all_pairs`.
    Returns:
      float32 [S, P, P], -inf on the diagonals.

    >>> x = jax.random.normal(jax.random.key(0), (2, 40, 2))
    >>> x = jnp.stack([x[0], jnp.roll(x[0], 5, axis=0)])
    >>> [round(float(nats), 3) for nats in shifted_pairs(x, jnp.array([0, 5]))[:, 0, 1]]
    [0.16, 2.754]
    """
    series, k = check_series(series, k, estimator), int(k)
    warn_of_tied_series(series, k, "variant 1" if estimator == "ksg" else estimator)
    num_series, num_samples, _ = series.shape
    num_partners, _ = choose_block_sizes(num_samples, num_series, None)
    is_cpu = jax.default_backend() == "cpu"
    num_anchors = 1 if is_cpu else max(1, distances_per_block() // (num_samples**2 * num_partners))
    return _shifted_pairs(series, jnp.asarray(shifts, jnp.int32), k, estimator, num_partners, num_anchors)


def check_series(series: Float[ArrayLike, "P T d"], k: int, estimator: str) -> Float[Array, "P T d"]:
    """Returns the series in float32, all scaled by one factor.

    Raises:
      UserError: see `all_pairs`.
    """
    if np.ndim(series) != 3 or 0 in np.shape(series):
        raise UserError(f"series of shape {np.shape(series)}", fix="give [P, T, d]")
    series = prepare_series(series)
    if not 1 <= as_whole_number("k", k) < series.shape[1]:
        raise UserError(f"k = {k} neighbours among {series.shape[1]} samples", fix="give 1 <= k < T")
    if estimator not in ESTIMATORS:
        raise unknown("estimator of pairs", estimator, ESTIMATORS)
    return series


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _shifted_pairs(series: Array, shifts: Array, k: int, estimator: str, num_partners: int, num_anchors: int) -> Array:
    num_series, num_samples, width = series.shape
    series = lax.optimization_barrier(lax.stop_gradient(series))
    distances = jnp.max(jnp.abs(series[:, :, None] - series[:, None]), axis=-1)
    distances = jnp.where(jnp.eye(num_samples, dtype=bool), jnp.inf, distances)  # [P, T, T]
    psi = jnp.asarray(digamma(num_samples))
    radii = jax.vmap(lambda d: _kth_smallest_maximum(d[:, :, None], None, k)[:, 0])(distances)
    mean_log_radii = jnp.mean(jnp.log(radii), axis=1)  # [P]
    is_finite = jnp.all(jnp.isfinite(series), axis=(1, 2))

    def compute_block(partners: tuple[Array, Array, Array]) -> Array:
        """Returns the estimates of B partners with every anchor at every shift, [B, S P]."""
        partner_distances = jnp.moveaxis(partners[0], 0, -1)  # [T, T, B]: operations vectorise along partners

        def estimate_anchor(index_and_shift: tuple[Array, Array]) -> Array:
            index, shift = index_and_shift
            order = (jnp.arange(num_samples) - shift) % num_samples
            anchor_distances = distances[index][order][:, order][:, :, None]
            radius = _kth_smallest_maximum(anchor_distances, partner_distances, k)
            if estimator == "ksg":
                counts = (
                    jnp.sum(d < radius, axis=0, dtype=jnp.float32).astype(jnp.int32)
                    for d in (anchor_distances, partner_distances)
                )
                nats = psi[k] + psi[num_samples] - jnp.mean(sum(psi[count + 1] for count in counts), axis=0)
            else:
                marginals = mean_log_radii[index] + partners[1]
                nats = psi[num_samples] - psi[k] + width * (marginals - 2 * jnp.mean(jnp.log(radius), axis=0))
            is_valid = jnp.all(radius > 0, axis=0) & is_finite[index] & partners[2]
            if estimator == "three_kl":
                is_valid &= jnp.isfinite(marginals)
            return jnp.where(is_valid, nats, jnp.nan)

        anchors = jnp.tile(jnp.arange(num_series), len(shifts)), jnp.repeat(shifts, num_series)
        return lax.map(estimate_anchor, anchors, batch_size=None if num_anchors == 1 else num_anchors).T

    nats = map_blocks(compute_block, (distances, mean_log_radii, is_finite), num_partners)  # [P, S P]
    nats = nats.T.reshape(len(shifts), num_series, num_series)
    return jnp.where(jnp.eye(num_series, dtype=bool), -jnp.inf, nats)


def _kth_smallest_maximum(
    anchor: Float[Array, "T T 1"], partners: Float[Array, "T T B"] | None, k: int
) -> Float[Array, "T B"]:
    """Returns the k-th smallest entry along the first axis of maximum(anchor, partners), in one pass.

    `None` for partners means the anchor's own distances. The pass keeps the k smallest entries so far.
    """

    def insert(smallest: tuple[Array, ...], row: tuple[Array, Array | None]) -> tuple[tuple[Array, ...], None]:
        value = row[0] if row[1] is None else jnp.maximum(row[0], row[1])
        updated = []
        for entry in smallest:
            updated.append(jnp.minimum(entry, value))
            value = jnp.maximum(entry, value)
        return tuple(updated), None

    shape = anchor.shape[1:] if partners is None else partners.shape[1:]
    return lax.scan(insert, tuple(jnp.full(shape, jnp.inf) for _ in range(k)), (anchor, partners))[0][-1]
