"""Heads against torch.nn, and their initial weights."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.models.heads import JigsawHead, LinearHead, MLPHead, MLPNormHead
from mi_contrast.models.normalisation import Statistics

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


def drawn(head, x, seed=0):
    """Weights of order 1 / sqrt(fan in), scales and variances around 1, shifts of order .1, by their names."""
    variables = jax.eval_shape(lambda key, x: head.init(key, x, False), jax.random.key(0), x)
    rng = np.random.default_rng(seed)
    draws = {
        "kernel": lambda s: rng.normal(0, 1 / np.sqrt(s[0]), s),
        "scale": lambda s: rng.uniform(0.5, 1.5, s),
        "var": lambda s: rng.uniform(0.5, 2, s),
        "bias": lambda s: rng.normal(0, 0.1, s),
        "mean": lambda s: rng.normal(0, 0.1, s),
    }
    return jax.tree_util.tree_map_with_path(lambda path, x: draws[path[-1].key](x.shape).astype(np.float32), variables)


def sequential(head, torch):
    """The Sequential of MoCo v3's released code (`_build_mlp`), in float64."""
    layers, width = [], 10
    for i in range(head.layers):
        last = i == head.layers - 1
        out = head.dim if last else head.hidden or 10
        layers.append(torch.nn.Linear(width, out, bias=False))
        if not last:
            layers += [torch.nn.BatchNorm1d(out), torch.nn.ReLU()]
        elif head.last_norm:
            layers.append(torch.nn.BatchNorm1d(out, affine=False))
        width = out
    return torch.nn.Sequential(*layers).double()


@partial(jax.jit, static_argnums=(0, 3))
def run(head, variables, x, train):
    """Output, moved statistics, and the gradient of sum out^3 by parameters and by x."""

    def cubed(params, x):
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        out, moved = head.apply(given, x, train, mutable=["batch_stats"])
        return jnp.sum(out**3), (out, moved["batch_stats"])

    return jax.grad(cubed, argnums=(0, 1), has_aux=True)(variables["params"], x)


@pytest.mark.parametrize(
    "head", [MLPNormHead(7), MLPNormHead(7, 12, 3), MLPNormHead(7, 12, 2, last_norm=False), MLPNormHead(7, 12, 1)]
)
def test_with_batch_norm_is_moco_v3s_sequential(head):
    """Outputs, statistics and gradients, in training and in evaluation, against torch in float64."""
    torch = pytest.importorskip("torch", reason="torch is not installed (extra [reference])")
    variables = drawn(head, FEATURES)
    words = {"weight": ("params", "kernel"), "running_mean": ("batch_stats", "mean"), "bias": ("params", "bias"),
             "running_var": ("batch_stats", "var")}  # fmt: skip
    for train in (True, False):
        net, names = sequential(head, torch), {}
        for name, tensor in net.state_dict().items():
            place, word = name.split(".")
            if word == "num_batches_tracked":
                continue
            part, leaf = words[word]
            leaf = "scale" if word == "weight" and tensor.ndim == 1 else leaf
            names[name] = (part, place, leaf)
            tensor.copy_(torch.from_numpy(np.array(variables[part][place][leaf]).T))
        assert len(names) == len(jax.tree.leaves(variables)), "each of our leaves has its tensor"
        x = torch.from_numpy(FEATURES).double().requires_grad_()
        theirs = net.train(train)(x)
        (theirs**3).sum().backward()
        (of_params, of_x), (out, moved) = run(head, variables, FEATURES, train)
        np.testing.assert_allclose(out, theirs.detach().numpy(), atol=1e-5)
        np.testing.assert_allclose(of_x, x.grad.numpy(), atol=2e-4)
        for name, tensor in net.named_parameters():
            _, place, leaf = names[name]
            np.testing.assert_allclose(of_params[place][leaf], tensor.grad.numpy().T, atol=2e-4)
        for name, tensor in net.named_buffers():
            if name in names:
                _, place, leaf = names[name]
                np.testing.assert_allclose(moved[place][leaf], tensor.numpy(), atol=1e-5)


def test_groups_of_a_batch_are_normalised_apart():
    head = MLPNormHead(7, 12, statistics=Statistics(groups=2))
    variables = drawn(head, FEATURES)
    whole = MLPNormHead(7, 12)
    (_, (both, _)), halves = run(head, variables, FEATURES, True), np.split(FEATURES, 2)
    apart = np.concatenate([run(whole, variables, half, True)[1][0] for half in halves])
    np.testing.assert_allclose(both, apart, atol=1e-5)
    assert np.abs(apart - run(whole, variables, FEATURES, True)[1][0]).max() > 0.1


@pytest.mark.parametrize("patch", [LinearHead(4), MLPHead(4, 6)])
def test_jigsaw_is_a_loop_over_patches(patch):
    head = JigsawHead(5, patch)
    features = np.random.default_rng(1).normal(size=(3, 9, 10)).astype(np.float32)
    params = drawn(head, features)["params"]
    assert params["joint"]["kernel"].shape == (9 * 4, 5)
    expected = np.zeros((3, 5)) + params["joint"]["bias"]
    for b in range(3):
        for n in range(9):
            x = features[b, n].astype(np.float64)
            for i, layer in enumerate(params["patch"][name] for name in sorted(params["patch"])):
                x = (np.maximum(x, 0) if i else x) @ layer["kernel"] + layer["bias"]
            expected[b] += x @ params["joint"]["kernel"][4 * n : 4 * n + 4]
    found = head.apply({"params": params}, features, True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(head.apply({"params": params}, features[:, ::-1], True) - expected).max() > 0.1, "order counts"
