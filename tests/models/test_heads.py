"""Heads against torch.nn, and their initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.models.heads import LinearHead, MLPHead

FEATURES = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32)


@pytest.mark.parametrize("head", [LinearHead(7), MLPHead(7), MLPHead(7, 12)])
def test_is_torchs_sequential(head):
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    params = head.init(jax.random.key(0), FEATURES, False)["params"]
    hidden = getattr(head, "hidden", None) or 10
    layers = [torch.nn.Linear(10, 7)]
    if isinstance(head, MLPHead):
        layers = [torch.nn.Linear(10, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 7)]
    net = torch.nn.Sequential(*layers)
    state = {}
    for name, layer in params.items():
        state[f"{name}.weight"] = torch.from_numpy(np.array(layer["kernel"]).T.copy())
        state[f"{name}.bias"] = torch.from_numpy(np.array(layer["bias"]))
    net.load_state_dict(state, strict=True)
    expected = net(torch.from_numpy(FEATURES)).detach().numpy()
    np.testing.assert_allclose(head.apply({"params": params}, FEATURES, True), expected, atol=1e-5)


def test_initial_weights_are_uniform_to_one_over_root_fan_in():
    x = jnp.zeros((1, 100))
    params = LinearHead(2000).init(jax.random.key(1), x, False)["params"]["0"]
    for array in (params["kernel"], params["bias"]):
        assert 0.099 < float(jnp.max(jnp.abs(array))) <= 0.1
        np.testing.assert_allclose(np.std(array), 0.1 / np.sqrt(3), rtol=0.03)
