"""What an estimator that reads samples answers with."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Float


class Estimate(NamedTuple):
    """An estimate of mutual information from samples, float32 [...] each (a batch of pairs gives a batch of estimates).

    nats: the estimate. standard_error: of the estimate over draws of the samples, as the estimator says how; NaN where
    it has none. ceiling: the most the estimator could have read from so many samples; infinite where nothing limits it.
    """

    nats: Float[Array, "..."]
    standard_error: Float[Array, "..."]
    ceiling: Float[Array, "..."]
