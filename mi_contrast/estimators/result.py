"""The result type of estimators from samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

QUANTILE = 1.6448536269514722  # 90 % of a normal distribution are within this many standard deviations


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Estimate:
    """An estimate of mutual information from samples. All fields are float32 [...], one value per pair of variables.

    It unpacks into three values: `nats, standard_error, ceiling = estimate`.

    Attributes:
      nats: the estimate.
      standard_error: its standard deviation over draws of the samples; NaN if the estimator has none.
      ceiling: the largest value that the estimator can return for this number of samples; infinite if there is none.
      low, high: ends of an interval that is designed to contain the mutual information in at least 90 % of draws.
        `high` is infinite if the estimator can only give a lower limit. Both are NaN by default, and if it has no
        standard error.
    """

    nats: Float[Array, "..."]
    standard_error: Float[Array, "..."]
    ceiling: Float[Array, "..."]
    low: Float[Array, "..."] = jnp.nan  # type: ignore[assignment]  # a scalar for any shape
    high: Float[Array, "..."] = jnp.nan  # type: ignore[assignment]

    @classmethod
    def from_error(
        cls, nats: Float[Array, "..."], standard_error: Float[Array, "..."], ceiling: Float[Array, "..."]
    ) -> Estimate:
        """Returns the estimate with the 90 % interval of a normal distribution, nats -+ 1.645 standard errors.

        >>> estimate = Estimate.from_error(jnp.float32(1.0), jnp.float32(0.1), jnp.float32(jnp.inf))
        >>> estimate.low.round(4), estimate.high.round(4)
        (Array(0.8355, dtype=float32), Array(1.1645, dtype=float32))
        """
        nats, standard_error = jnp.asarray(nats), jnp.asarray(standard_error)
        return cls(nats, standard_error, ceiling, nats - QUANTILE * standard_error, nats + QUANTILE * standard_error)

    def as_lower_limit(self, when: Array | bool = True) -> Estimate:
        """Returns the estimate with an infinite `high` where `when` is true."""
        return replace(self, high=jnp.where(when, jnp.inf, self.high))

    def __iter__(self) -> Iterator[Float[Array, "..."]]:
        return iter((self.nats, self.standard_error, self.ceiling))

    def __getitem__(self, index: int) -> Float[Array, "..."]:
        return (self.nats, self.standard_error, self.ceiling)[index]

    def __len__(self) -> int:
        return 3
