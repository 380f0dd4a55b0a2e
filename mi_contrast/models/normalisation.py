"""Batch normalisation as PyTorch does it: statistics of the whole batch, of contiguous groups of it, or frozen.

Under `jit` a batch that is cut over devices is still one array, so its statistics are global: one device and many
compute the same. Nothing splits them by accident, as one GPU a process does elsewhere; where a method needs queries
and keys to share no statistics, `groups` splits the batch on purpose.
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
    """Where a batch norm takes its mean and variance from in training, and how its running ones follow.

    Attributes:
      groups: contiguous parts of the batch that are normalised apart (ghost batch norm); divides the batch.
      frozen: use the running statistics in training too, and leave them as they are.
      momentum: the weight of the newest statistics in the running ones (PyTorch's sense).
    """

    groups: int = 1
    frozen: bool = False
    momentum: float = 0.1


class BatchNorm(nn.Module):
    """y = (x - mean) / sqrt(var + epsilon) * scale + bias over the last axis, in float32, returned in the dtype of x.

    In training, mean and var (biased) are those of each group of the batch, and the running statistics move by
    running <- (1 - momentum) running + momentum batch, with the unbiased variance, both averaged over the groups.
    In evaluation, or where frozen, the running statistics serve and stay. Scale and bias are parameters always, and
    absent (1 and 0) where not `affine`.

    Raises UserError where the groups don't divide the batch, or a channel has a single value a group.
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
            raise UserError("batch statistics of a single value a channel", fix="use a larger batch or image")
        axes = tuple(range(1, grouped.ndim - 1))
        mean = jnp.mean(grouped, axes, keepdims=True)
        centred = grouped - mean
        # The derivative of the variance with respect to the mean is 0; leaving it out saves a sum on the way back.
        var = jnp.mean(jnp.square(grouped - jax.lax.stop_gradient(mean)), axes, keepdims=True)
        if not self.is_initializing():
            new_mean = jnp.mean(jax.lax.stop_gradient(mean).reshape(groups, -1), axis=0)
            new_var = jnp.mean(jax.lax.stop_gradient(var).reshape(groups, -1), axis=0) * (count / (count - 1))
            running_mean.value = (1.0 - momentum) * running_mean.value + momentum * new_mean
            running_var.value = (1.0 - momentum) * running_var.value + momentum * new_var
        y = centred * (scale * jax.lax.rsqrt(var + self.epsilon)) + bias
        return y.reshape(x.shape).astype(dtype)
