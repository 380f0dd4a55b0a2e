"""Heads from features to an embedding: linear (MoCo v1) or a two-layer perceptron (MoCo v2); no batch norm in them."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

KAIMING_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Linear(nn.Module):
    """x @ kernel + bias, both drawn from U(-1/sqrt(fan in), 1/sqrt(fan in)) as torch.nn.Linear does. float32."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B I"]) -> Float[Array, "B O"]:
        bound = 1 / math.sqrt(x.shape[-1])

        def uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        kernel = self.param("kernel", KAIMING_UNIFORM, (x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", uniform, (self.features,), jnp.float32)
        return x.astype(jnp.float32) @ kernel + bias


class LinearHead(nn.Module):
    """Linear(dim), named '0'. Source: He et al. 2020 (MoCo)."""

    dim: int

    @nn.compact
    def __call__(self, features: Float[Array, "B F"], train: bool) -> Float[Array, "B D"]:
        return Linear(self.dim, name="0")(features)


class MLPHead(nn.Module):
    """Linear(hidden), ReLU, Linear(dim), named '0' and '2' as in the released code. Source: Chen et al. 2020 (MoCo v2).

    Attributes:
      hidden: width between the two; that of the features where None.
    """

    dim: int
    hidden: int | None = None

    @nn.compact
    def __call__(self, features: Float[Array, "B F"], train: bool) -> Float[Array, "B D"]:
        x = nn.relu(Linear(self.hidden or features.shape[-1], name="0")(features))
        return Linear(self.dim, name="2")(x)
