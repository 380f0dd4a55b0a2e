"""ResNet-18, -34 and -50 with torchvision's names and numerics ('v1.5': the stride is in the 3x3 convolution).

Module names joined by dots are torchvision's names, such as layer1.0.downsample.1.
"""

from __future__ import annotations

import warnings

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mi_contrast.models.convolution import Conv
from mi_contrast.models.normalisation import BatchNorm, Statistics

SMALL_IMAGE = 64


class Downsample(nn.Module):
    """The shortcut where shapes change: a 1x1 convolution ('0') and its batch norm ('1')."""

    features: int
    stride: int
    statistics: Statistics
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        x = Conv(self.features, 1, self.stride, self.dtype, name="0")(x)
        return BatchNorm(self.statistics, name="1")(x, train)


class Block(nn.Module):
    """Base class of the two kinds of residual block.

    Attributes:
      width: channels of the 3x3 convolutions. The block returns width * expansion channels.
      stride: of one convolution and the shortcut; the other convolutions have stride 1.
    """

    width: int
    stride: int
    statistics: Statistics
    dtype: DTypeLike
    expansion = 1

    def unit(self, x: Array, train: bool, index: int, features: int, size: int, stride: int = 1) -> Array:
        """Applies the convolution `conv<index>` and its batch norm `bn<index>`."""
        x = Conv(features, size, stride, self.dtype, name=f"conv{index}")(x)
        return BatchNorm(self.statistics, name=f"bn{index}")(x, train)

    def add_shortcut(self, y: Array, x: Array, train: bool) -> Array:
        """Returns relu(y + shortcut(x))."""
        if self.stride > 1 or x.shape[-1] != y.shape[-1]:
            x = Downsample(y.shape[-1], self.stride, self.statistics, self.dtype, name="downsample")(x, train)
        return nn.relu(y + x)


class BasicBlock(Block):
    """Two 3x3 convolutions and a shortcut (ResNet-18, -34)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        y = nn.relu(self.unit(x, train, 1, self.width, 3, self.stride))
        y = self.unit(y, train, 2, self.width, 3)
        return self.add_shortcut(y, x, train)


class Bottleneck(Block):
    """Convolutions 1x1, 3x3 (with the stride) and 1x1 to four times the width, and a shortcut (ResNet-50)."""

    expansion = 4

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        y = nn.relu(self.unit(x, train, 1, self.width, 1))
        y = nn.relu(self.unit(y, train, 2, self.width, 3, self.stride))
        y = self.unit(y, train, 3, self.width * self.expansion, 1)
        return self.add_shortcut(y, x, train)


class Stage(nn.Module):
    """Blocks '0', '1', ... of one width. The first has the stride.

    Attributes:
      remat: keep only each block's input for the backward pass, and compute the block again there.
    """

    block: type[Block]
    blocks: int
    width: int
    stride: int
    statistics: Statistics
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        block = nn.remat(self.block, static_argnums=(2,)) if self.remat else self.block
        for i in range(self.blocks):
            stride = self.stride if i == 0 else 1
            x = block(self.width, stride, self.statistics, self.dtype, name=str(i))(x, train)
        return x


class ResNet(nn.Module):
    """A stem, four stages of residual blocks, and the mean over the feature map.

    Returns features float32 [B, F] or, if `pooled` is False, the feature map, float32 [B, h, w, F].

    Attributes:
      block: the kind of block.
      blocks: number of blocks in each stage.
      width: channels of the stem and the first stage, 64 in torchvision. They double at each later stage.
      stem: 'imagenet' (7x7 stride 2, 3x3 max pool stride 2) or 'small' (3x3 stride 1, no pool).
      statistics: see `Statistics`.
      dtype: of the computation. Parameters, statistics and the result are float32.
      remat: see `Stage`.

    Warns:
      UserWarning: images of 64 pixels or less with the ImageNet stem, which leaves a feature map of at most 2 x 2.
    Source: He et al. 2016; torchvision.models.resnet.
    """

    block: type[Block]
    blocks: tuple[int, int, int, int]
    width: int = 64
    stem: str = "imagenet"
    statistics: Statistics = Statistics()
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @property
    def dim(self) -> int:
        """Number of features."""
        return 8 * self.width * self.block.expansion

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"], train: bool, pooled: bool = True) -> Float[Array, "B ... F"]:
        if self.stem == "imagenet":
            if min(x.shape[1:3]) <= SMALL_IMAGE:
                warnings.warn(
                    f"images of {x.shape[1]} x {x.shape[2]} pixels meet the ImageNet stem, which shrinks them 32 times "
                    "in all; model.stem = 'small' is made for 64 pixels and less",
                    UserWarning,
                    stacklevel=2,
                )
            x = Conv(self.width, 7, 2, self.dtype, name="conv1")(x)
            x = nn.relu(BatchNorm(self.statistics, name="bn1")(x, train))
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        else:
            x = Conv(self.width, 3, 1, self.dtype, name="conv1")(x)
            x = nn.relu(BatchNorm(self.statistics, name="bn1")(x, train))
        for i, blocks in enumerate(self.blocks):
            stage = Stage(
                self.block,
                blocks,
                width=self.width * 2**i,
                stride=1 if i == 0 else 2,
                statistics=self.statistics,
                dtype=self.dtype,
                remat=self.remat,
                name=f"layer{i + 1}",
            )
            x = stage(x, train)
        return jnp.mean(x, axis=(1, 2), dtype=jnp.float32) if pooled else x.astype(jnp.float32)
