"""Vision transformers with timm's names and numerics, and MoCo v3's positions and initialisation.

Module names joined by dots are timm's names, such as blocks.0.attn.qkv.
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
    """Returns an initialiser that draws from U(-bound, bound)."""
    return lambda rng, shape, dtype=jnp.float32: jax.random.uniform(rng, shape, dtype, -bound, bound)


def sine_cosine(rows: int, columns: int, dim: int) -> np.ndarray:
    """Returns the fixed position embeddings of a grid of patches, row by row, float32 [rows columns, dim].

    The patch in row r and column c has sin(r w), cos(r w), sin(c w), cos(c w), a quarter of `dim` each, where
    w_i = 10,000^(-i / (dim / 4)). `dim` is a multiple of 4. The released code iterates over columns first, which gives
    the same table for a square grid.

    Source: Chen, Xie and He 2021 (MoCo v3), released code.

    >>> sine_cosine(2, 3, 4).round(2)[4].tolist()  # row 1, column 1
    [0.8399999737739563, 0.5400000214576721, 0.8399999737739563, 0.5400000214576721]
    """
    quarter = dim // 4
    waves = (1.0 / SLOWEST ** (np.arange(quarter) / quarter)).astype(np.float32)
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [np.outer(coordinate.astype(np.float32), waves) for coordinate in (row, column)]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=1)


def fixed_positions(grid: int, dim: int) -> np.ndarray:
    """Returns the sine-cosine positions of a square grid in timm's layout, float32 [1, 1 + grid grid, dim].

    The first row belongs to the class token and is 0.
    """
    return np.concatenate([np.zeros((1, dim), np.float32), sine_cosine(grid, grid, dim)])[None]


class PatchEmbedding(nn.Module):
    """Maps each of the non-overlapping patches to a token by one matrix, 'proj', stored as a convolution kernel."""

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
    """Computes x @ kernel + bias for flattened patches. The kernel is stored as [patch, patch, C, D]."""

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
    """Self-attention: softmax(q k' / sqrt(channels a head)) v for each head, then one matrix ('proj')."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        batch, count, dim = x.shape
        init = uniform(math.sqrt(6.0 / (2 * dim)))  # Xavier for q, k and v separately
        qkv = nn.Dense(3 * dim, dtype=self.dtype, kernel_init=init, name="qkv")(x)
        q, k, v = (part.reshape(batch, count, self.heads, -1) for part in jnp.split(qkv, 3, axis=-1))
        x = jax.nn.dot_product_attention(q, k, v).reshape(batch, count, dim)
        return nn.Dense(dim, dtype=self.dtype, kernel_init=XAVIER, name="proj")(x)


class Perceptron(nn.Module):
    """Linear to four times the width ('fc1'), exact GELU, linear back ('fc2')."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        hidden = nn.Dense(WIDENING * x.shape[-1], dtype=self.dtype, kernel_init=XAVIER, name="fc1")(x)
        hidden = nn.gelu(hidden, approximate=False)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=XAVIER, name="fc2")(hidden)


def layer_norm(dtype: DTypeLike, name: str) -> nn.LayerNorm:
    """Returns a layer norm over channels. Its variance is computed around the mean, in float32."""
    return nn.LayerNorm(EPSILON, dtype=dtype, use_fast_variance=False, name=name)


class Block(nn.Module):
    """A transformer block: x + attn(norm1(x)), then x + mlp(norm2(x))."""

    heads: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        x = x + Attention(self.heads, self.dtype, name="attn")(layer_norm(self.dtype, "norm1")(x))
        return x + Perceptron(self.dtype, name="mlp")(layer_norm(self.dtype, "norm2")(x))


class Blocks(nn.Module):
    """Blocks '0', '1', ... With `remat`, only each block's input is kept for the backward pass."""

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
    """A vision transformer. Returns the class token after the last norm, float32 [B, F].

    If `pooled` is False, it returns the other tokens, float32 [B, h, w, F]. There are no batch statistics, so training
    and evaluation compute the same.

    Attributes:
      width: channels a head, 64 as published. Tokens have width * heads channels.
      heads: attention heads in each block.
      depth: number of blocks.
      patch: pixels a side of a patch.
      grid: with None, positions are fixed sine-cosine embeddings for any image size. With a number, they are learned
        for a square grid of so many patches a side, and resized to other grids by bicubic interpolation as in timm.
      dtype: of the computation. Parameters, softmax and the result are float32.
      remat: see `Blocks`.

    Raises:
      UserError: images can't be cut into patches.
    Source: Dosovitskiy et al. 2021 (ViT); timm.models.vision_transformer; positions and initialisation as in Chen, Xie
    and He 2021 (MoCo v3), released code.
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
        token_position, patch_positions = self.positions(rows, columns)
        x = x.reshape(batch, rows * columns, dim) + patch_positions.astype(self.dtype)
        token = jnp.broadcast_to((token + token_position).astype(self.dtype), (batch, 1, dim))
        x = jnp.concatenate([token, x], axis=1)
        x = Blocks(self.depth, self.heads, self.dtype, self.remat, name="blocks")(x)
        x = layer_norm(self.dtype, "norm")(x).astype(jnp.float32)
        return x[:, 0] if pooled else x[:, 1:].reshape(batch, rows, columns, dim)

    def positions(self, rows: int, columns: int) -> tuple[Array, Array]:
        """Returns the position embeddings of the class token [1, 1, D] and of the patches [1, rows columns, D]."""
        if self.grid is None:
            return jnp.zeros((1, 1, self.dim)), jnp.asarray(sine_cosine(rows, columns, self.dim))[None]
        learned = self.param(POSITIONS, TRUNCATED_NORMAL, (1, 1 + self.grid**2, self.dim), jnp.float32)
        patch_positions = learned[:, 1:]
        if (rows, columns) != (self.grid, self.grid):
            square = patch_positions.reshape(self.grid, self.grid, self.dim)
            patch_positions = jax.image.resize(square, (rows, columns, self.dim), "cubic").reshape(1, -1, self.dim)
        return learned[:, :1], patch_positions
