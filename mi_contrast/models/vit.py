"""Vision transformers with timm's names and numerics, and MoCo v3's positions and initialisation.

A path of module names joined by dots is timm's own name: blocks / 0 / attn / qkv is blocks.0.attn.qkv.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from mi_contrast.core.errors import UserError

EPSILON, WIDENING, SLOWEST = 1e-6, 4, 10_000.0
EMBEDDING, TOKEN, POSITIONS = "patch_embed", "cls_token", "pos_embed"
XAVIER, TRUNCATED_NORMAL = nn.initializers.xavier_uniform(), nn.initializers.truncated_normal(0.02)


def uniform(bound: float) -> nn.initializers.Initializer:
    """U(-bound, bound)."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


def sine_cosine(rows: int, columns: int, dim: int) -> np.ndarray:
    """Fixed positions of a grid of patches, row after row: float32 [rows columns, dim], dim a multiple of 4.

    Of the patch in row r and column c: sin(r w), cos(r w), sin(c w), cos(c w), a quarter of `dim` each, where
    w_i = 10,000^(-i / (dim / 4)). The release lists a grid's columns first, which on a square is the same table.

    Source: Chen, Xie and He 2021 (MoCo v3), released code.

    >>> sine_cosine(2, 3, 4).round(2)[4].tolist()  # row 1, column 1
    [0.8399999737739563, 0.5400000214576721, 0.8399999737739563, 0.5400000214576721]
    """
    quarter = dim // 4
    waves = (1.0 / SLOWEST ** (np.arange(quarter) / quarter)).astype(np.float32)
    of_row, of_column = np.divmod(np.arange(rows * columns), columns)
    angles = [np.outer(at.astype(np.float32), waves) for at in (of_row, of_column)]
    return np.concatenate([turn(angle) for angle in angles for turn in (np.sin, np.cos)], axis=1)


def fixed_positions(grid: int, dim: int) -> np.ndarray:
    """The sine-cosine positions of a square grid as timm keeps any: float32 [1, 1 + grid grid, dim], the class token's
    0 first.
    """
    return np.concatenate([np.zeros((1, dim), np.float32), sine_cosine(grid, grid, dim)])[None]


class PatchEmbedding(nn.Module):
    """Patches that do not overlap, each to a token by one matrix ('proj', stored as a convolution's kernel)."""

    features: int
    patch: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        (batch, *sides, channels), side = x.shape, self.patch
        if any(length % side for length in sides):
            raise UserError(f"images of {sides[0]} x {sides[1]} pixels can't be cut into patches of {side}",
                            fix=f"give sides that are multiples of {side}, or set model.patch")  # fmt: skip
        x = x.reshape(batch, sides[0] // side, side, sides[1] // side, side, channels)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, sides[0] // side, sides[1] // side, -1)
        return Projection(self.features, self.patch, channels, self.dtype, name="proj")(x)


class Projection(nn.Module):
    """x @ kernel + bias of flattened patches; kernel [patch, patch, C, D]."""

    features: int
    patch: int
    channels: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w P"]) -> Float[Array, "B h w D"]:
        init = uniform(math.sqrt(6.0 / (x.shape[-1] + self.features)))
        shape = (self.patch, self.patch, self.channels, self.features)
        kernel = self.param("kernel", init, shape, jnp.float32).reshape(-1, self.features)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return x.astype(self.dtype) @ kernel.astype(self.dtype) + bias.astype(self.dtype)


class Attention(nn.Module):
    """Every token looks at all: softmax(q k' / sqrt(channels a head)) v, by heads, then one matrix ('proj')."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        batch, count, dim = x.shape
        each = uniform(math.sqrt(6.0 / (2 * dim)))  # xavier of q, k and v apart
        qkv = nn.Dense(3 * dim, dtype=self.dtype, kernel_init=each, name="qkv")(x)
        q, k, v = (part.reshape(batch, count, self.heads, -1) for part in jnp.split(qkv, 3, axis=-1))
        x = jax.nn.dot_product_attention(q, k, v).reshape(batch, count, dim)
        return nn.Dense(dim, dtype=self.dtype, kernel_init=XAVIER, name="proj")(x)


class Perceptron(nn.Module):
    """Linear to four times the width ('fc1'), GELU by the error function, linear back ('fc2')."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        wide = nn.Dense(WIDENING * x.shape[-1], dtype=self.dtype, kernel_init=XAVIER, name="fc1")(x)
        wide = nn.gelu(wide, approximate=False)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=XAVIER, name="fc2")(wide)


def layer_norm(dtype: DTypeLike, name: str) -> nn.LayerNorm:
    """Layer norm over channels, its statistics in float32 about the mean."""
    return nn.LayerNorm(EPSILON, dtype=dtype, use_fast_variance=False, name=name)


class Block(nn.Module):
    """x + attn(norm1(x)), then x + mlp(norm2(x))."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        x = x + Attention(self.heads, self.dtype, name="attn")(layer_norm(self.dtype, "norm1")(x))
        return x + Perceptron(self.dtype, name="mlp")(layer_norm(self.dtype, "norm2")(x))


class Blocks(nn.Module):
    """Blocks '0', '1', ...; with `remat` only each block's input is kept for the gradient."""

    depth: int
    heads: int
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        block = nn.remat(Block) if self.remat else Block
        for i in range(self.depth):
            x = block(self.heads, self.dtype, name=str(i))(x)
        return x


class ViT(nn.Module):
    """Images to the class token after the last norm; where not `pooled`, the other tokens, float32 [B, h, w, F].

    There are no batch statistics in it: training and evaluation compute the same.

    Attributes:
      width: channels a head (64 as published); the tokens have `width` x `heads`.
      heads, depth: of attention, in each of `depth` blocks.
      patch: pixels a side.
      grid: None, positions are the fixed sine-cosine of the images' own grid, whatever its size; a number, they are
        learned for a square of so many patches, and resized to another by bicubic interpolation, as timm does.
      dtype: of the computation; parameters, softmax and the features returned are float32.
      remat: see Blocks.
    Raises UserError where images can't be cut into patches.
    Source: Dosovitskiy et al. 2021 (ViT); timm.models.vision_transformer; positions and first weights as Chen, Xie and
    He 2021 (MoCo v3), released code.
    """

    width: int = 64
    heads: int = 6
    depth: int = 12
    patch: int = 16
    grid: int | None = None
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @property
    def dim(self) -> int:
        """Number of features."""
        return self.width * self.heads

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool, pooled: bool = True) -> Float[Array, "B ... F"]:
        x = PatchEmbedding(self.dim, self.patch, self.dtype, name=EMBEDDING)(x)
        batch, rows, columns, dim = x.shape
        token = self.param(TOKEN, nn.initializers.normal(1e-6), (1, 1, dim), jnp.float32)
        of_token, of_patches = self.positions(rows, columns)
        x = x.reshape(batch, rows * columns, dim) + of_patches.astype(self.dtype)
        token = jnp.broadcast_to((token + of_token).astype(self.dtype), (batch, 1, dim))
        x = jnp.concatenate([token, x], axis=1)
        x = Blocks(self.depth, self.heads, self.dtype, self.remat, name="blocks")(x)
        x = layer_norm(self.dtype, "norm")(x).astype(jnp.float32)
        return x[:, 0] if pooled else x[:, 1:].reshape(batch, rows, columns, dim)

    def positions(self, rows: int, columns: int) -> tuple[Array, Array]:
        """What is added to the class token [1, 1, D] and to the patches [1, rows columns, D]."""
        if self.grid is None:
            return jnp.zeros((1, 1, self.dim)), jnp.asarray(sine_cosine(rows, columns, self.dim))[None]
        learned = self.param(POSITIONS, TRUNCATED_NORMAL, (1, 1 + self.grid**2, self.dim), jnp.float32)
        of_patches = learned[:, 1:]
        if (rows, columns) != (self.grid, self.grid):
            square = of_patches.reshape(self.grid, self.grid, self.dim)
            of_patches = jax.image.resize(square, (rows, columns, self.dim), "cubic").reshape(1, -1, self.dim)
        return learned[:, :1], of_patches
