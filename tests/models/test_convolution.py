"""Convolutions against loops in float64, in both forms, and their initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.models.convolution import Conv, by_patches, direct


def loops(x, kernel, stride):
    size, pad = len(kernel), len(kernel) // 2
    x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = ((side - size) // stride + 1 for side in x.shape[1:3])
    y = np.empty((len(x), height, width, kernel.shape[-1]))
    for i in range(height):
        for j in range(width):
            window = x[:, i * stride : i * stride + size, j * stride : j * stride + size]
            y[:, i, j] = np.tensordot(window, kernel.astype(np.float64), 3)
    return y


@pytest.mark.parametrize(
    ("height", "width", "size", "stride"),
    [(1, 1, 3, 1), (2, 2, 3, 1), (4, 3, 3, 2), (5, 6, 3, 2), (6, 5, 7, 2), (3, 4, 1, 2)],
)
def test_both_forms_are_the_loops(height, width, size, stride):
    rng = np.random.default_rng(height)
    x = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    kernel = rng.normal(size=(size, size, 3, 4)).astype(np.float32)
    expected = loops(x, kernel, stride)
    for form in (direct, by_patches):
        np.testing.assert_allclose(form(jnp.asarray(x), jnp.asarray(kernel), stride), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_both_forms_agree(stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 3, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)

    def gradients(form):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(form(x, k, stride))), (0, 1))(x, kernel)

    for one, other in zip(gradients(direct), gradients(by_patches), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("side", "stride", "patches"), [(2, 1, True), (4, 2, True), (3, 1, False), (5, 2, False)])
def test_the_form_follows_the_size_of_the_map(side, stride, patches):
    conv, x = Conv(4, 3, stride), jnp.ones((1, side, side, 2))
    text = str(jax.make_jaxpr(lambda x: conv.init_with_output(jax.random.key(0), x)[0])(x))
    assert ("conv_general_dilated" not in text) == patches


def test_kernels_are_kaiming_normal_by_fan_out():
    kernel = Conv(64, 3).init(jax.random.key(0), jnp.ones((1, 4, 4, 32)))["params"]["kernel"]
    assert kernel.shape == (3, 3, 32, 64)
    np.testing.assert_allclose(np.std(kernel), np.sqrt(2 / (64 * 9)), rtol=0.02)
    assert abs(float(jnp.mean(kernel))) < 0.001
    assert float(jnp.max(jnp.abs(kernel))) > 3.5 * np.sqrt(2 / (64 * 9)), "not truncated"
