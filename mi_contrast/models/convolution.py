"""Convolutions with PyTorch's padding and torchvision's initialisation.

Accelerators run XLA's own convolution and gradients. On CPUs XLA's gradients are several times slower than its forward
pass, so this module computes three parts itself there: the gradient with respect to the kernel, the gradient with
respect to an input of few channels where the stride is above 1, and the whole of a 1 x 1 convolution.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float

SMALL_MAP = 2
KAIMING_FAN_OUT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
FEW_CHANNELS = 32  # in an input; with more channels, XLA's own gradient through a stride is faster
PATCH_VALUES = 2**20  # numbers gathered at a time: 4 MiB of float32, about the size of a processor's cache
LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve_direct(
    x: Float[Array, "B H W I"], kernel: Float[Array, "k k I O"], stride: int
) -> Float[Array, "B h w O"]:
    """Convolves with k // 2 zeros of padding on every side. ('SAME' would pad unevenly for a stride of 2.)"""
    padding = [(kernel.shape[0] // 2,) * 2] * 2
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)


def gather_patches(x: Float[Array, "*N H W I"], size: int, stride: int) -> Float[Array, "*N h w kkI"]:
    """Returns the size x size window of the input for each output pixel of a convolution, with zeros outside."""
    pad = size // 2
    height, width = (output_size(side, size, stride) for side in x.shape[-3:-1])
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(pad, pad), (pad, pad), (0, 0)])
    rows = [slice(i, i + stride * (height - 1) + 1, stride) for i in range(size)]
    columns = [slice(j, j + stride * (width - 1) + 1, stride) for j in range(size)]
    return jnp.concatenate([x[..., row, column, :] for row in rows for column in columns], axis=-1)


def convolve_by_patches(
    x: Float[Array, "B H W I"], kernel: Float[Array, "k k I O"], stride: int
) -> Float[Array, "B h w O"]:
    """Convolves by one matrix product of patches, [B h w, k k I] x [k k I, O].

    Meant for maps of a few pixels, for which XLA's CPU convolution or its gradient was 10 to 80 times slower.
    """
    return gather_patches(x, kernel.shape[0], stride) @ kernel.reshape(-1, kernel.shape[-1])


def output_size(side: int, size: int, stride: int) -> int:
    """Returns the pixels a side after a convolution of `size` with size // 2 zeros on every side."""
    return (side + 2 * (size // 2) - size) // stride + 1


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(x: Float[Array, "B H W I"], kernel: Float[Array, "k k I O"], stride: int) -> Float[Array, "B h w O"]:
    """Convolves as `convolve_direct` does, with gradients that are fast on CPUs. Other platforms use XLA's own.

    It supports reverse-mode derivatives of every order. For forward mode (`jax.jvp`) use `convolve_direct`.
    """
    if kernel.shape[0] > 1:
        return convolve_direct(x, kernel, stride)
    product = lambda x, kernel: x[:, ::stride, ::stride] @ kernel[0, 0]  # noqa: E731
    return lax.platform_dependent(x, kernel, cpu=product, default=partial(convolve_direct, stride=stride))  # type: ignore


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x, kernel, stride), (x, kernel)


def _backward(stride: int, inputs: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    def xla_gradients(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return jax.vjp(partial(convolve_direct, stride=stride), x, kernel)[1](gradient)  # type: ignore[no-any-return]

    def cpu_gradients(x: Array, kernel: Array, gradient: Array) -> tuple[Array, Array]:
        return input_gradient(x, kernel, gradient, stride), kernel_gradient(x, kernel, gradient, stride)

    return lax.platform_dependent(  # type: ignore[no-any-return]
        *inputs, gradient, cpu=cpu_gradients, default=xla_gradients
    )


convolve.defvjp(_forward, _backward)


def input_gradient(
    x: Float[Array, "B H W I"], kernel: Float[Array, "k k I O"], gradient: Float[Array, "B h w O"], stride: int
) -> Float[Array, "B H W I"]:
    """Returns the gradient of `convolve_direct` with respect to its input.

    A 1 x 1 kernel needs one product, with zeros at the pixels that the stride leaves out. A stride above 1 over few
    channels is handled by `input_gradient_by_offsets`. XLA's own gradient is the fastest otherwise.
    """
    if kernel.shape[0] == 1:
        return _spread(gradient @ kernel[0, 0].T, stride, x.shape)
    if stride > 1 and x.shape[-1] <= FEW_CHANNELS:
        return input_gradient_by_offsets(x, kernel, gradient, stride)
    (back,) = jax.vjp(lambda x: convolve_direct(x, kernel, stride), x)[1](gradient)
    return back  # type: ignore[no-any-return]


def _spread(gradient: Float[Array, "B h w I"], stride: int, shape: tuple[int, ...]) -> Float[Array, "B H W I"]:
    """Places each pixel `stride` pixels from the last, with zeros between them and up to the edge."""
    rest = [large - (small - 1) * stride - 1 for large, small in zip(shape[1:3], gradient.shape[1:3], strict=True)]
    zeros = [(0, 0, 0), *((0, after, stride - 1) for after in rest), (0, 0, 0)]
    return lax.pad(gradient, jnp.zeros((), gradient.dtype), zeros)


def input_gradient_by_offsets(
    x: Float[Array, "B H W I"], kernel: Float[Array, "k k I O"], gradient: Float[Array, "B h w O"], stride: int
) -> Float[Array, "B H W I"]:
    """Returns the gradient with respect to the input of a convolution of stride s, without multiplying by zeros.

    Input pixel s a + r takes kernel entry r + k // 2 - s d from output pixel a + d. Each offset r therefore has a small
    kernel over d. One dense convolution applies the s^2 small kernels side by side, [., ., O, s s I], and its channels
    are interleaved into the input's pixels.
    """
    size, pad = kernel.shape[0], kernel.shape[0] // 2
    first, last = -((size - 1 - pad) // stride), (stride - 1 + pad) // stride
    entry = np.arange(stride) + pad - stride * np.arange(first, last + 1)[:, None]  # [d, r]
    entry = np.where((entry >= 0) & (entry < size), entry, size)  # the row of zeros below
    small = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))[entry][:, :, entry]  # [d, r, d, r, I, O]
    taps = len(entry)
    small = small.transpose(0, 2, 5, 1, 3, 4).reshape(taps, taps, kernel.shape[3], -1)
    height, width = (-(-side // stride) for side in x.shape[1:3])
    sides = zip((height, width), gradient.shape[1:3], strict=True)
    padding = [(-first, last + wide - narrow) for wide, narrow in sides]
    y = lax.conv_general_dilated(gradient, small, (1, 1), padding, dimension_numbers=LAYOUT)
    y = y.reshape(len(x), height, width, stride, stride, -1).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(len(x), height * stride, width * stride, -1)[:, : x.shape[1], : x.shape[2]]


def kernel_gradient(
    x: Float[Array, "B H W I"], kernel: Float[Array, "k k I O"], gradient: Float[Array, "B h w O"], stride: int
) -> Float[Array, "k k I O"]:
    """Returns the gradient of `convolve_direct` with respect to its kernel.

    It is the sum over output pixels p of gradient_p patch_p^T.

    The sum runs over blocks of the batch whose patches fit a processor's cache, in float32 whatever the dtype. Each
    device sums its own part of a batch that is sharded over devices, and the parts are added once, at the end.
    """
    size, depth, batch = kernel.shape[0], kernel.shape[0] ** 2 * x.shape[-1], x.shape[0]
    devices = jax.device_count()
    parts = (devices,) if devices > 1 and batch % devices == 0 else ()  # an axis of length 1 would slow the product
    share, pixels = batch // devices if parts else batch, gradient.shape[1] * gradient.shape[2]
    # Each block reads and writes the sum, [O, k k I], so it has at least 8 O pixels.
    block = max(PATCH_VALUES // depth, 8 * gradient.shape[-1])
    blocks = _divisor(share, max(1, share * pixels // block))
    product = "dpo,dpi->doi" if parts else "po,pi->oi"

    def add_block(total: Array, index: Array) -> tuple[Array, None]:
        x_, gradient_ = (lax.dynamic_index_in_dim(z, index, len(parts), keepdims=False) for z in blocked)
        left, right = (z.reshape(*parts, -1, z.shape[-1]) for z in (gradient_, gather_patches(x_, size, stride)))
        return total + jnp.einsum(product, left, right, preferred_element_type=jnp.float32), None

    blocked = [z.reshape(*parts, blocks, share // blocks, *z.shape[1:]) for z in (x, gradient)]
    total, _ = lax.scan(add_block, jnp.zeros((*parts, gradient.shape[-1], depth), jnp.float32), jnp.arange(blocks))
    total = total.sum(0) if parts else total
    return total.T.reshape(kernel.shape).astype(kernel.dtype)


def _divisor(number: int, most: int) -> int:
    """Returns the largest divisor of a number that is at most `most`."""
    return next(d for d in range(min(most, number), 0, -1) if number % d == 0)


class Conv(nn.Module):
    """A square convolution without bias: kernel [k, k, in, out], with k // 2 zeros of padding on every side.

    Results of at most 2 x 2 pixels are computed by `convolve_by_patches`.

    Attributes:
      features: output channels.
      size: k, odd.
      stride: pixels from one output pixel to the next.
      dtype: of the computation and the result. The kernel is float32.
    """

    features: int
    size: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W I"]) -> Float[Array, "B h w O"]:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", KAIMING_FAN_OUT, shape, jnp.float32)
        largest = max(output_size(side, self.size, self.stride) for side in x.shape[1:3])
        function = convolve_by_patches if largest <= SMALL_MAP and self.size > 1 else convolve
        return function(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
