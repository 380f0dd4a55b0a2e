"""Optimisers against torch's, and the masks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mi_contrast.core import schedules
from mi_contrast.core.errors import UserError
from mi_contrast.training import optimiser

BASE = dict(
    kind="sgd", lr=0.1, warmup=0, momentum=0.9, weight_decay=0.01, decay_all=True, clip=None, patience=3
)  # fmt: skip


def walk(optim, gradients, params, learns=None):
    tx = optimiser.build(optim, len(gradients), learns)
    state, seen = tx.init(params), []
    for gradient in gradients:
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        seen.append(jax.tree.map(np.asarray, params))
    return seen


def draws(count=4):
    rng = np.random.default_rng(0)
    make = lambda: {"kernel": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32), "bias": jnp.ones(2)}  # noqa: E731
    return make(), [make() for _ in range(count)]


def test_sgd_is_torchs_by_hand():
    params, gradients = draws()
    seen = walk(BASE, gradients, params)
    for name in params:
        p, buffer = np.float64(params[name]), 0.0
        for gradient, found in zip(gradients, seen, strict=True):
            buffer = 0.9 * buffer + (np.float64(gradient[name]) + 0.01 * p)
            p = p - 0.1 * buffer
            np.testing.assert_allclose(found[name], p, rtol=1e-5, atol=1e-6)


def test_the_mask_spares_biases():
    params, gradients = draws(1)
    zero = jax.tree.map(jnp.zeros_like, gradients[0])
    for kind in ("sgd", "adamw", "lars"):
        masked = walk(BASE | {"kind": kind, "decay_all": False}, [zero], params)[0]
        np.testing.assert_array_equal(masked["bias"], params["bias"])
        assert not np.array_equal(masked["kernel"], params["kernel"])


@pytest.mark.parametrize("kind", ["sgd", "adamw", "lars"])
def test_what_does_not_learn_stays_bit_for_bit(kind):
    """Whatever its gradient, under decay of every parameter; negative control: it moves where all learn."""
    params, gradients = draws()
    found = walk(BASE | {"kind": kind}, gradients, params, lambda tree: {n: n != "kernel" for n in tree})[-1]
    plain = walk(BASE | {"kind": kind}, gradients, params)[-1]
    np.testing.assert_array_equal(found["kernel"], params["kernel"])
    np.testing.assert_array_equal(found["bias"], plain["bias"])
    assert not np.array_equal(plain["kernel"], params["kernel"])


def test_the_mask_spares_tokens_and_positions():
    tree = {"cls_token": jnp.ones((1, 1, 4)), "pos_embed": jnp.ones((1, 5, 4)), "kernel": jnp.ones((4, 4))}
    assert optimiser.decayed(tree) == {"cls_token": False, "pos_embed": False, "kernel": True}


def test_clipping_bounds_the_step():
    params, gradients = draws(1)
    moved = walk(BASE | {"weight_decay": 0.0, "clip": 1e-3}, gradients, params)[0]
    length = np.sqrt(sum(((moved[n] - np.asarray(params[n])) ** 2).sum() for n in params))
    assert length == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_the_rate_follows_progress_after_warmup():
    rate = optimiser.learning_rate(BASE | {"lr": schedules.linear(1.0, 0.0), "warmup": 4}, 10)
    want = [(1 - s / 10) * min(1.0, (s + 1) / 4) for s in range(10)]
    np.testing.assert_allclose([float(rate(jnp.int32(s))) for s in range(10)], want, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "sdg"}, "did you mean 'sgd'"),
        ({"momentum": 1.0}, r"in \[0, 1\)"),
        ({"weight_decay": -1.0}, "0 or more"),
        ({"clip": 0.0}, "above 0"),
        ({"lr": -0.1}, "below 0"),
        ({"momentun": 0.1}, "did you mean 'momentum'"),
    ],
)
def test_mistakes(change, said):
    with pytest.raises(UserError, match=said):
        optimiser.build(BASE | change, 10)
