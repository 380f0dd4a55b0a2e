"""The forms of the contrastive value, each expressed by a few sums over the scores.

A form lists the sums it needs over candidates or further positives (`required_sums`). It computes the value from f+,
the sums and the sizes of both sets (`combine_sums`). The derivative with respect to a score follows by the chain rule:
the derivative of the value with respect to each sum times that of the sum (`differentiate_total`). So a new form needs
no gradient of its own. The fields of a form are float32 [B] here.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mi_contrast.estimators.mass import Mass, join, log_mean
from mi_contrast.estimators.reweighted import reweighted_nats
from mi_contrast.estimators.supports import Binary, Decoupled, Form, Hard, Softmax

Column = Float[Array, "B 1"]


class SumSpec(NamedTuple):
    """One weighted sum over the scores f of an anchor.

    Attributes:
      score_set: the set of scores, which is also the name of their weights w.
      function: what is summed: 'exponential' is w e^{p f}, 'score' is w f, 'log_sigmoid' is
        w log(sigmoid(offset - f)).
      power: exponent p in w e^{p f}; the float 1.0, or one for each anchor, [B, 1].
    """

    score_set: Literal["candidates", "positives"]
    function: Literal["exponential", "score", "log_sigmoid"]
    power: Column | float = 1.0


class Sizes(NamedTuple):
    """Sums of the weights of candidates and of further positives, float32 [B, 1]. Neither counts the positive."""

    candidates: Column
    positives: Column


def _column(x: Array | float) -> Column:
    return jnp.asarray(x)[:, None]


def required_sums(form: Form, has_further_positives: bool) -> tuple[SumSpec, ...]:
    """Returns the sums that a form needs. `has_further_positives`: whether there are positives besides f+."""
    match form:
        case Softmax("mean") if has_further_positives:
            return SumSpec("candidates", "exponential"), SumSpec("positives", "score")
        case Softmax() if has_further_positives:
            return SumSpec("candidates", "exponential"), SumSpec("positives", "exponential")
        case Hard(beta):
            return (
                SumSpec("candidates", "exponential", 1 + _column(beta)),
                SumSpec("candidates", "exponential", _column(beta)),
            )
        case Binary():
            return (SumSpec("candidates", "log_sigmoid"),)
        case _:
            return (SumSpec("candidates", "exponential"),)


def binary_offset(form: Form, sizes: Sizes) -> Column:
    """Returns log Z + log(K / N), the score at which `Binary` is undecided; 0 for other forms."""
    if not isinstance(form, Binary):
        return jnp.zeros_like(sizes.candidates)
    size = jnp.maximum(sizes.candidates, 1.0)
    return _column(form.log_normaliser) + jnp.log(size) - jnp.log(_column(form.data_size))


def compute_terms(
    spec: SumSpec, scores: Float[Array, "B K"], weights: Array | None, offset: Column
) -> Float[Array, "B K"]:
    """Returns the terms of a sum, float32 [B, K]; 0 where the weight is 0."""
    match spec.function:
        case "exponential":
            terms = jnp.exp(spec.power * scores)
        case "score":
            terms = scores
        case "log_sigmoid":
            terms = jax.nn.log_sigmoid(offset - scores)
    if weights is None:
        # The exponential of a removed score (-inf) is 0 already, unless the power is 0.
        removed_scores_vanish = isinstance(spec.power, float) and spec.power > 0 and spec.function != "score"
        return terms if removed_scores_vanish else jnp.where(scores == -jnp.inf, 0.0, terms)
    return jnp.where(weights > 0, weights * terms, 0.0)


def transform_total(spec: SumSpec, total: Column) -> Column:
    """Returns the logarithm of a sum of exponentials (-inf for an empty one), and other sums unchanged."""
    if spec.function != "exponential":
        return total
    return jnp.where(total == 0, -jnp.inf, jnp.log(jnp.where(total == 0, 1.0, total)))


def differentiate_total(
    spec: SumSpec, scores: Float[Array, "B K"], weights: Array | None, offset: Column, total: Column
) -> tuple[Float[Array, "B K"], Column]:
    """Returns (matrix, factor), whose product is the derivative of `transform_total` with respect to each score.

    The matrix is [B, K], and the factor is [B, 1].
    """
    match spec.function:
        case "exponential":
            return compute_terms(spec, scores, weights, offset), spec.power / jnp.where(total == 0, 1.0, total)
        case "score":
            assert weights is not None
            return weights, jnp.ones_like(total)
        case "log_sigmoid":
            gradient = jax.nn.sigmoid(scores - offset)
            return gradient if weights is None else weights * gradient, -jnp.ones_like(total)


def combine_sums(
    form: Form,
    has_further_positives: bool,
    positive: Column,
    sums: tuple[Column, ...],
    sizes: Sizes,
    offset: Column,
    reference: Column,
) -> Column:
    """Returns the value in nats.

    Args:
      form: a Form.
      has_further_positives: whether there are positives besides f+.
      positive: f+ - reference.
      sums: `required_sums` of scores f - reference, after `transform_total`.
      sizes, offset: see `Sizes` and `binary_offset`.
      reference: a score of each anchor, in nats; 0 for `Binary`.
    """
    one = jnp.ones_like(positive)
    match form:
        case Softmax(reduce):
            denominator = log_mean(join(Mass(positive, one), Mass(sums[0], sizes.candidates)))
            if not has_further_positives:
                return positive - denominator
            if reduce == "mean":
                return (positive + sums[1]) / (1 + sizes.positives) - denominator
            return log_mean(join(Mass(positive, one), Mass(sums[1], sizes.positives))) - denominator
        case Decoupled():
            nonempty = sizes.candidates > 0
            return jnp.where(nonempty, positive - log_mean(Mass(sums[0], sizes.candidates)), 0.0)
        case Hard(_, prior, floor):
            floor = None if floor is None else _column(floor) - reference
            return reweighted_nats(positive, sums[0], sums[1], sizes.candidates, _column(prior), floor)
        case _:  # Binary
            nonempty = sizes.candidates > 0
            return jnp.where(nonempty, jax.nn.log_sigmoid(positive - offset) + sums[0], 0.0)
