"""A small convolutional network for smoke tests and first trials: thousands of small images a second on a CPU."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mi_contrast.models.convolution import Conv
from mi_contrast.models.normalisation import BatchNorm, Statistics


class Tiny(nn.Module):
    """Three 3x3 convolutions of stride 2 (conv1 to conv3), each with batch norm and ReLU, and the mean over the map.

    Returns features float32 [B, F] or, if `pooled` is False, the feature map, float32 [B, h, w, F].

    Attributes:
      width: channels of the last convolution, which is the number of features. The first convolution has a quarter of
        it, the second a half.
      statistics: see `Statistics`.
      dtype: of the computation. Parameters, statistics and the result are float32.
    """

    width: int = 64
    statistics: Statistics = Statistics()
    dtype: DTypeLike = jnp.float32

    @property
    def dim(self) -> int:
        """Number of features."""
        return self.width

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"], train: bool, pooled: bool = True) -> Float[Array, "B ... F"]:
        for i, features in enumerate((self.width // 4, self.width // 2, self.width), start=1):
            x = Conv(features, 3, 2, self.dtype, name=f"conv{i}")(x)
            x = nn.relu(BatchNorm(self.statistics, name=f"bn{i}")(x, train))
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32) if pooled else x.astype(jnp.float32)
