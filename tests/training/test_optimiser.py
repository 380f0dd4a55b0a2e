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
    kind="sgd", lr=0.1, warmup=0, momentum=0.9, weight_decay=0.01, decay_all=True, clip=None, patience=3,
    decay_after_warmup=True
)  # fmt: skip


def walk(optim, gradients, params, learns=None):
    tx, rate = optimiser.build(optim, learns), optimiser.learning_rate(optim, len(gradients))
    state, seen = tx.init(params), []
    for step, gradient in enumerate(gradients):
        updates, state = tx.update(gradient, state, params, learning_rate=rate(jnp.int32(step)))
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
    assert optimiser.mask_decay(tree) == {"cls_token": False, "pos_embed": False, "kernel": True}


def test_clipping_bounds_the_step():
    params, gradients = draws(1)
    moved = walk(BASE | {"weight_decay": 0.0, "clip": 1e-3}, gradients, params)[0]
    length = np.sqrt(sum(((moved[n] - np.asarray(params[n])) ** 2).sum() for n in params))
    assert length == pytest.approx(0.1 * 1e-3, rel=1e-3)


def rates(total=10, **changes):
    rate = optimiser.learning_rate(BASE | {"warmup": 4} | changes, total)
    return [float(rate(jnp.int32(step))) for step in range(total)]


def test_a_decay_begins_where_warmup_ends():
    after = [(s + 1) / 4 if s < 4 else 1 - (s - 4) / 6 for s in range(10)]
    np.testing.assert_allclose(rates(lr=schedules.linear(1.0, 0.0)), after, rtol=1e-5)
    after = [(s + 1) / 4 if s < 4 else (1 + np.cos(np.pi * (s - 4) / 6)) / 2 for s in range(10)]
    np.testing.assert_allclose(rates(lr=schedules.cosine(1.0, 0.0)), after, rtol=1e-5)


def test_a_decay_over_the_whole_run_is_multiplied_by_warmup_as_in_0_1_0():
    over = [(1 - s / 10) * min(1.0, (s + 1) / 4) for s in range(10)]
    np.testing.assert_allclose(rates(lr=schedules.linear(1.0, 0.0), decay_after_warmup=False), over, rtol=1e-5)


def test_steps_keep_their_boundaries_whatever_the_warmup():
    found = rates(lr=schedules.step((1.0, 0.1), (0.6,)))
    np.testing.assert_allclose(found, [0.25, 0.5, 0.75, 1, 1, 1, 0.1, 0.1, 0.1, 0.1], rtol=1e-6)


def test_warmup_as_long_as_the_run_is_all_rise():
    np.testing.assert_allclose(rates(total=4, lr=schedules.cosine(1.0, 0.0)), [0.25, 0.5, 0.75, 1.0], rtol=1e-6)


def test_lars_spares_biases_by_itself_and_adapts_matrices():
    """One step from You et al. 2017: rate x trust |w| / |g + decay w| for a matrix, plain momentum SGD for a bias."""
    params, gradients = draws(1)
    found = walk(BASE | {"kind": "lars", "decay_all": None}, gradients, params)[0]
    np.testing.assert_allclose(found["bias"], np.asarray(params["bias"]) - 0.1 * gradients[0]["bias"], rtol=1e-6)
    w, g = (np.float64(tree["kernel"]) for tree in (params, gradients[0]))
    g = g + 0.01 * w
    expected = w - 0.1 * 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
    np.testing.assert_allclose(found["kernel"], expected, rtol=1e-6)
    all_of_it = walk(BASE | {"kind": "lars"}, gradients, params)[0]
    assert not np.allclose(all_of_it["bias"], found["bias"]), "negative control: decay_all=True adapts biases too"


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_other_optimisers_decay_everything_by_themselves(kind):
    params, gradients = draws(1)
    ours, told = (walk(BASE | {"kind": kind, "decay_all": all_}, gradients, params)[0] for all_ in (None, True))
    jax.tree.map(np.testing.assert_array_equal, ours, told)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "lars"])
def test_updates_are_optaxs_own(kind):
    params, gradients = draws()
    spared = lambda tree: {name: name == "kernel" for name in tree}  # noqa: E731
    peers = {
        "sgd": optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.1, 0.9)),
        "adamw": optax.adamw(0.1, weight_decay=0.01),
        "lars": optax.lars(0.1, 0.01, spared, trust_ratio_mask=spared, momentum=0.9),
    }
    state, theirs = peers[kind].init(params), params
    for gradient in gradients:
        updates, state = peers[kind].update(gradient, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    ours = walk(BASE | {"kind": kind, "decay_all": None}, gradients, params)[-1]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), ours, theirs)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "sdg"}, "did you mean 'sgd'"),
        ({"momentum": 1.0}, r"in \[0, 1\)"),
        ({"weight_decay": -1.0}, "0 or more"),
        ({"clip": 0.0}, "above 0"),
        ({"lr": -0.1}, "below 0"),
        ({"decay_all": "all"}, "True, False or None"),
        ({"momentun": 0.1}, "did you mean 'momentum'"),
    ],
)
def test_mistakes(change, said):
    with pytest.raises(UserError, match=said):
        optimiser.build(BASE | change)
