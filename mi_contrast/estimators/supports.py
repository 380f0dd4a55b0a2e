"""Supports say which candidates an anchor is compared with, forms say how the scores become a value in nats.

Both are frozen dataclasses and pytrees of their fields, so that percentiles and other numbers may be traced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.estimators.percentiles import Percentile, check_band, millionths, nan_or_zero, rank

REDUCTIONS = ("logsumexp", "mean")


def _pytree(*static: str) -> Callable[[type], type]:
    def register(cls: type) -> type:
        names = [field.name for field in dataclasses.fields(cls) if field.name not in static]
        return jax.tree_util.register_dataclass(cls, data_fields=names, meta_fields=list(static))

    return register


@_pytree()
@dataclasses.dataclass(frozen=True)
class All:
    """Every valid candidate, as in InfoNCE."""


@_pytree()
@dataclasses.dataclass(frozen=True)
class Ball:
    """The most similar candidates, from percentile `lower` up.

    Attributes:
      lower: percentile in [0, 1), 0 = least similar; a float or a traced array, one for all or [B].
    """

    lower: Percentile


@_pytree()
@dataclasses.dataclass(frozen=True)
class Ring:
    """The candidates in a band of percentiles.

    Attributes:
      lower, upper: the band [lower, upper), 0 = least similar; floats or traced arrays, one for all or [B].
    """

    lower: Percentile
    upper: Percentile


@_pytree()
@dataclasses.dataclass(frozen=True)
class Cave:
    """A band of percentiles as negatives, and the candidates above it as further positives.

    Attributes:
      lower, upper: the band [lower, upper), 0 = least similar; floats or traced arrays, one for all or [B].
    """

    lower: Percentile
    upper: Percentile


@_pytree()
@dataclasses.dataclass(frozen=True)
class Nearest:
    """The k most similar candidates, or all of them if there are fewer.

    Attributes:
      k: a whole number or a traced array, one for all or [B].
    """

    k: Int[Array, "..."] | int


@_pytree()
@dataclasses.dataclass(frozen=True)
class Close:
    """The candidates of another support. Those with the label of the anchor are further positives.

    If there are several columns of labels (several clusterings), one common label is enough. With cluster labels and
    `Nearest(k)` this is local aggregation, with class labels the supervised contrastive loss.

    Attributes:
      of: the support that holds the candidates.
    """

    of: Support = dataclasses.field(default_factory=All)


@_pytree("k")
@dataclasses.dataclass(frozen=True)
class Drawn:
    """k candidates drawn with replacement from another support, anew for every rng and anchor.

    If the pool is on one device, exactly k are drawn. If it is sharded, the count of each candidate is Poisson
    distributed, their sum is k in expectation, and the value is normalised by the actual sum. Use draws to reproduce
    the k of a paper. They save no time, because every candidate is scored anyway, and the support itself gives the same
    value with less variance.

    Attributes:
      k: number of draws.
      of: the support to draw from.
    """

    k: int
    of: Support = dataclasses.field(default_factory=All)


@_pytree("reduce")
@dataclasses.dataclass(frozen=True)
class Softmax:
    """The form of InfoNCE: the positives are also candidates, and all candidates of the support weigh the same.

    Attributes:
      reduce: how several positives are combined: 'logsumexp' (the log of the mean of e^f) or 'mean' (the mean of f).
    """

    reduce: str = "logsumexp"


@_pytree()
@dataclasses.dataclass(frozen=True)
class Decoupled:
    """InfoNCE without the positive among the candidates. It is no bound on the mutual information."""


@_pytree()
@dataclasses.dataclass(frozen=True)
class Hard:
    """Hard negatives: candidates weigh e^{beta f}, with a correction for false negatives. See `hard_negatives`.

    Attributes, each a number or a traced array, one for all or [B]:
      beta: how much more similar candidates weigh; 0 is the debiased contrastive loss.
      prior: probability that a candidate has the anchor's class.
      floor: lower limit of the log of the corrected mean of e^f, -1 / temperature in the released code; or None.
    """

    beta: Float[Array, "..."] | float
    prior: Float[Array, "..."] | float = 0.0
    floor: Float[Array, "..."] | float | None = None


@_pytree()
@dataclasses.dataclass(frozen=True)
class Binary:
    """Binary NCE, the loss of the first papers: each score is classified as data or noise. See `binary_nce`.

    Attributes:
      log_normaliser: log Z, which the caller keeps as state.
      data_size: number of examples in the data.
    """

    log_normaliser: Float[Array, "..."] | float
    data_size: Float[Array, "..."] | float


Support = All | Ball | Ring | Cave | Nearest | Close | Drawn
Form = Softmax | Decoupled | Hard | Binary
SOFTMAX = Softmax()
SUPPORTS = (
    "All()",
    "Ball(lower)",
    "Ring(lower, upper)",
    "Cave(lower, upper)",
    "Nearest(k)",
    "Close(of)",
    "Drawn(k, of)",
)
FORMS = ("Softmax(reduce)", "Decoupled()", "Hard(beta, prior, floor)", "Binary(log_normaliser, data_size)")


def has_further_positives(support: Support) -> bool:
    """Whether candidates of the support can be further positives."""
    return isinstance(support, (Cave, Close))


def check(support: Support, form: Form) -> None:
    """Checks a support, a form and their combination.

    Raises:
      UserError: not a support or not a form, an invalid field, or a form that cannot handle the support.
    """
    match support:
        case All():
            pass
        case Ball(lower):
            check_band(lower, 1.0)
        case Ring(lower, upper) | Cave(lower, upper):
            check_band(lower, upper)
        case Nearest(k):
            _check_at_least_one("Nearest", k)
        case Close(of) | Drawn(of=of):
            if isinstance(of, (Cave, Close, Drawn)):
                name = type(support).__name__
                fix = "take All(), Ball(lower), Ring(lower, upper) or Nearest(k)"
                raise UserError(f"the inner support of {name} can't be {type(of).__name__}", fix=fix)
            check(of, SOFTMAX)
            if isinstance(support, Drawn):
                _check_at_least_one("Drawn", support.k)
        case _:
            raise unknown("support", support, SUPPORTS)
    match form:
        case Softmax(reduce):
            if reduce not in REDUCTIONS:
                raise unknown("reduce", reduce, REDUCTIONS)
        case Decoupled() | Hard() | Binary():
            if has_further_positives(support):
                name = type(form).__name__
                why = f"{name} scores one positive, {type(support).__name__} has several"
                raise UserError(why, fix="take Softmax(), or another support")
        case _:
            raise unknown("form", form, FORMS)


def _check_at_least_one(name: str, k: Any) -> None:
    if not isinstance(k, jax.core.Tracer) and not np.all(np.asarray(k) >= 1):
        raise UserError(f"{name}({k}) takes no candidate", fix="give a whole number above 0")


def convert_percentiles(support: Support) -> tuple[Support, Float[Array, "..."]]:
    """Returns the support with percentiles as int32 millionths and counts as int32, and `nan_or_zero` of them."""
    match support:
        case Ball(lower):
            return Ball(millionths(lower)), nan_or_zero(lower)
        case Ring(lower, upper) | Cave(lower, upper):
            return type(support)(millionths(lower), millionths(upper)), nan_or_zero(lower, upper)
        case Nearest(k):
            return Nearest(jnp.asarray(k, jnp.int32)), jnp.zeros(())
        case Close(of) | Drawn(of=of):
            inner, nan = convert_percentiles(of)
            return dataclasses.replace(support, of=inner), nan
        case _:
            return support, jnp.zeros(())


def ranks(support: Support, count: Int[Array, "..."]) -> tuple[Int[Array, "..."], Int[Array, "..."]] | None:
    """Returns the ranks [lower, upper) of a support among `count` candidates, least similar first, or None for all.

    Args:
      support: the first result of `convert_percentiles`. For `Drawn` and `Close` the ranks are those of their `of`.
      count: number of valid candidates, int32 [...].
    """
    match support:
        case All():
            return None
        case Ball(lower) | Cave(lower):
            return rank(jnp.asarray(lower), count), count
        case Ring(lower, upper):
            start = rank(jnp.asarray(lower), count)
            return start, jnp.maximum(start, rank(jnp.asarray(upper), count))
        case Nearest(k):
            return jnp.maximum(count - k, 0), count
        case Close(of) | Drawn(of=of):
            return ranks(of, count)
    raise unknown("support", support, SUPPORTS)


def size(support: Support, count: Int[Array, "..."]) -> Int[Array, "..."]:
    """Returns the size of a support among `count` valid candidates, without the positive; int32 [...].

    >>> int(size(Ring(0.9, 0.99), 65536)), int(size(Drawn(4096, Ball(0.9)), 65536))
    (5899, 4096)
    """
    band = ranks(convert_percentiles(support)[0], jnp.asarray(count, jnp.int32))
    band_size = jnp.asarray(count, jnp.int32) if band is None else band[1] - band[0]
    return jnp.where(band_size > 0, support.k, 0) if isinstance(support, Drawn) else band_size
