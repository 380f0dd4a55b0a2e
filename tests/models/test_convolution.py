"""Convolutions and their gradients against loops in float64, in every form, and their initial weights."""

import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.models import convolution
from mi_contrast.models.convolution import (
    Conv,
    convolve,
    convolve_by_patches,
    convolve_direct,
    input_gradient_by_offsets,
    kernel_gradient,
)
from tests import devices


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
    for form in (convolve_direct, convolve_by_patches, convolve):
        np.testing.assert_allclose(form(jnp.asarray(x), jnp.asarray(kernel), stride), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
def test_gradients_of_both_forms_agree(stride):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 3, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 4)).astype(np.float32)

    def gradients(form):
        return jax.grad(lambda x, k: jnp.sum(jnp.sin(form(x, k, stride))), (0, 1))(x, kernel)

    for one, other in zip(gradients(convolve_direct), gradients(convolve_by_patches), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


SHAPES = [  # height, width, kernel, stride, channels in, channels out
    (5, 7, 1, 1, 3, 4),
    (6, 5, 1, 2, 3, 4),
    (7, 4, 1, 3, 3, 4),
    (5, 7, 3, 1, 3, 4),
    (8, 6, 3, 2, 3, 4),
    (5, 7, 3, 1, 16, 4),
    (9, 8, 7, 1, 16, 4),
    (7, 9, 3, 2, 40, 4),
    (7, 9, 3, 3, 3, 4),
    (9, 11, 7, 1, 3, 4),
    (11, 8, 7, 2, 3, 4),
]


def made(height, width, size, stride, inside, outside, batch=4):
    rng = np.random.default_rng(height + width)
    x = rng.normal(size=(batch, height, width, inside)).astype(np.float32)
    kernel = rng.normal(size=(size, size, inside, outside)).astype(np.float32)
    gradient = rng.normal(size=convolve_direct(jnp.asarray(x), jnp.asarray(kernel), stride).shape).astype(np.float32)
    return jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(gradient)


def differences(x, kernel, gradient, stride, entries=12):
    """The slope of <gradient, x * kernel> along random entries of x and of kernel, by float64 finite differences, exact
    as the product is linear in each.
    """
    rng, (x, kernel, gradient) = np.random.default_rng(0), (np.asarray(z, np.float64) for z in (x, kernel, gradient))
    slopes = []
    for which, array in enumerate((x, kernel)):
        places = [tuple(rng.integers(side) for side in array.shape) for _ in range(entries)]
        found = []
        for place in places:
            ends = []
            for step in (-1.0, 1.0):
                moved = array.copy()
                moved[place] += step
                ends.append(np.sum(gradient * loops(*((moved, kernel) if which == 0 else (x, moved)), stride)))
            found.append((ends[1] - ends[0]) / 2)
        slopes.append((tuple(np.array(places).T), np.array(found)))
    return slopes


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_finite_differences(shape, monkeypatch):
    monkeypatch.setattr(convolution, "PATCH_VALUES", 64)  # a block is an example or two
    x, kernel, gradient = made(*shape)
    stride = shape[3]
    backward = jax.jit(lambda x, kernel: jax.vjp(lambda x, k: convolve(x, k, stride), x, kernel)[1](gradient))
    for ours, (places, slopes) in zip(backward(x, kernel), differences(x, kernel, gradient, stride), strict=True):
        terms = gradient.size  # at most as many products are added
        np.testing.assert_allclose(
            ours[places], slopes, rtol=0, atol=4 * np.finfo(np.float32).eps * np.sqrt(terms) * 10
        )


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[2] > 1 and s[3] > 1])
def test_the_input_gradient_by_offsets_is_xlas(shape):
    x, kernel, gradient = made(*shape)
    (xlas,) = jax.vjp(lambda x: convolve_direct(x, kernel, shape[3]), x)[1](gradient)
    np.testing.assert_allclose(input_gradient_by_offsets(x, kernel, gradient, shape[3]), xlas, rtol=1e-5, atol=1e-5)


def test_one_entry_more_of_a_kernel_would_be_seen():
    x, kernel, gradient = made(8, 6, 3, 2, 3, 4)
    (xlas,) = jax.vjp(lambda x: convolve_direct(x, kernel, 2), x)[1](gradient)
    wrong = input_gradient_by_offsets(x, kernel.at[0, 1].set(0.0), gradient, 2)
    assert float(jnp.max(jnp.abs(wrong - xlas))) > 0.1


def test_under_vmap_and_twice_differentiated():
    x, kernel, _ = made(6, 5, 3, 2, 3, 4)
    kernels = jnp.stack([kernel, 2.0 * kernel])

    def norms(form):
        slope = lambda x, kernel: jnp.sum(jax.grad(lambda k: jnp.sum(form(x, k, 2) ** 3))(kernel) ** 2)  # noqa: E731
        return jax.vmap(jax.grad(slope, (0, 1)), (None, 0))(x, kernels)

    for one, other in zip(norms(convolve), norms(convolve_direct), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * float(jnp.max(jnp.abs(other))))


def test_bfloat16_is_summed_in_float32():
    x, kernel, gradient = (z.astype(jnp.bfloat16) for z in made(16, 16, 3, 1, 4, 4, batch=64))
    ours = kernel_gradient(x, kernel, gradient, 1)
    assert ours.dtype == jnp.bfloat16
    exact = jax.vjp(lambda k: convolve_direct(x.astype(jnp.float32), k, 1), kernel.astype(jnp.float32))[1](
        gradient.astype(jnp.float32)
    )[0]
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, rtol=2**-8, atol=1e-2)


@pytest.mark.parametrize("wrap", [jax.checkpoint, lambda f: f], ids=["remat", "kept"])
def test_inside_a_scan_and_remat(wrap):
    x, kernel, _ = made(6, 5, 3, 1, 3, 4)

    def summed(form, kernel):
        part = wrap(lambda kernel, x: jnp.sum(jnp.sin(form(x, kernel, 1))))
        return jax.lax.scan(lambda total, x: (total + part(kernel, x[None]), None), 0.0, x)[0]

    ours, xlas = (jax.grad(partial(summed, form))(kernel) for form in (convolve, convolve_direct))
    np.testing.assert_allclose(ours, xlas, rtol=1e-5, atol=1e-5)


def test_accelerators_keep_xlas_own():
    x, kernel, gradient = made(8, 6, 3, 2, 3, 4)
    backward = jax.jit(lambda x, kernel: jax.vjp(lambda x, k: convolve(x, k, 2), x, kernel)[1](gradient))
    lowered = {p: backward.trace(x, kernel).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "tpu", "cuda")}
    loops_in = {platform: len(re.findall(r"stablehlo\.while", text)) for platform, text in lowered.items()}
    assert loops_in == {"cpu": 1, "tpu": 0, "cuda": 0}


EIGHT = """
import re
import jax, jax.numpy as jnp, numpy as np
from mi_contrast.core.mesh import batch_sharding, make_mesh, replicated
from mi_contrast.models import convolution
convolution.PATCH_VALUES = 512
rng = np.random.default_rng(0)
x, gradient = (jnp.asarray(rng.normal(size=(64, 8, 8, 4)), jnp.float32) for _ in range(2))
kernel = jnp.asarray(rng.normal(size=(3, 3, 4, 4)), jnp.float32)
mesh = make_mesh()
cut, same = batch_sharding(mesh), replicated(mesh)
both = lambda form, x, k, g: jax.vjp(lambda x, k: form(x, k, 1), x, k)[1](g)
ours = jax.jit(lambda *z: both(convolution.convolve, *z), in_shardings=(cut, same, cut), out_shardings=(cut, same))
compiled = ours.lower(x, kernel, gradient).compile()
for one, other in zip(compiled(x, kernel, gradient), both(convolution.direct, x, kernel, gradient)):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
text = compiled.as_text()
assert "while(" in text and "all-gather" not in text, "each device reads its own part"
assert len(re.findall(r" all-reduce(?:-start)?[(]", text[text.index("ENTRY"):])) == 1, "and parts are added once"
assert "all-reduce" not in text[:text.index("ENTRY")].replace("all-reduce.", ""), "not once a block"
"""


def test_eight_devices_add_their_parts_once():
    done = subprocess.run([sys.executable, "-c", EIGHT], env=devices.environment(8), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


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
