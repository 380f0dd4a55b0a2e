"""Heads from features to an embedding: linear, MLP, MLP with batch norm, and one for the nine patches of a jigsaw."""

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
    """Computes x @ kernel + bias in float32. Both are initialised from U(+-1 / sqrt(fan in)), as in torch.nn.Linear."""

    features: int
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        bound = 1 / math.sqrt(x.shape[-1])

        def uniform(rng: Array, shape: tuple[int, ...], dtype: jnp.dtype) -> Array:
            return jax.random.uniform(rng, shape, dtype, -bound, bound)

        kernel = self.param("kernel", KAIMING_UNIFORM, (x.shape[-1], self.features), jnp.float32)
        y = x.astype(jnp.float32) @ kernel
        return y + self.param("bias", uniform, (self.features,), jnp.float32) if self.bias else y


class LinearHead(nn.Module):
    """Linear(dim), with the module name '0'. Source: He et al. 2020 (MoCo)."""

    dim: int

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"], train: bool) -> Float[Array, "*B D"]:
        return Linear(self.dim, name="0")(features)


class MLPHead(nn.Module):
    """Linear(hidden), ReLU, Linear(dim), with the module names '0' and '2' as in the released code.

    Attributes:
      dim: size of the embedding.
      hidden: width of the hidden layer. None means the number of features.

    Source: Chen et al. 2020 (MoCo v2).
    """

    dim: int
    hidden: int | None = None

    @nn.compact
    def __call__(self, features: Float[Array, "*B F"], train: bool) -> Float[Array, "*B D"]:
        x = nn.relu(Linear(self.hidden or features.shape[-1], name="0")(features))
        return Linear(self.dim, name="2")(x)


class MLPNormHead(nn.Module):
    """Linear, batch norm and ReLU, `layers` - 1 times; then Linear(dim) and, with `last_norm`, another batch norm.

    This is the projector of SimCLR and MoCo v3 and, with two layers and no last norm, the predictor of MoCo v3
    (ResNet-50). No Linear has a bias. The last batch norm has neither scale nor bias, while SimCLR's keeps its scale.
    Module names are positions in the released Sequential: '0' Linear, '1' batch norm, '3' Linear, '4' batch norm, ...

    Attributes:
      dim: size of the output.
      hidden: width of the layers before the last. None means the number of inputs.
      layers: number of Linear layers.
      last_norm: whether a batch norm follows the last Linear.
      statistics: see `Statistics`.

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
    """Maps the features of nine patches to one embedding: `patch` on each, concatenated, then Linear(dim) ('joint').

    The released code permutes the patches inside its head. Here the views permute them, and the head keeps the order.

    Attributes:
      dim: size of the embedding.
      patch: a head without batch norm: linear in the released PIRL, an MLP in InfoMin.

    Source: Misra and van der Maaten 2020 (PIRL); Tian et al. 2020 (InfoMin), released code.
    """

    dim: int
    patch: LinearHead | MLPHead

    @nn.compact
    def __call__(self, features: Float[Array, "B N F"], train: bool) -> Float[Array, "B D"]:
        embeddings = self.patch(features, train)
        return Linear(self.dim, name="joint")(embeddings.reshape(embeddings.shape[0], -1))
