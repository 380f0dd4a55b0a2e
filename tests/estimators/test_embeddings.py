import functools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from tests import devices
from tests.estimators import reference

B, K, D, T = 21, 67, 6, 0.3
RNG = np.random.default_rng(17)
ANCHORS, POSITIVES = RNG.normal(size=(2, B, D)).astype(np.float32)
POOL = RNG.normal(size=(K, D)).astype(np.float32)
VALID = RNG.random(K) < 0.8
POOL_IDS = RNG.integers(-1, 30, K).astype(np.int32)
ANCHOR_IDS = np.stack([np.arange(B), RNG.integers(-1, 30, B)], axis=1).astype(np.int32)
EACH = np.linspace(0.0, 0.6, B).astype(np.float32)
SUPPORTS = {
    "all": mi.All(),
    "ball": mi.Ball(0.6),
    "ring": mi.Ring(0.5, 0.9),
    "ring of each": mi.Ring(EACH, EACH + np.float32(0.3)),
}


def allowed():
    same = (ANCHOR_IDS[:, :, None] == POOL_IDS) & (ANCHOR_IDS[:, :, None] >= 0)
    return VALID & ~same.any(axis=1)


def dense(support, anchors, positives, pool, temperature, where):
    positive, scores = jnp.sum(anchors * positives, axis=1) / temperature, anchors @ pool.T / temperature
    match support:
        case mi.All():
            return mi.info_nce(positive, scores, where=where)
        case mi.Ball(lower):
            return mi.ball(positive, scores, lower, where=where)
        case mi.Ring(lower, upper):
            return mi.ring(positive, scores, lower, upper, where=where)


def graded(function):
    """Value and gradients to anchors, positives, pool and temperature, each anchor weighed differently."""
    weights = jnp.linspace(-1, 2, B)
    total = lambda *x: jnp.sum(weights * function(*x))  # noqa: E731
    return jax.jit(lambda *x: (function(*x), jax.grad(total, argnums=range(4))(*x)))


@functools.cache
def dense_results(name):
    nats = functools.partial(dense, SUPPORTS[name])
    return graded(lambda a, p, q, t: nats(a, p, q, t, allowed()))(ANCHORS, POSITIVES, POOL, T)


@pytest.mark.parametrize(
    ("name", "block"), [*((name, 4) for name in SUPPORTS), ("ring", 1), ("ring", 7), ("ring", None)]
)
def test_equal_to_the_dense_form_in_value_and_every_gradient(name, block):
    def blocked(a, p, q, t):
        ids = dict(valid=VALID, anchor_ids=ANCHOR_IDS, pool_ids=POOL_IDS)
        return mi.contrast(a, p, q, SUPPORTS[name], temperature=t, block=block, pool_gradient=True, **ids)

    found, theirs = graded(blocked)(ANCHORS, POSITIVES, POOL, T), dense_results(name)
    np.testing.assert_allclose(found[0], theirs[0], rtol=1e-5, atol=1e-5)
    for ours, expected in zip(found[1], theirs[1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def test_value_is_the_equation():
    found = mi.contrast(ANCHORS, POSITIVES, POOL, mi.Ring(0.5, 0.9), temperature=T)
    a, p, q = (x.astype(np.float64) for x in (ANCHORS, POSITIVES, POOL))
    for value, anchor, positive in zip(found, a, p, strict=True):
        expected = reference.band_value(anchor @ positive / T, q @ anchor / T, np.ones(K, bool), 0.5, 0.9)[0]
        assert value == pytest.approx(expected, abs=1e-5)


@jax.jit
def both_forms(anchors, positives, pool, valid, lower, upper):
    support = mi.Ring(lower, upper)

    def blocked(a, p, q):
        return mi.contrast(a, p, q, support, temperature=0.5, valid=valid, block=3, pool_gradient=True)

    forms = blocked, lambda a, p, q: dense(support, a, p, q, 0.5, valid)
    values = [form(anchors, positives, pool) for form in forms]
    slopes = [jax.grad(lambda *x, f=form: f(*x).sum(), argnums=(0, 1, 2))(anchors, positives, pool) for form in forms]
    size = mi.contrast_statistics(anchors, pool, support, temperature=0.5, valid=valid).size
    weights = mi.rank_weights(anchors @ pool.T, lower, upper, where=valid)
    return values, slopes, (size, weights.sum(axis=1))


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    most=st.sampled_from([0, 1, 2, 5]),
    share=st.sampled_from([0.0, 0.2, 1.0]),
    edges=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)).filter(lambda e: e[0] < e[1]),
)
def test_integer_embeddings_with_many_ties_are_exact(seed, most, share, edges):
    rng = np.random.default_rng(seed)
    anchors, positives = rng.integers(-most, most + 1, size=(2, 7, 4)).astype(np.float32)
    pool = rng.integers(-most, most + 1, size=(40, 4)).astype(np.float32)
    valid = rng.random(40) < share
    lower, upper = (np.float32(e / 10**6) for e in edges)
    values, slopes, sizes = both_forms(anchors, positives, pool, valid, lower, upper)
    np.testing.assert_allclose(*sizes, rtol=1e-6)  # whose weight is what: no rank differs
    expected = reference.rank(edges[1] / 10**6, int(valid.sum())) - reference.rank(edges[0] / 10**6, int(valid.sum()))
    np.testing.assert_allclose(sizes[0], expected, rtol=1e-6)
    np.testing.assert_allclose(*values, rtol=2e-6, atol=2e-6)
    for ours, theirs in zip(*slopes, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for i in range(7):
        scores = pool @ anchors[i] / 0.5
        exact = reference.band_value(anchors[i] @ positives[i] / 0.5, scores, valid, edges[0] / 1e6, edges[1] / 1e6)
        assert values[0][i] == pytest.approx(exact[0], abs=2e-5)


@pytest.mark.parametrize("lowest", [1e-3, 1e-2, 1.0])
def test_far_outliers_and_cold_temperatures_do_not_underflow(lowest):
    pool = POOL.copy()
    pool[:2] *= 1e4
    for support in (mi.Ring(0.2, 0.9), mi.Ball(0.3)):
        found = mi.contrast(ANCHORS, POSITIVES, pool, support, temperature=lowest)
        theirs = dense(support, ANCHORS, POSITIVES, pool, lowest, None)
        np.testing.assert_allclose(found, theirs, rtol=1e-4, atol=1e-4)


def test_nothing_valid_is_nothing_and_nan_is_nan():
    def graded_nats(pool, valid):
        nats = lambda a, p: mi.contrast(a, p, pool, mi.Ring(0.5, 0.9), temperature=T, valid=valid)  # noqa: E731
        return nats(ANCHORS, POSITIVES), jax.grad(lambda *x: nats(*x).sum(), argnums=(0, 1))(ANCHORS, POSITIVES)

    nats, slopes = graded_nats(POOL, np.zeros(K, bool))
    assert (np.asarray(nats) == 0).all()
    assert all((np.asarray(slope) == 0).all() for slope in slopes)
    broken = np.where(VALID[:, None], POOL, np.nan).astype(np.float32)
    nats, slopes = graded_nats(broken, np.ones(K, bool))
    assert np.isnan(nats).all()
    junk = np.where(VALID[:, None], POOL, 1e6).astype(np.float32)  # what an invalid row holds does not matter
    for ours, theirs in zip(*map(jax.tree.leaves, (graded_nats(junk, VALID), graded_nats(POOL, VALID))), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_no_candidates_and_no_anchors():
    for support in (mi.All(), mi.Ring(0.5, 0.9)):
        assert (np.asarray(mi.contrast(ANCHORS, POSITIVES, POOL[:0], support, temperature=T)) == 0).all()
        assert mi.contrast(ANCHORS[:0], POSITIVES[:0], POOL, support, temperature=T).shape == (0,)


def test_vmap():
    nats = lambda a, p: mi.contrast(a, p, POOL, mi.Ring(0.5, 0.9), temperature=T, block=2)  # noqa: E731
    a, p = ANCHORS.reshape(3, 7, D), POSITIVES.reshape(3, 7, D)
    np.testing.assert_allclose(jax.vmap(nats)(a, p).reshape(-1), nats(ANCHORS, POSITIVES), rtol=1e-5, atol=1e-5)


def test_bfloat16_gives_float32_nats_and_bfloat16_gradients():
    half = [jnp.asarray(x, jnp.bfloat16) for x in (ANCHORS, POSITIVES, POOL)]
    support = mi.Ring(0.5, 0.9)
    total = lambda *x: mi.contrast(*x, support, temperature=T).sum()  # noqa: E731
    slopes = jax.grad(total, argnums=(0, 1))(*half)
    assert mi.contrast(*half, support, temperature=T).dtype == jnp.float32
    assert all(slope.dtype == jnp.bfloat16 for slope in slopes)
    full = [x.astype(jnp.float32) for x in half]
    np.testing.assert_allclose(
        mi.contrast(*half, support, temperature=T), mi.contrast(*full, support, temperature=T), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(slopes[0].astype(np.float32), jax.grad(total)(*full), atol=0.1)


def test_float64_in_is_float32_within():
    single = mi.contrast(ANCHORS, POSITIVES, POOL, mi.Ring(0.5, 0.9), temperature=T)
    with jax.enable_x64(True):
        double = [x.astype(np.float64) for x in (ANCHORS, POSITIVES, POOL)]
        nats = mi.contrast(*double, mi.Ring(0.5, 0.9), temperature=T)
        dense_nats = dense(mi.Ring(0.5, 0.9), *map(jnp.asarray, double), T, None)
    assert nats.dtype == dense_nats.dtype == jnp.float32
    np.testing.assert_allclose(nats, single, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dense_nats, single, rtol=1e-5, atol=1e-5)


def test_the_pool_is_a_constant_unless_asked():
    total = lambda q: mi.contrast(ANCHORS, POSITIVES, q, mi.All(), temperature=T).sum()  # noqa: E731
    assert (np.asarray(jax.grad(total)(POOL)) == 0).all()


def test_never_holds_all_scores_and_never_sorts():
    anchors, pool = jax.ShapeDtypeStruct((512, 8), jnp.float32), jax.ShapeDtypeStruct((8192, 8), jnp.float32)

    def step(block, a, p, q):
        nats = lambda a, p: mi.contrast(a, p, q, mi.Ring(0.9, 0.99), temperature=T, block=block).sum()  # noqa: E731
        return jax.grad(nats, argnums=(0, 1))(a, p)

    compiled = jax.jit(step, static_argnums=0).lower(16, anchors, anchors, pool).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 16 * 8192 * 4
    assert " sort(" not in compiled.as_text()
    whole = jax.jit(step, static_argnums=0).lower(512, anchors, anchors, pool).compile()  # the control
    assert whole.memory_analysis().temp_size_in_bytes > 512 * 8192 * 4


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: mi.contrast(ANCHORS, POSITIVES[:-1], POOL, mi.All(), temperature=T),
        lambda: mi.contrast(ANCHORS, POSITIVES, POOL[:, 1:], mi.All(), temperature=T),
        lambda: mi.contrast(ANCHORS, POSITIVES, POOL, mi.Ring(0.9, 0.5), temperature=T),
        lambda: mi.contrast(ANCHORS, POSITIVES, POOL, mi.Ball(1.0), temperature=T),
        lambda: mi.contrast(ANCHORS, POSITIVES, POOL, mi.All(), temperature=0.0),
        lambda: mi.contrast(ANCHORS, POSITIVES, POOL, mi.All(), temperature=T, anchor_ids=ANCHOR_IDS),
        lambda: mi.contrast(ANCHORS, POSITIVES, POOL, mi.All(), temperature=T, valid=VALID[1:]),
        lambda: mi.contrast(ANCHORS, POSITIVES, POOL, mi.All(), temperature=T, block=0),
        lambda: mi.contrast(ANCHORS, POSITIVES, POOL, "ring", temperature=T),
        lambda: mi.contrast(ANCHORS, POSITIVES, POOL, mi.All(), "softmax", temperature=T),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(UserError) as told:
        mistake()
    assert "\n" not in str(told.value)


ON_EIGHT_DEVICES = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import PartitionSpec as P
from mi_contrast import estimators as mi
from mi_contrast.core.mesh import make_mesh

mesh = make_mesh()
rng = np.random.default_rng(0)
anchors, positives = rng.normal(size=(2, 32, 4)).astype(np.float32)
pool = rng.normal(size=(100, 4)).astype(np.float32)
ids, pool_ids, valid = np.arange(32), rng.integers(-1, 32, 100), rng.random(100) < 0.8
labels = rng.integers(-1, 3, 32), rng.integers(-1, 3, 100)


def nats(a, p, ids, q, valid, pool_ids, support, t):
    own = dict(valid=valid, anchor_ids=ids, pool_ids=pool_ids, block=3, pool_gradient=True)
    return mi.contrast(a, p, q, support, temperature=t, **own)


def statistics(a, p, ids, q, valid, pool_ids, support, t):
    del p
    return mi.contrast_statistics(a, q, support, temperature=t, valid=valid, anchor_ids=ids, pool_ids=pool_ids)


cut, same = P("data"), P()
specs = (cut, cut, cut, same, same, same, same, same)
cut_over = lambda f: jax.shard_map(f, mesh=mesh, in_specs=specs, out_specs=cut)
worst = {}
for support in (mi.All(), mi.Ring(jnp.float32(0.5), jnp.float32(0.9))):
    rest = (ids, pool, valid, pool_ids, support)

    def graded(f):
        def total(a, p, q, t):
            return jnp.sum(jnp.arange(32) * f(a, p, ids, q, valid, pool_ids, support, t))

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2, 3)))(anchors, positives, pool, jnp.float32(0.3))

    error = lambda x, y: float(jnp.max(jnp.abs(x - y)) / jnp.max(jnp.abs(y)))
    pairs = jax.tree.map(error, graded(cut_over(nats)), graded(nats))
    inside = lambda f: jax.grad(lambda a, *x: f(a, *x).sum())  # the gradient taken on the shard itself
    arguments = (anchors, positives, *rest, jnp.float32(0.3))
    slopes = jax.jit(cut_over(inside(nats)))(*arguments), jax.jit(inside(nats))(*arguments)
    found = jax.jit(cut_over(statistics))(*arguments), jax.jit(statistics)(*arguments)
    worst[type(support).__name__] = {
        "gradients": max(jax.tree.leaves(pairs)),
        "on shard": float(jnp.max(jnp.abs(slopes[0] - slopes[1]))),
        "statistics": max(float(jnp.max(jnp.abs(x * 1.0 - y))) for x, y in zip(*map(jax.tree.leaves, found))),
    }
print(json.dumps({"devices": jax.device_count(), "worst": worst}))
"""


@pytest.mark.slow
def test_eight_devices_agree_with_one():
    environment = devices.environment(8, PYTHONPATH=str(Path.cwd()))
    ran = subprocess.run(
        [sys.executable, "-c", ON_EIGHT_DEVICES], env=environment, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen["devices"] == 8
    assert len(seen["worst"]) == 2
    for name, worst in seen["worst"].items():
        assert max(worst.values()) < 1e-4, (name, worst)
