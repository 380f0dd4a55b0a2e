"""Lower bounds on mutual information from square matrices of scores.

Entry F_ij = f(x_i, y_j) is the critic value of row x_i and column y_j. Pairs (x_i, y_i) are draws from the joint
distribution, so the diagonal holds joint pairs, and off the diagonal are *crossed* pairs of the marginals. Scores are
float32 or bfloat16, results float32; leading axes are a batch of matrices.

A score of -inf removes its pair from sums and counts, so padding with rows and columns of -inf gives the estimate of
the smaller matrix. If no joint or no crossed pair is left, the estimate is 0 nats with zero gradient. A NaN anywhere
makes it NaN.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.mass import Mass, join, log_mean, mass


class Pairs(NamedTuple):
    """The scores of joint pairs (the diagonal) and of crossed pairs (the matrix with -inf on the diagonal), float32."""

    joint: Float[Array, "... N"]
    crossed: Float[Array, "... N N"]


def split_pairs(scores: Float[Array, "... N N"]) -> Pairs:
    """Splits a square matrix into joint and crossed pairs.

    Raises:
      UserError: a matrix that is not square, or that has no pair off its diagonal.
    """
    scores = jnp.asarray(scores)
    if scores.ndim < 2 or scores.shape[-1] != scores.shape[-2]:
        raise UserError(f"scores {scores.shape} are not a square matrix", fix="give [..., N, N], rows x and columns y")
    size = scores.shape[-1]
    if size < 2:
        raise UserError(f"{size} pair leaves nothing off the diagonal", fix="give a matrix of at least 2 x 2")
    scores = scores.astype(jnp.float32)
    return Pairs(jnp.diagonal(scores, axis1=-2, axis2=-1), jnp.where(jnp.eye(size, dtype=bool), -jnp.inf, scores))


def zero_if_empty(pairs: Pairs, value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the value; 0 with zero gradient for matrices without joint pairs or without crossed pairs."""
    nonempty = jnp.any(pairs.joint != -jnp.inf, axis=-1) & jnp.any(pairs.crossed != -jnp.inf, axis=(-2, -1))
    return jnp.where(nonempty, value, 0.0)


def masked_mean(values: Float[Array, "..."], mask: Bool[Array, "..."], num_axes: int = 1) -> Float[Array, "..."]:
    """Returns the mean of the values under the mask over the last axes; 0 with zero gradient if there are none."""
    axes = tuple(range(-num_axes, 0))
    total = jnp.sum(jnp.where(mask, values, 0.0), axis=axes)
    return total / jnp.maximum(jnp.sum(mask, axis=axes), 1)


def mean_joint(pairs: Pairs) -> Float[Array, "..."]:
    """Returns mean_i F_ii."""
    return masked_mean(pairs.joint, pairs.joint != -jnp.inf)


def log_mean_crossed(scores: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """Returns log mean_{i != j} e^{F_ij} of the matrix of crossed pairs; 0 if there are none."""
    return log_mean(mass(scores.reshape(*scores.shape[:-2], math.prod(scores.shape[-2:])), None))


def matrix_info_nce(scores: Float[Array, "N N"]) -> Float[Array, ""]:
    """Returns InfoNCE of a matrix without removed pairs: mean_i F_ii - log mean_j e^{F_ij}, over all columns j."""
    return jnp.mean(jnp.diagonal(scores) - logsumexp(scores, axis=1)) + jnp.log(len(scores))


def concrete_value(value: Any) -> np.ndarray | None:
    """Returns a number or array in float64, or None if it is traced."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value, np.float64)


def nwj(scores: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """Returns the bound of Nguyen, Wainwright and Jordan: TUBA with the baseline e (also called MINE-f).

    value = mean_i F_ii - (1/e) mean_{i != j} e^{F_ij}. Optimum critic: 1 + log p(x,y) / (p(x) p(y)).

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
    Returns:
      nats, f32 [...]. The mean over batches of independent pairs is a lower bound on I for any critic, without ceiling.
      Its variance grows like E e^{2 log r} under the marginals, with r = p(x,y) / (p(x) p(y)), so at least like e^I.
    Raises:
      UserError: not a square matrix of at least 2 x 2.
    Source: Nguyen, Wainwright and Jordan 2010; Poole et al. 2019.

    >>> value = nwj(jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]])))
    >>> bool(jnp.allclose(value, jnp.log(6.0) - 1.5 / jnp.e))
    True
    """
    return tuba(scores, 1.0)


def tuba(scores: Float[Array, "... N N"], log_baseline: Float[Array, "..."] | float) -> Float[Array, "..."]:
    """Returns TUBA, the tractable unnormalised bound of Barber and Agakov, for a given baseline a(x).

    value = 1 + mean_i (F_ii - log a_i) - mean_{i != j} e^{F_ij} / a_i. Optimum critic: log a(x) + log r,
    r = p(x,y) / (p(x) p(y)).

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
      log_baseline: log a > -inf, one for all or one for each row, f32 [..., N]; it receives a gradient. For a baseline
        a(y), transpose the matrix.
    Returns:
      nats, f32 [...]. The mean over batches of independent pairs is a lower bound on I for any critic and baseline that
      do not depend on the batch, without ceiling.
    Raises:
      UserError: not a square matrix of at least 2 x 2; a baseline that does not fit.
    Source: Barber and Agakov 2003; Poole et al. 2019.

    >>> f = jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]]))
    >>> bool(jnp.allclose(tuba(f, jnp.log(jnp.array([1.0, 2.0]))), 1 + jnp.log(6.0) - jnp.log(2.0) / 2 - 1.0))
    True
    """
    pairs = split_pairs(scores)
    return _tuba(pairs, _broadcast_to_rows(pairs, log_baseline))


def donsker_varadhan(scores: Float[Array, "... N N"]) -> Float[Array, "..."]:
    """Returns the value of Donsker and Varadhan's representation for one batch.

    value = mean_i F_ii - log mean_{i != j} e^{F_ij}. Optimum critic: log p(x,y) / (p(x) p(y)) + any constant.

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair.
    Returns:
      nats, f32 [...]. It is no bound, and has no ceiling. It would be a lower bound with an expectation inside the
      logarithm. The logarithm of a batch mean is too low on average, so the value is too high, by more for smaller N.
    Raises:
      UserError: not a square matrix of at least 2 x 2.
    Source: Donsker and Varadhan 1983; Belghazi et al. 2018.

    >>> value = donsker_varadhan(jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]])))
    >>> bool(jnp.allclose(value, jnp.log(6.0 / 1.5)))
    True
    """
    return _donsker_varadhan(split_pairs(scores))


def interpolated(
    scores: Float[Array, "... N N"],
    alpha: Float[Array, "..."] | float,
    *,
    log_baseline: Float[Array, "..."] | float = 1.0,
    strict: bool = False,
) -> Float[Array, "..."]:
    """Returns the interpolation of Poole et al. from NWJ (alpha 0) to InfoNCE (alpha 1), from low bias to low variance.

    value = 1 + mean_i (F_ii - log a_i) - mean_{i != j} e^{F_ij} / a'_i, with
    a_i = alpha mean_j e^{F_ij} + (1 - alpha) q_i over all N columns j, and
    a'_i = alpha mean_{j != i} e^{F_ij} + (1 - alpha) q_i over the N - 1 crossed pairs.
    With `strict`, log a_i is replaced by mean_{k != i} log a_ik, with
    a_ik = alpha mean_{j != k} e^{F_ij} + (1 - alpha) q_i over N - 1 columns including i, as many as in a'_i.

    Optimum critic: log q(x) + log p(x,y) / (p(x) p(y)) as N grows. Alpha 1 is the mean of `info_nce` over rows, at most
    log N (with `strict` at most log(N - 1), because of one candidate less). Alpha 0 is `tuba`, and `nwj` for q = e.

    Args:
      scores: f32 or bf16 [..., N, N], rows x, columns y; -inf removes a pair, and with it a candidate of its row. In
        rows without crossed pairs `strict` changes nothing.
      alpha: in [0, 1], one for all or [...]; may be traced; no gradient.
      log_baseline: log q, one for all or one for each row, f32 [..., N]; it receives a gradient. Default log e. For a
        baseline q(y), transpose the matrix.
      strict: whether to leave one negative out of a_i.
    Returns:
      nats, f32 [...]. For alpha 0 and 1, and for any alpha with `strict`, the mean over batches of independent pairs is
      a lower bound on I for any critic and baseline. For other alpha without `strict` it is no bound: it may exceed I
      by the order of 1/N^2 (by .06 nats for N = 2), and it is above the strict value by about .007 nats for N = 64.
    Raises:
      UserError: not a square matrix of at least 2 x 2; a concrete alpha outside [0, 1]; a baseline that does not fit.
    Source: Poole et al. 2019. `strict` is the form of their released code, which has a baseline of y.

    >>> f = jnp.log(jnp.array([[6.0, 1.0], [2.0, 6.0]]))
    >>> bool(jnp.allclose(interpolated(f, 1.0), jnp.mean(jnp.log(6 / jnp.array([3.5, 4.0])))))
    True
    >>> bool(jnp.allclose(interpolated(f, 0.0), nwj(f)))
    True
    """
    concrete = concrete_value(alpha)
    if concrete is not None and not np.all((concrete >= 0) & (concrete <= 1)):
        raise UserError(f"alpha {alpha} is outside [0, 1]", fix="0 is NWJ, 1 is InfoNCE")
    pairs = split_pairs(scores)
    alpha = lax.stop_gradient(jnp.asarray(alpha, jnp.float32))[..., None]
    return _interpolated(pairs, alpha, _broadcast_to_rows(pairs, log_baseline), bool(strict))


def _broadcast_to_rows(pairs: Pairs, log_baseline: Any) -> Float[Array, "... N"]:
    log_baseline, shape = jnp.asarray(log_baseline, jnp.float32), pairs.joint.shape
    sizes = zip(log_baseline.shape[::-1], shape[::-1], strict=False)
    if log_baseline.ndim > len(shape) or any(size not in (1, wanted) for size, wanted in sizes):
        what = f"log_baseline {log_baseline.shape} does not fit rows {shape}"
        raise UserError(what, fix="give one for all, or one for each row")
    return jnp.broadcast_to(log_baseline, shape)


@jax.jit
def _donsker_varadhan(pairs: Pairs) -> Array:
    return zero_if_empty(pairs, mean_joint(pairs) - log_mean_crossed(pairs.crossed))


@jax.jit
def _tuba(pairs: Pairs, log_baseline: Array) -> Array:
    rows = mass(pairs.crossed, None)
    return _baseline_bound(pairs, rows, log_baseline, log_mean(rows) - log_baseline)


def _baseline_bound(pairs: Pairs, rows: Mass, log_joint: Array, log_crossed: Array) -> Array:
    """Returns 1 + mean_i (F_ii - log_joint_i) - the mean over crossed pairs of e^{log_crossed_i}.

    `rows` are the masses of the crossed pairs of each row; log_joint and log_crossed have one value for each row.
    """
    nonempty = rows.size != 0
    ratios = jnp.where(nonempty, jnp.exp(jnp.where(nonempty, log_crossed, 0.0)), 0.0)
    share = rows.size / jnp.maximum(jnp.sum(rows.size, axis=-1, keepdims=True), 1.0)
    valid = pairs.joint != -jnp.inf
    joint = masked_mean(jnp.where(valid, pairs.joint, 0.0) - log_joint, valid)
    return zero_if_empty(pairs, 1.0 + joint - jnp.sum(share * ratios, axis=-1))


@functools.partial(jax.jit, static_argnums=3)
def _interpolated(pairs: Pairs, alpha: Array, log_q: Array, strict: bool) -> Array:
    rows, valid = mass(pairs.crossed, None), pairs.joint != -jnp.inf
    log_alpha, log_rest = jnp.log(alpha), jnp.log1p(-alpha) + log_q
    log_row_mean = log_mean(join(Mass(pairs.joint, valid.astype(jnp.float32)), rows))
    log_joint = _log_mix(log_alpha, log_row_mean, log_rest)
    if strict:
        log_means = _log_sums_without_each(pairs) - jnp.log(jnp.maximum(rows.size, 1.0))[..., None]
        log_means = jnp.where(valid[..., None], log_means, 0.0)
        strict_log_joint = masked_mean(
            _log_mix(log_alpha[..., None], log_means, log_rest[..., None]), pairs.crossed != -jnp.inf
        )
        log_joint = jnp.where(rows.size == 0, log_joint, strict_log_joint)
    # log(e^F / a') is computed as -log(a' / e^F), which stays finite if the mean of e^F overflows.
    return _baseline_bound(pairs, rows, log_joint, -jnp.logaddexp(log_alpha, log_rest - log_mean(rows)))


def _log_mix(log_alpha: Array, log_mean: Array, log_rest: Array) -> Array:
    """Returns log(alpha e^{log_mean} + e^{log_rest}). If alpha is 0, any mean is ignored, infinity too."""
    return jnp.logaddexp(jnp.where(log_alpha == -jnp.inf, -jnp.inf, log_alpha + log_mean), log_rest)


def _log_sums_without_each(pairs: Pairs) -> Float[Array, "... N N"]:
    """Returns, for each row i and column k, the log of the sum of e^{F_ij} over all j but k, joint pair included.

    The term is subtracted from a sum that contains a term at least as large, so digits do not cancel. For the greatest
    term of a row this is impossible; there the other terms are summed directly.
    """
    size = pairs.joint.shape[-1]
    scores = jnp.where(jnp.eye(size, dtype=bool), pairs.joint[..., None], pairs.crossed)
    is_greatest = jnp.argmax(scores, axis=-1)[..., None] == jnp.arange(size)
    greatest = jnp.sum(jnp.where(is_greatest, scores, 0.0), axis=-1, keepdims=True)
    greatest = jnp.where(greatest == -jnp.inf, 0.0, greatest)  # a row without valid scores
    others = mass(jnp.where(is_greatest, -jnp.inf, scores), None).log_sum[..., None]
    ratio = jnp.exp(others - greatest) - jnp.where(is_greatest, 0.0, jnp.exp(scores - greatest))
    return jnp.where(is_greatest, others, greatest + jnp.log1p(ratio))
