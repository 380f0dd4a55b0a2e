import doctest

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast.core import generators
from mi_contrast.core.errors import UserError
from mi_contrast.core.generators import FLOWS, Generator

INVERTIBLE = ("additive", "affine")
IMAGES = np.random.default_rng(0).uniform(-3, 3, (4, 16, 16, 3)).astype(np.float32)
PIXELS = IMAGES[0, 0]


def drawn(generator, seed=0, gain=20.0):
    """Parameters far from the identity: the last layers of a flow are `gain` times what they begin with."""
    params = generator.init(jax.random.key(seed))
    if generator.flow == "free":
        return params
    return {name: {**net, "layer_1": jax.tree.map(lambda w: gain * w, net["layer_1"])} for name, net in params.items()}


def by_hand(generator, params, pixel):
    """One pixel of g(x) by the equations, in float64 numpy."""

    def network(layers, values):
        for i in range(len(layers)):
            kernel, bias = (np.asarray(layers[f"layer_{i}"][part], np.float64) for part in ("kernel", "bias"))
            values = [sum(v * w for v, w in zip(values, kernel[:, j], strict=True)) + b for j, b in enumerate(bias)]
            values = [max(v, 0.0) for v in values] if i + 1 < len(layers) else values
        return values

    a, b, c = (float(value) for value in pixel)
    if generator.flow == "free":
        return network(params["network"], [a, b, c])
    for i in range(generator.couplings):
        made = network(params[f"coupling_{i}"], [b, c] if i % 2 else [a])
        scales = [0.5 * np.tanh(s) for s in made[: len(made) // 2]] if generator.flow == "affine" else [0.0, 0.0]
        shifts = made[len(made) // 2 :] if generator.flow == "affine" else made
        if i % 2:
            a = a * np.exp(scales[0]) + shifts[0]
        else:
            b, c = b * np.exp(scales[0]) + shifts[0], c * np.exp(scales[1]) + shifts[1]
    return [a, b, c]


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("couplings", [1, 2, 5])
def test_forward_is_what_the_equations_say(flow, couplings):
    generator = Generator(flow, couplings, 6)
    params = drawn(generator)
    made = jax.jit(generator.forward)(params, PIXELS)
    np.testing.assert_allclose(made, [by_hand(generator, params, pixel) for pixel in PIXELS], rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("flow", INVERTIBLE)
@pytest.mark.parametrize(("couplings", "hidden"), [(1, 32), (3, 64), (4, 16), (8, 32)])
def test_inverse_returns_the_image(flow, couplings, hidden):
    generator = Generator(flow, couplings, hidden)

    @jax.jit
    def there_and_back(params):
        made = generator.forward(params, IMAGES)
        return made, generator.inverse(params, made)

    for seed in range(3):
        made, back = there_and_back(drawn(generator, seed))
        assert made.dtype == back.dtype == jnp.float32
        assert np.abs(made - IMAGES).max() > 0.3  # far from the identity
        assert np.abs(back - IMAGES).max() < 1e-5


@pytest.mark.parametrize("flow", INVERTIBLE)
def test_log_det_is_that_of_the_jacobian_and_every_output_sees_every_input(flow):
    generator = Generator(flow, 3, 16)
    params = drawn(generator)
    slopes = np.asarray(jax.jit(jax.vmap(jax.jacfwd(generator.forward, 1), (None, 0)))(params, PIXELS), np.float64)
    said = np.asarray(jax.jit(generator.log_det)(params, IMAGES))
    assert said.shape == IMAGES.shape[:-1] and said.dtype == np.float32
    np.testing.assert_allclose(said[0, 0], np.linalg.slogdet(slopes)[1], atol=1e-5)
    assert (np.abs(slopes).max(0) > 1e-2).all()
    if flow == "additive":
        assert (said == 0.0).all()
    else:
        assert said.std() > 0.1


@pytest.mark.parametrize("flow", FLOWS)
def test_pixels_do_not_see_each_other(flow):
    generator = Generator(flow, 4, 16)
    params = drawn(generator)
    forward = jax.jit(lambda x: generator.forward(params, x))
    made = np.asarray(forward(IMAGES))
    order = np.random.default_rng(1).permutation(IMAGES[..., 0].size)
    shuffled = forward(IMAGES.reshape(-1, 3)[order].reshape(IMAGES.shape))
    np.testing.assert_allclose(shuffled.reshape(-1, 3), made.reshape(-1, 3)[order], atol=2e-6, rtol=1e-6)
    changed = IMAGES.copy()
    changed[2, 5, 7] += 1.0
    assert np.argwhere((forward(changed) != made).any(-1)).tolist() == [[2, 5, 7]]


@pytest.mark.parametrize("flow", INVERTIBLE)
def test_a_flow_begins_near_the_identity(flow):
    for couplings in (1, 8):
        generator = Generator(flow, couplings, 32)
        moved = np.asarray(jax.jit(generator.forward)(generator.init(jax.random.key(0)), IMAGES)) - IMAGES
        assert 0.0 < np.abs(moved).max() < 0.4


def test_a_free_network_begins_as_large_as_its_input():
    for couplings in (1, 6):
        generator = Generator("free", couplings, 64)
        made = jax.jit(generator.forward)(generator.init(jax.random.key(0)), IMAGES)
        assert 0.4 < np.std(made) / np.std(IMAGES) < 2.5


@pytest.mark.parametrize("flow", FLOWS)
def test_every_parameter_learns_from_the_first_step(flow):
    generator = Generator(flow, 3, 16)
    weights = jnp.array([1.0, -2.0, 0.5])
    slopes = jax.jit(jax.grad(lambda params: (generator.forward(params, IMAGES) * weights).sum()))(
        generator.init(jax.random.key(0))
    )
    for path, slope in jax.tree_util.tree_leaves_with_path(slopes):
        assert np.isfinite(slope).all() and np.any(slope != 0), path


def test_parameters_are_drawn_anew_for_every_network_and_key():
    generator = Generator("affine", 3, 8)
    one, again, other = (generator.init(jax.random.key(seed)) for seed in (0, 0, 1))
    assert jax.tree.all(jax.tree.map(np.array_equal, one, again))
    kernels = [
        p[name]["layer_0"]["kernel"] for p, name in ((one, "coupling_0"), (one, "coupling_2"), (other, "coupling_0"))
    ]
    assert len({np.asarray(kernel).tobytes() for kernel in kernels}) == 3


def test_products_are_in_full_float32():
    for flow in FLOWS:
        generator = Generator(flow, 1, 2)
        lines = str(jax.make_jaxpr(generator.forward)(generator.init(jax.random.key(0)), PIXELS))
        assert lines.count("dot_general[") * 2 == lines.count("Precision.HIGHEST") > 0


@settings(deadline=None, max_examples=6)
@given(
    flow=st.sampled_from(FLOWS),
    couplings=st.integers(1, 4),
    hidden=st.integers(1, 5),
    shape=st.lists(st.integers(0, 3), max_size=3),
    dtype=st.sampled_from(["float32", "bfloat16"]),
)
def test_any_shape_and_size(flow, couplings, hidden, shape, dtype):
    generator = Generator(flow, couplings, hidden)
    x = jnp.asarray(np.random.default_rng(0).uniform(-3, 3, (*shape, 3)), dtype)

    @jax.jit
    def both(params, x):
        made = generator.forward(params, x)
        return made, (made, x) if flow == "free" else (generator.inverse(params, made), generator.log_det(params, x))

    params = jax.tree.map(lambda w: w.astype(dtype), drawn(generator))
    made, (back, volume) = both(params, x)
    assert made.shape == x.shape and made.dtype == jnp.float32
    if flow != "free":
        assert volume.shape == x.shape[:-1]
        np.testing.assert_allclose(back, x.astype(jnp.float32), atol=1e-5)


def test_free_has_no_inverse_and_no_volume():
    generator = Generator("free", 2, 4)
    params = generator.init(jax.random.key(0))
    for refused in (generator.inverse, generator.log_det):
        with pytest.raises(UserError, match="flow='additive' or 'affine'"):
            refused(params, PIXELS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("afine", 4, 8), "did you mean 'affine'"),
        (("nonsense", 4, 8), "one of: additive, affine, free"),
        (("free", 0, 8), "couplings of a generator is 0"),
        (("affine", 4, -1), "hidden of a generator is -1"),
        (("affine", 2.0, 8), "couplings of a generator is 2.0"),
    ],
)
def test_mistakes_are_said(arguments, said):
    with pytest.raises(UserError, match=said):
        Generator(*arguments)


def test_pixels_of_one_channel_are_refused():
    for flow in FLOWS:
        generator = Generator(flow, 2, 4)
        with pytest.raises(UserError, match="3 channels"):
            generator.forward(generator.init(jax.random.key(0)), IMAGES[..., :1])


def test_the_example_of_the_docstring_runs():
    done = doctest.testmod(generators)
    assert done.attempted and not done.failed
