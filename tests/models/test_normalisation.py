"""Batch norm against the equation in float64, and against PyTorch's module on the whole and on halves."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast.core.errors import UserError
from mi_contrast.models.normalisation import BatchNorm, Statistics
from tests import devices

RNG = np.random.default_rng(0)
SCALE, BIAS = RNG.uniform(0.5, 1.5, 5).astype(np.float32), RNG.normal(size=5).astype(np.float32)
MEAN, VAR = RNG.normal(size=5).astype(np.float32), RNG.uniform(0.5, 2, 5).astype(np.float32)
VARIABLES = {"params": {"scale": SCALE, "bias": BIAS}, "batch_stats": {"mean": MEAN, "var": VAR}}


def normalise(x, train=True, **statistics):
    module = BatchNorm(Statistics(**statistics))
    y, moved = module.apply(VARIABLES, jnp.asarray(x), train, mutable=["batch_stats"])
    return np.asarray(y), jax.tree.map(np.asarray, moved["batch_stats"])


def reference(x, groups=1, momentum=0.1):
    """The equation, channel by channel and group by group, in float64."""
    x, y = x.astype(np.float64), np.empty(x.shape)
    means, variances = np.empty((groups, 5)), np.empty((groups, 5))
    for g, members in enumerate(np.split(np.arange(len(x)), groups)):
        for c in range(5):
            values = x[members, ..., c].ravel()
            means[g, c], variances[g, c] = values.mean(), values.var(ddof=1)
            y[members, ..., c] = (x[members, ..., c] - values.mean()) / np.sqrt(values.var() + 1e-5) * SCALE[c] + BIAS[
                c
            ]
    return y, (1 - momentum) * MEAN + momentum * means.mean(0), (1 - momentum) * VAR + momentum * variances.mean(0)


@settings(deadline=None, max_examples=6)
@given(
    st.sampled_from([(1, 2), (2, 6), (3, 6), (4, 8)]),
    st.sampled_from([(3, 2), (1, 2), ()]),
    st.floats(0.01, 1.0),
    st.integers(0, 99),
)
def test_is_the_equation(sizes, space, momentum, seed):
    groups, batch = sizes
    if batch == groups:
        return
    x = np.random.default_rng(seed).normal(2, 3, (batch, *space, 5)).astype(np.float32)
    y, moved = normalise(x, groups=groups, momentum=momentum)
    expected, mean, var = reference(x, groups, momentum)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(moved["mean"], mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved["var"], var, rtol=1e-5, atol=1e-5)


def torch_norm():
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    module = torch.nn.BatchNorm2d(5)
    parts = ((module.weight, SCALE), (module.bias, BIAS), (module.running_mean, MEAN), (module.running_var, VAR))
    for target, array in parts:
        target.data.copy_(torch.from_numpy(array))
    return torch, module


@pytest.mark.parametrize("groups", [1, 2])
def test_is_torchs_on_each_group(groups):
    torch, _ = torch_norm()
    x = RNG.normal(1, 2, (6, 4, 3, 5)).astype(np.float32)
    parts, modules = [], []
    for part in np.split(x, groups):
        _, module = torch_norm()
        parts.append(module.train()(torch.from_numpy(part.transpose(0, 3, 1, 2))).detach().numpy())
        modules.append(module)
    y, moved = normalise(x, groups=groups)
    np.testing.assert_allclose(y, np.concatenate(parts).transpose(0, 2, 3, 1), atol=1e-5)
    for name in ("mean", "var"):
        expected = np.mean([getattr(m, f"running_{name}").numpy() for m in modules], axis=0)
        np.testing.assert_allclose(moved[name], expected, rtol=1e-5, atol=1e-6)
    if groups == 2:
        whole, _ = normalise(x)
        assert np.abs(whole - y).max() > 1e-2, "groups change the result"


def test_evaluation_and_frozen_use_the_running_statistics_and_leave_them():
    torch, module = torch_norm()
    x = RNG.normal(1, 2, (6, 4, 3, 5)).astype(np.float32)
    expected = module.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2))).detach().numpy().transpose(0, 2, 3, 1)
    for train, frozen in ((False, False), (True, True), (False, True)):
        y, kept = normalise(x, train, frozen=frozen)
        np.testing.assert_allclose(y, expected, atol=1e-5)
        np.testing.assert_array_equal(kept["mean"], MEAN)
        np.testing.assert_array_equal(kept["var"], VAR)


def test_variance_survives_a_large_mean():
    """A mean 1,000 times the deviation: the difference of two mean squares in float32 would lose the variance."""
    x = RNG.normal(1000, 1, (64, 4, 4, 5)).astype(np.float32)
    _, moved = normalise(x, momentum=1.0)
    exact = x.astype(np.float64).reshape(-1, 5).var(0, ddof=1)
    np.testing.assert_allclose(moved["var"], exact, rtol=1e-4)
    flat = x.reshape(-1, 5)
    difference = np.mean(flat**2, 0, dtype=np.float32) - np.mean(flat, 0, dtype=np.float32) ** 2
    assert np.abs(difference / exact - 1).max() > 1e-2


def test_statistics_of_bfloat16_are_taken_in_float32():
    x = jnp.asarray(RNG.normal(5, 1, (512, 4, 4, 5)), jnp.bfloat16)
    y, moved = normalise(x, momentum=1.0)
    assert y.dtype == jnp.bfloat16 and moved["mean"].dtype == np.float32
    exact = np.asarray(x, np.float64).reshape(-1, 5)
    np.testing.assert_allclose(moved["mean"], exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moved["var"], exact.var(0, ddof=1), rtol=1e-4)


@pytest.mark.parametrize("train", [True, False])
def test_without_scale_and_bias_they_are_one_and_zero(train):
    x = jnp.asarray(RNG.normal(1, 2, (6, 5)), jnp.float32)
    statistics = {"batch_stats": VARIABLES["batch_stats"]}
    plain = {"scale": np.ones(5, np.float32), "bias": np.zeros(5, np.float32)}
    bare, moved = BatchNorm(affine=False).apply(statistics, x, train, mutable=["batch_stats"])
    full, moved_too = BatchNorm().apply({"params": plain, **statistics}, x, train, mutable=["batch_stats"])
    np.testing.assert_array_equal(bare, full)
    jax.tree.map(np.testing.assert_array_equal, moved, moved_too)
    assert set(BatchNorm(affine=False).init(jax.random.key(0), x, False)) == {"batch_stats"}


def test_mistakes_are_named():
    with pytest.raises(UserError, match="a batch of 6 can't be cut into 4 equal groups"):
        normalise(np.zeros((6, 2, 2, 5), np.float32), groups=4)
    with pytest.raises(UserError, match="single value"):
        normalise(np.zeros((4, 1, 1, 5), np.float32), groups=4)


ACROSS_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from mi_contrast.core.mesh import batch_sharding, make_mesh, replicated
from mi_contrast.models.normalisation import BatchNorm, Statistics
assert len(jax.devices()) == 8
mesh = make_mesh()
for groups in (1, 2):
    module = BatchNorm(Statistics(groups=groups))
    x = jnp.asarray(np.random.default_rng(0).normal(1, 2, (16, 3, 3, 5)), jnp.float32)
    variables = module.init(jax.random.key(0), x, False)
    def out(v, x):
        y, moved = module.apply(v, x, True, mutable=["batch_stats"])
        return y, moved["batch_stats"]
    alone = jax.jit(out)(variables, x)
    cut = jax.jit(out)(jax.device_put(variables, replicated(mesh)), jax.device_put(x, batch_sharding(mesh)))
    assert len(cut[0].sharding.device_set) == 8
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), alone, cut)
    local = jnp.mean(x[:2], (0, 1, 2)) * .1
    assert float(jnp.abs(local - cut[1]["mean"]).max()) > 1e-2, "not one device's statistics"
print("global")
"""


@pytest.mark.slow
def test_statistics_are_global_over_eight_devices():
    command, environment = [sys.executable, "-c", ACROSS_DEVICES], devices.environment(8)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "global", done.stderr[-2000:]
