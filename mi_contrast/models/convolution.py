"""Convolutions padded as PyTorch pads them, and initialised as torchvision initialises them."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

SMALL_MAP = 2
KAIMING_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def direct(x: Float[Array, "B H W I"], kernel: Float[Array, "k k I O"], stride: int) -> Float[Array, "B h w O"]:
    """Convolution with k // 2 zeros on every side (the same on both, unlike 'SAME' when the stride is 2)."""
    padding = [(kernel.shape[0] // 2,) * 2] * 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def by_patches(x: Float[Array, "B H W I"], kernel: Float[Array, "k k I O"], stride: int) -> Float[Array, "B h w O"]:
    """The same convolution as one matrix product: shifted copies side by side, [B h w, k k I] x [k k I, O].

    Meant for maps of a few pixels: there XLA's CPU convolution, or its gradient, was seen 10 to 80 times slower.
    """
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    height, width = (output_side(side, size, stride) for side in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows = [slice(i, i + stride * (height - 1) + 1, stride) for i in range(size)]
    columns = [slice(j, j + stride * (width - 1) + 1, stride) for j in range(size)]
    patches = jnp.concatenate([x[:, row, column] for row in rows for column in columns], axis=-1)
    return patches @ kernel.reshape(-1, kernel.shape[-1])


def output_side(side: int, size: int, stride: int) -> int:
    """Pixels a side after a convolution of `size` with size // 2 zeros on every side."""
    return (side + 2 * (size // 2) - size) // stride + 1


class Conv(nn.Module):
    """A square convolution without bias: kernel [k, k, in, out], k // 2 zeros of padding on every side.

    Where the result has at most 2 x 2 pixels it is computed by patches.

    Attributes:
      features: output channels.
      size: k, odd.
      stride: pixels a step.
      dtype: of the computation and the result; the kernel stays float32.
    """

    features: int
    size: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", KAIMING_FAN_OUT, shape, jnp.float32)
        largest = max(output_side(side, self.size, self.stride) for side in x.shape[1:3])
        convolve = by_patches if largest <= SMALL_MAP and self.size > 1 else direct
        return convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
