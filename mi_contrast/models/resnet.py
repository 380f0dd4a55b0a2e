"""ResNet-18, -34 and -50 with torchvision's names and numerics (the stride in the 3x3 convolution: 'v1.5').

A path of module names joined by dots is torchvision's own name: layer1 / 0 / downsample / 1 is layer1.0.downsample.1.
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
    """What the two kinds of residual block share: their fields, and the sum with the shortcut.

    Attributes:
      width: channels of the 3x3 convolutions; the block returns width x expansion channels.
      stride: pixels a step, taken once.
    """

    width: int
    stride: int
    statistics: Statistics
    dtype: DTypeLike
    expansion = 1

    def unit(self, x: Array, train: bool, index: int, features: int, size: int, stride: int = 1) -> Array:
        """Convolution `conv<index>` and its batch norm `bn<index>`."""
        x = Conv(features, size, stride, self.dtype, name=f"conv{index}")(x)
        return BatchNorm(self.statistics, name=f"bn{index}")(x, train)

    def add_shortcut(self, y: Array, x: Array, train: bool) -> Array:
        """relu(y + shortcut(x))."""
        if self.stride > 1 or x.shape[-1] != y.shape[-1]:
            x = Downsample(y.shape[-1], self.stride, self.statistics, self.dtype, name="downsample")(x, train)
        return nn.relu(y + x)


class BasicBlock(Block):
    """Two 3x3 convolutions beside a shortcut (ResNet-18, -34)."""

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        y = nn.relu(self.unit(x, train, 1, self.width, 3, self.stride))
        y = self.unit(y, train, 2, self.width, 3)
        return self.add_shortcut(y, x, train)


class Bottleneck(Block):
    """1x1, 3x3 (which carries the stride) and 1x1 to four times the width, beside a shortcut (ResNet-50)."""

    expansion = 4

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"], train: bool) -> Float[Array, "B h w O"]:
        y = nn.relu(self.unit(x, train, 1, self.width, 1))
        y = nn.relu(self.unit(y, train, 2, self.width, 3, self.stride))
        y = self.unit(y, train, 3, self.width * self.expansion, 1)
        return self.add_shortcut(y, x, train)


class Stage(nn.Module):
    """Blocks '0', '1', ... of one width; the first takes the stride.

    Attributes:
      remat: keep only each block's input for the gradient, and compute the block again on the way back.
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
    """Images to pooled features: a stem, four stages of residual blocks, the mean over the map; where not `pooled`, the
    map itself, float32 [B, h, w, F].

    Attributes:
      block, blocks: the kind of block and how many a stage.
      width: channels of the stem and of the first stage (torchvision's nets have 64); doubled at each stage.
      stem: 'imagenet' (7x7 stride 2, 3x3 max pool stride 2) or 'small' (3x3 stride 1, no pool).
      statistics: see BatchNorm.
      dtype: of the computation; parameters, statistics and the features returned are float32.
      remat: see Stage.
    Warns (UserWarning) where images of 64 pixels or less meet the ImageNet stem, which leaves a map of 2 x 2 or less.
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
