"""Batch normalisation with PyTorch's numerics, by statistics of the whole batch, of groups of it, or frozen ones.

Under `jit` a batch that is sharded over devices is one global array, and so its statistics do not depend on the number
of devices. (With one process for each GPU, as is usual in PyTorch, each GPU has its own statistics.) If a method needs
queries and keys to have separate statistics, `groups` splits the batch explicitly.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from mi_contrast.core.errors import UserError


@dataclass(frozen=True)
class Statistics:
    """Which mean and variance a batch norm uses in training, and how it updates the running ones.

    Attributes:
      groups: number of contiguous parts of the batch that are normalised separately (ghost batch norm). It must divide
        the batch size.
      frozen: use the running statistics in training too, and do not update them.
      momentum: weight of the newest statistics in the running ones, as in PyTorch.
    """

    groups: int = 1
    frozen: bool = False
    momentum: float = 0.1


class BatchNorm(nn.Module):
    """Computes (x - mean) / sqrt(var + epsilon) * scale + bias for each channel (last axis), in float32.

    The result has the dtype of x. In training, mean and var (biased) are those of each group of the batch. The running
    statistics are updated by running <- (1 - momentum) running + momentum batch, where the batch's mean and unbiased
    variance are averaged over the groups. In evaluation, or if frozen, the running statistics are used and not updated.

    Attributes:
      statistics: which statistics are used in training.
      epsilon: added to the variance.
      affine: whether there are parameters scale and bias. Without them, they are 1 and 0.

    Raises:
      UserError: the groups do not divide the batch, or a channel has only one value in a group.
    Source: Ioffe and Szegedy 2015; numerics as torch.nn.BatchNorm2d; groups as in Hoffer et al. 2017.
    """

    statistics: Statistics = Statistics()
    epsilon: float = 1e-5
    affine: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], train: bool) -> Float[Array, "B *space C"]:
        channels = (x.shape[-1],)
        scale, bias = jnp.ones(channels, jnp.float32), jnp.zeros(channels, jnp.float32)
        if self.affine:
            scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
            bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        dtype, x = x.dtype, x.astype(jnp.float32)
        if self.statistics.frozen or not train:
            slope = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            return ((x - running_mean.value) * slope + bias).astype(dtype)

        batch, groups, momentum = x.shape[0], self.statistics.groups, self.statistics.momentum
        if batch % groups:
            raise UserError(f"a batch of {batch} can't be cut into {groups} equal groups", fix="change norm.groups")
        grouped = x.reshape(groups, batch // groups, *x.shape[1:])
        count = grouped[0, ..., 0].size
        if count < 2:
            raise UserError("batch statistics need more than one value a channel", fix="use a larger batch or image")
        axes = tuple(range(1, grouped.ndim - 1))
        mean = jnp.mean(grouped, axes, keepdims=True)
        centred = grouped - mean
        # The derivative of the variance with respect to the mean is 0. Stopping it saves a sum in the backward pass.
        var = jnp.mean(jnp.square(grouped - jax.lax.stop_gradient(mean)), axes, keepdims=True)
        if not self.is_initializing():
            new_mean = jnp.mean(jax.lax.stop_gradient(mean).reshape(groups, -1), axis=0)
            new_var = jnp.mean(jax.lax.stop_gradient(var).reshape(groups, -1), axis=0) * (count / (count - 1))
            running_mean.value = (1.0 - momentum) * running_mean.value + momentum * new_mean
            running_var.value = (1.0 - momentum) * running_var.value + momentum * new_var
        y = centred * (scale * jax.lax.rsqrt(var + self.epsilon)) + bias
        return y.reshape(x.shape).astype(dtype)
