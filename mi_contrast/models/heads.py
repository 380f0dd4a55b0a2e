"""Heads from features to an embedding: linear, a perceptron, a perceptron with batch norm, and one for nine patches."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mi_contrast.models.normalisation import BatchNorm, Statistics

KAIMING_UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Linear(nn.Module):
    """x @ kernel + bias, both drawn from U(-1/sqrt(fan in), 1/sqrt(fan in)) as torch.nn.Linear does. float32."""

    features: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        bound = 1 / math.sqrt(x.shape[-1])

        def uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        kernel = self.param("kernel", KAIMING_UNIFORM, (x.shape[-1], self.features), jnp.float32)
        y = x.astype(jnp.float32) @ kernel
        return y + self.param("bias", uniform, (self.features,), jnp.float32) if self.bias else y


class LinearHead(nn.Module):
    """Linear(dim), named '0'. Source: He et al. 2020 (MoCo)."""

    dim: int

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"], train: bool) -> Float[Array, "*B D"]:
        return Linear(self.dim, name="0")(features)


class MLPHead(nn.Module):
    """Linear(hidden), ReLU, Linear(dim), named '0' and '2' as in the released code. Source: Chen et al. 2020 (MoCo v2).

    Attributes:
      hidden: width between the two; that of the features where None.
    """

    dim: int
    hidden: int | None = None

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"], train: bool) -> Float[Array, "*B D"]:
        x = nn.relu(Linear(self.hidden or features.shape[-1], name="0")(features))
        return Linear(self.dim, name="2")(x)


class MLPNormHead(nn.Module):
    """Linear, batch norm and ReLU, `layers` - 1 times, then Linear(dim) and, with `last_norm`, a batch norm of its own.

    No Linear has a bias; the last batch norm has neither scale nor bias. Names are places in the released Sequential:
    '0' Linear, '1' batch norm, '3' Linear, '4' batch norm, ... The projector of SimCLR and MoCo v3, and with two layers
    and no last norm MoCo v3's predictor (ResNet-50). (SimCLR's last norm keeps its scale, which is left out here.)

    Attributes:
      hidden: width of the layers before the last; that of what comes in where None.
      statistics: see BatchNorm.
    Source: Chen et al. 2020 (SimCLR); Chen, Xie and He 2021 (MoCo v3), released code.
    """

    dim: int
    hidden: int | None = None
    layers: int = 2
    last_norm: bool = True
    statistics: Statistics = Statistics()

    @nn.compact
    def __call__(self, x: Float[Array, "B F"], train: bool) -> Float[Array, "B D"]:
        hidden, last = self.hidden or x.shape[-1], 3 * (self.layers - 1)
        for place in range(0, last, 3):
            x = Linear(hidden, bias=False, name=str(place))(x)
            x = nn.relu(BatchNorm(self.statistics, name=str(place + 1))(x, train))
        x = Linear(self.dim, bias=False, name=str(last))(x)
        return BatchNorm(self.statistics, affine=False, name=str(last + 1))(x, train) if self.last_norm else x


class JigsawHead(nn.Module):
    """Nine patches' features to one embedding: `patch` on each, side by side in their order, Linear(dim) ('joint').

    The released code shuffles the nine inside its head; here their order is the images', which the views shuffle.

    Attributes:
      dim: of the embedding.
      patch: a head without batch norm; that of the released PIRL is linear, that of InfoMin a perceptron.
    Source: Misra and van der Maaten 2020 (PIRL); Tian et al. 2020 (InfoMin), released code.
    """

    dim: int
    patch: LinearHead | MLPHead

    @nn.compact
    def __call__(self, features: Float[Array, "B N F"], train: bool) -> Float[Array, "B D"]:
        each = self.patch(features, train)
        return Linear(self.dim, name="joint")(each.reshape(each.shape[0], -1))
