"""Contrastive values with hard negatives: candidates weigh e^{beta f}, and expected false negatives are subtracted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_contrast.core.errors import UserError
from mi_contrast.estimators.mass import Mass, join, log_mean, mask_weights, mass
from mi_contrast.estimators.scores import as_float32


def hard_negatives(
    positive: Float[Array, "... B"],
    pool: Float[Array, "... B K"],
    beta: Float[Array, "..."] | float,
    prior: Float[Array, "..."] | float,
    *,
    where: Array | None = None,
    floor: Float[Array, "..."] | float | None = None,
) -> Float[Array, "... B"]:
    """Returns the debiased contrastive value with hard negatives.

    Candidates weigh w = e^{beta f}, and a share `prior` of them is assumed to be false negatives. With s the weights of
    the candidates and N = sum s:
    R = N sum(s w e^f) / sum(s w);  Ng = max( (R - prior N e^{f+}) / (1 - prior), N e^{floor} );
    value = f+ - log( (e^{f+} + Ng) / (N + 1) ).

    Args:
      positive: f32 or bf16 [..., B], critic value of each anchor with its positive (similarity / temperature).
      pool: f32 or bf16 [..., B, K], critic values of each anchor with every candidate, without the positive.
      beta: >= 0, how much more similar candidates weigh. May be traced; one for all or [..., B].
      prior: in [0, 1), probability that a candidate has the anchor's class. May be traced; one for all or [..., B].
      where: bool or weights >= 0 [..., B, K], valid candidates or the weights of any support; default all.
      floor: lower limit of log(Ng / N), -1/temperature in the released code; None sets no limit except Ng >= 0.
        Where the limit is active, the pool receives no gradient.
    Returns:
      nats, f32 [..., B], at most log(N + 1); 0 with zero gradient where there is no positive or no candidate. With
      prior 0 it is at most InfoNCE, and with prior 0 and beta 0 it is InfoNCE. With prior > 0 it is no bound. The
      gradient includes that of the weights w.
    Raises:
      UserError: concrete beta < 0, or prior outside [0, 1); shapes that do not fit.
    Source: Robinson et al. 2021; beta = 0 is the loss of Chuang et al. 2020. The value is log(N + 1) minus the
    released loss if `floor` is that of the released code.

    >>> nats = hard_negatives(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([[1.0, 3.0]])), 1.0, 0.1)
    >>> bool(jnp.allclose(nats, jnp.log(6 * 3 / (6 + (2 * 10 / 4 - 0.1 * 2 * 6) / 0.9))))
    True
    """
    for name, value, allowed in (("beta", beta, "beta >= 0"), ("prior", prior, "0 <= prior < 1")):
        number = None if isinstance(value, jax.core.Tracer) else np.asarray(value, np.float64)
        if number is not None and not np.all((number >= 0) & (number < (1 if name == "prior" else np.inf))):
            raise UserError(f"{name} = {number} is out of range", fix=f"give {allowed}")
    return _hard_negatives(*as_float32(positive, pool), beta, prior, where, floor)


@jax.jit
def _hard_negatives(
    positive: Array, pool: Array, beta: Array, prior: Array, where: Array | None, floor: Array | None
) -> Array:
    valid, weights = mask_weights(pool, where)
    scores = jnp.where(valid, pool, 0.0)  # 0 * -inf would be NaN
    beta = jnp.broadcast_to(beta, positive.shape)[..., None]
    weighted, normaliser = mass((1 + beta) * scores, weights), mass(beta * scores, weights)
    return reweighted_nats(positive, weighted.log_sum, normaliser.log_sum, weighted.size, prior, floor)


def reweighted_nats(
    positive: Float[Array, "... B"],
    log_sum: Float[Array, "... B"],
    log_weight: Float[Array, "... B"],
    size: Float[Array, "... B"],
    prior: Float[Array, "..."] | float,
    floor: Float[Array, "..."] | float | None = None,
) -> Float[Array, "... B"]:
    """Returns the value of `hard_negatives` from sums over the candidates.

    Args:
      positive: f32 [..., B], f+.
      log_sum: f32 [..., B], log sum s w e^f; -inf where there is no candidate.
      log_weight: f32 [..., B], log sum s w.
      size: f32 [..., B], N = sum s.
      prior, floor: see `hard_negatives`.
    Returns:
      nats, f32 [..., B].

    >>> reweighted_nats(jnp.log(jnp.array([6.0])), jnp.log(jnp.array([3.0])), jnp.log(jnp.array([2.0])), 2.0, 0.0)
    Array([0.6931472], dtype=float32)
    """
    empty = (positive == -jnp.inf) | (size == 0)
    positive, log_sum, log_weight = (jnp.where(empty, 0.0, x) for x in (positive, log_sum, log_weight))
    size = jnp.where(empty, 1.0, size)
    log_average = log_sum - jnp.where(log_sum == jnp.inf, 0.0, log_weight)  # of e^f, weighted by s w
    log_negatives = _log_difference(log_average, positive, jnp.asarray(prior, jnp.float32))
    if floor is not None:
        log_negatives = jnp.maximum(log_negatives, floor)
    candidates = join(Mass(positive, jnp.ones_like(positive)), Mass(jnp.log(size) + log_negatives, size))
    return jnp.where(empty, 0.0, positive - log_mean(candidates))


def _log_difference(log_average: Array, positive: Array, prior: Array) -> Array:
    """Returns log((e^log_average - prior e^positive) / (1 - prior)).

    It is -inf with zero gradient if the difference is not above 0.
    """
    is_biased = prior != 0
    log_share = jnp.where(is_biased, jnp.log(jnp.where(is_biased, prior, 1.0)) + positive - log_average, -jnp.inf)
    is_nonpositive = log_share >= 0
    is_reduced = is_biased & ~is_nonpositive
    rest = jnp.where(is_reduced, -jnp.expm1(jnp.where(is_reduced, log_share, -1.0)), 1.0)
    return jnp.where(is_nonpositive, -jnp.inf, log_average + jnp.log(rest)) - jnp.log1p(-prior)
