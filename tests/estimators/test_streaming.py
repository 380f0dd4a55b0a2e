"""Every support and form of `contrast` against the dense estimators, on one device and with the pool cut over eight."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast import estimators as mi
from mi_contrast.core.errors import UserError
from mi_contrast.estimators import supports
from mi_contrast.estimators.inputs import choose_block_size
from tests import devices
from tests.estimators import reference

SOFTMAX = mi.Softmax()
B, K, D, T = 13, 64, 5, 0.4
RNG = np.random.default_rng(29)
ANCHORS, POSITIVES = RNG.normal(size=(2, B, D)).astype(np.float32)
POOL = RNG.normal(size=(K, D)).astype(np.float32)
VALID = RNG.random(K) < 0.8
IDS, POOL_IDS = np.arange(B, dtype=np.int32), RNG.integers(-1, B, K).astype(np.int32)
LABELS = RNG.integers(-1, 4, size=(B, 2)).astype(np.int32), RNG.integers(-1, 4, size=(K, 2)).astype(np.int32)
WHERE = VALID & (IDS[:, None] != POOL_IDS)
SAME = ((LABELS[0][:, None] == LABELS[1]) & (LABELS[0][:, None] >= 0)).any(axis=-1)
GIVEN = dict(valid=VALID, anchor_ids=IDS, pool_ids=POOL_IDS, anchor_labels=LABELS[0], pool_labels=LABELS[1])


def nearest(scores, k):
    """Weights of the k closest, one row at a time: ties are none here."""
    scores = np.where(WHERE, np.asarray(scores, np.float64), -np.inf)
    return (scores >= np.sort(scores, axis=1)[:, -k, None]) & WHERE


CLOSE_20 = nearest(ANCHORS.astype(np.float64) @ POOL.T.astype(np.float64), 20)


def supervised(positive, scores):
    joined = jnp.concatenate([positive[:, None], scores], axis=1)
    same, where = (np.concatenate([np.ones((B, 1), bool), x], axis=1) for x in (SAME, WHERE))
    return mi.supervised(joined, same, where=where)


CASES = {  # support, form, and the dense estimator of the same scores
    "all": (mi.All(), mi.Softmax(), lambda p, f: mi.info_nce(p, f, where=WHERE)),
    "cave": (mi.Cave(0.5, 0.9), mi.Softmax(), lambda p, f: mi.cave(p, f, 0.5, 0.9, where=WHERE)),
    "cave, mean": (
        mi.Cave(0.3, 0.8),
        mi.Softmax("mean"),
        lambda p, f: mi.cave(p, f, 0.3, 0.8, where=WHERE, reduce="mean"),
    ),
    "nearest": (mi.Nearest(20), mi.Softmax(), lambda p, f: mi.info_nce(p, f, where=CLOSE_20)),
    "nearest, more than there are": (mi.Nearest(10**6), mi.Softmax(), lambda p, f: mi.info_nce(p, f, where=WHERE)),
    "local aggregation": (
        mi.Close(mi.Nearest(20)),
        mi.Softmax(),
        lambda p, f: mi.local_aggregation(p, f, SAME, CLOSE_20),
    ),
    "supervised": (mi.Close(), mi.Softmax("mean"), supervised),
    "decoupled": (mi.All(), mi.Decoupled(), lambda p, f: mi.decoupled(p, f, where=WHERE)),
    "decoupled ball": (
        mi.Ball(0.6),
        mi.Decoupled(),
        lambda p, f: mi.decoupled(p, f, where=mi.rank_weights(f, 0.6, 1.0, where=WHERE)),
    ),
    "hard": (
        mi.All(),
        mi.Hard(1.0, 0.1, -1 / T),
        lambda p, f: mi.hard_negatives(p, f, 1.0, 0.1, floor=-1 / T, where=WHERE),
    ),
    "hard ring": (
        mi.Ring(0.2, 0.9),
        mi.Hard(0.5, 0.05),
        lambda p, f: mi.hard_negatives(p, f, 0.5, 0.05, where=mi.rank_weights(f, 0.2, 0.9, where=WHERE)),
    ),
    "debiased": (mi.All(), mi.Hard(0.0, 0.1), lambda p, f: mi.hard_negatives(p, f, 0.0, 0.1, where=WHERE)),
    "binary": (mi.All(), mi.Binary(3.0, 1000), lambda p, f: mi.binary_nce(p, f, 3.0, 1000, where=WHERE)),
    "binary ring": (
        mi.Ring(0.2, 0.9),
        mi.Binary(2.0, 500),
        lambda p, f: mi.binary_nce(p, f, 2.0, 500, where=mi.rank_weights(f, 0.2, 0.9, where=WHERE)),
    ),
}


def graded(function):
    """Value and gradients to anchors, positives, pool and temperature, each anchor weighed differently."""
    weights = jnp.linspace(-1, 2, B)
    total = lambda *x: jnp.sum(weights * function(*x))  # noqa: E731
    return jax.jit(lambda *x: (function(*x), jax.grad(total, argnums=range(4))(*x)))(ANCHORS, POSITIVES, POOL, T)


@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_dense_form_in_value_and_every_gradient(name):
    support, form, dense = CASES[name]

    def blocked(a, p, q, t):
        return mi.contrast(a, p, q, support, form, temperature=t, block=4, pool_gradient=True, **GIVEN)

    def scored(a, p, q, t):
        return dense(jnp.sum(a * p, axis=1) / t, a @ q.T / t)

    found, theirs = graded(blocked), graded(scored)
    assert np.abs(theirs[0]).max() > 0.05
    np.testing.assert_allclose(found[0], theirs[0], rtol=2e-5, atol=1e-5)
    for ours, expected in zip(found[1], theirs[1], strict=True):
        np.testing.assert_allclose(ours, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("most", [0, 1, 3])
def test_ties_of_integer_embeddings_are_shared_as_the_dense_forms_share_them(most):
    rng = np.random.default_rng(most)
    anchors, positives = rng.integers(-most, most + 1, size=(2, 7, 4)).astype(np.float32)
    pool = rng.integers(-most, most + 1, size=(40, 4)).astype(np.float32)
    positive, scores = (anchors * positives).sum(axis=1) / 0.5, anchors @ pool.T / 0.5
    found = mi.contrast(anchors, positives, pool, mi.Cave(0.4, 0.75), temperature=0.5, block=3)
    np.testing.assert_allclose(found, mi.cave(positive, scores, 0.4, 0.75), rtol=2e-6, atol=2e-6)
    found = mi.contrast(anchors, positives, pool, mi.Nearest(11), temperature=0.5)
    for i in range(7):
        closest = reference.band_weights(scores[i], np.ones(40, bool), 29 / 40, 1.0)
        assert closest.sum() == pytest.approx(11)
        assert found[i] == pytest.approx(reference.one_positive(positive[i], scores[i], closest)[0], abs=2e-5)


def nats_of(support, form=SOFTMAX, **given):
    return mi.contrast(ANCHORS, POSITIVES, POOL, support, form, temperature=T, **given)


class TestDrawn:
    def test_k_draws_of_a_ring_are_found_again_in_its_gradient(self):
        """The slope to each row of the pool is minus its share: whole multiples of its mass, within the ring only."""

        def total(support, q):
            own = dict(temperature=T, key=jax.random.key(5), pool_gradient=True)
            return mi.contrast(ANCHORS[:1], POSITIVES[:1], q, support, **own).sum()

        slopes = jax.grad(total, argnums=1)(mi.Drawn(9, mi.Ring(0.5, 0.9)), POOL) @ ANCHORS[0]
        scores = (POOL.astype(np.float64) @ ANCHORS[0]) / T
        inside = reference.band_weights(scores, np.ones(K, bool), 0.5, 0.9)
        times = -np.asarray(slopes) / np.exp(scores)
        times = times / times[times > 0].min()
        assert (np.abs(times[inside == 0]) < 1e-3).all()
        for scale in range(1, 10):  # the least number of times any was drawn
            if abs((times * scale).sum() - 9) < 0.01:
                np.testing.assert_allclose(times * scale, np.round(times * scale), atol=0.01)
                break
        else:
            raise AssertionError(times)

    def test_the_mean_over_keys_is_the_mean_over_literal_draws(self):
        keys = jax.random.split(jax.random.key(0), 400)
        ours = jax.jit(jax.vmap(lambda key: nats_of(mi.Drawn(6, mi.Ball(0.5)), key=key)))(keys)
        rng, scores = np.random.default_rng(0), ANCHORS.astype(np.float64) @ POOL.T / T
        positive = (ANCHORS * POSITIVES).sum(axis=1) / T
        drawn = np.sort(scores, axis=1)[:, K // 2 :][np.arange(B)[:, None], rng.integers(0, K // 2, size=(400, B, 6))]
        literal = positive - np.log((np.exp(positive) + np.exp(drawn).sum(axis=-1)) / 7)
        error = np.sqrt((ours.var(axis=0) + literal.var(axis=0)) / 400)
        assert (np.abs(ours.mean(axis=0) - literal.mean(axis=0)) < 4 * error).all()
        assert (np.asarray(ours.std(axis=0)) > 0).all()

    def test_draws_do_not_depend_on_the_block(self):
        support, key = mi.Drawn(7, mi.All()), jax.random.key(3)
        np.testing.assert_allclose(nats_of(support, key=key, block=2), nats_of(support, key=key), rtol=1e-5, atol=1e-6)
        assert not np.allclose(nats_of(support, key=jax.random.key(4)), nats_of(support, key=key))

    def test_draws_from_tied_edges_are_in_proportion_to_the_shares(self):
        """Ten copies of each row: an edge of the ring cuts through copies, which share what is inside."""
        pool, support = np.repeat(POOL[:6], 10, axis=0), mi.Ring(0.25, 0.75)
        scores = ANCHORS[:1].astype(np.float64) @ pool.T / T
        share = reference.band_weights(scores[0], np.ones(60, bool), 0.25, 0.75)
        assert ((share > 0) & (share < 1)).any()

        def counted(key, q):  # the slope to each row is minus the share of its mass
            given = dict(temperature=T, key=key, pool_gradient=True)
            return mi.contrast(ANCHORS[:1], POSITIVES[:1], q, mi.Drawn(30, support), mi.Decoupled(), **given).sum()

        keys = jax.random.split(jax.random.key(2), 800)
        slopes = jax.jit(jax.vmap(jax.grad(counted, argnums=1), in_axes=(0, None)))(keys, pool) @ ANCHORS[0]
        mass = -np.asarray(slopes, np.float64) / np.exp(scores - scores.max())
        counts = mass / mass.sum(axis=1, keepdims=True) * 30
        np.testing.assert_allclose(counts, np.round(counts), atol=1e-3)
        error = np.sqrt(30 * share / 30 / 800) + 1e-9
        assert (np.abs(counts.mean(axis=0) - 30 * share / share.sum()) < 5 * error).all()

    def test_far_candidates_that_were_not_drawn_do_not_drown_those_that_were(self):
        pool = POOL.copy()
        pool[0] *= 1e4
        nats = mi.contrast(ANCHORS, POSITIVES, pool, mi.Drawn(2), temperature=1e-2, key=jax.random.key(1))
        assert np.isfinite(nats).all()

    def test_none_to_draw_is_nothing(self):
        nats = nats_of(mi.Drawn(5), key=jax.random.key(0), valid=np.zeros(K, bool))
        assert (np.asarray(nats) == 0).all()


@pytest.mark.parametrize("name", CASES)
def test_an_empty_pool_is_0_nats_with_zero_gradient(name):
    support, form, _ = CASES[name]
    given = {**GIVEN, "valid": np.zeros(K, bool)}
    total = lambda a, p: mi.contrast(a, p, POOL, support, form, temperature=T, **given)  # noqa: E731
    nats, back = jax.vjp(total, ANCHORS, POSITIVES)
    assert (np.asarray(nats) == 0).all()
    assert all((np.asarray(slope) == 0).all() for slope in back(jnp.ones(B)))


@pytest.mark.parametrize("name", ["cave", "local aggregation", "hard", "binary", "decoupled"])
def test_nan_is_nan(name):
    support, form, _ = CASES[name]
    broken = np.where(np.arange(K)[:, None] == np.flatnonzero(VALID)[0], np.nan, POOL).astype(np.float32)
    found = mi.contrast(ANCHORS, POSITIVES, broken, support, form, temperature=T, **GIVEN)
    assert np.isnan(found[WHERE[:, np.flatnonzero(VALID)[0]]]).all()


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: nats_of(mi.Close()), "labels"),
        (lambda: nats_of(mi.Drawn(4)), "key"),
        (lambda: nats_of(mi.Drawn(0), key=jax.random.key(0)), "no candidate"),
        (lambda: nats_of(mi.Nearest(0)), "no candidate"),
        (lambda: nats_of(mi.Drawn(4, mi.Cave(0.5, 0.9)), key=jax.random.key(0)), "the inner support of Drawn"),
        (lambda: nats_of(mi.Close(mi.Ring(0.9, 0.5)), **GIVEN), "holds nothing"),
        (lambda: nats_of(mi.Cave(0.5, 0.9), mi.Hard(1.0)), "several"),
        (lambda: nats_of(mi.Close(), mi.Decoupled(), **GIVEN), "several"),
        (lambda: nats_of(mi.All(), mi.Softmax("median")), "median"),
        (lambda: nats_of(mi.Close(), anchor_labels=LABELS[0]), "one side"),
        (lambda: nats_of(mi.Close(), anchor_labels=LABELS[0][:, 0], pool_labels=LABELS[1]), "do not fit"),
    ],
)
def test_mistakes_are_told_in_one_line(mistake, said):
    with pytest.raises(UserError, match=said) as told:
        mistake()
    assert "\n" not in str(told.value)


def test_blocks_are_equal_so_that_no_anchor_is_scored_twice():
    for rows, pool in ((256, 24_576), (256, 65_536), (250, 24_576), (8, 10**6), (3, 5)):
        block = choose_block_size(None, rows, pool)
        blocks = -(-rows // block)
        assert blocks * block - rows < blocks and block <= max(16, 2**22 // pool)
    assert choose_block_size(None, 256, 24_576) == 128  # and not 170, which scores 340 anchors
    assert choose_block_size(170, 256, 24_576) == 170  # what is asked for is kept


def test_size_counts_what_the_value_divides_by():
    for support, expected in ((mi.All(), 50), (mi.Ball(0.9), 5), (mi.Cave(0.5, 0.9), 25), (mi.Nearest(7), 7)):
        assert int(supports.size(support, 50)) == expected
    assert int(supports.size(mi.Close(mi.Nearest(70)), 50)) == 50
    assert int(supports.size(mi.Drawn(9, mi.Ring(0.9, 0.99)), 5)) == 0  # the band is empty


# --- the pool cut over devices ---

SHARDED = Path(__file__).with_name("sharded.py")


@functools.cache
def apart(*topology):
    path = os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
    environment = devices.environment(8, TPU_SKIP_MDS_QUERY="1", PYTHONPATH=path)
    command = [sys.executable, str(SHARDED), *topology]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.nightly
def test_a_pool_cut_over_eight_devices_gives_what_one_device_gives():
    seen = apart()
    assert seen["devices"] == 8
    assert len(seen["worst"]) == 9
    for name, worst in seen["worst"].items():
        assert worst < 1e-4, (name, worst)


@pytest.mark.slow
def test_draws_over_eight_devices_are_those_over_two():
    seen = apart()["drawn"]
    assert seen["8 against 2"] < 1e-5
    assert seen["spread over keys"] > 1e-3


def only_sums_of_anchors_cross(seen):
    for name, found in seen["ours"].items():
        assert found, name
        for operation, elements in found:
            assert operation in ("all-reduce", "reduce-scatter", "all-gather"), (name, operation)
            assert elements <= seen["anchors"], (name, operation, elements)
    # the control: the same scores from a gathered pool
    assert any(elements > seen["anchors"] for _, elements in seen["gathered pool"])


@pytest.mark.slow
def test_only_counts_and_sums_of_anchors_cross_devices():
    only_sums_of_anchors_cross(apart()["collectives"])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed (extra [tpu])")
def test_only_counts_and_sums_of_anchors_cross_a_tpu_pod():
    seen = apart("v5e:4x4")
    assert seen["devices"] == 16
    only_sums_of_anchors_cross(seen["collectives"])


@pytest.mark.slow
@pytest.mark.parametrize("block", [None, 32])
def test_a_million_rows_need_under_256_mib_beyond_the_inputs(block):
    anchors, pool = jax.ShapeDtypeStruct((256, 128), jnp.float32), jax.ShapeDtypeStruct((2**20, 128), jnp.float32)

    def step(a, p, q):
        nats = lambda a, p: mi.contrast(a, p, q, mi.Ring(0.9, 0.99), temperature=0.2, block=block).sum()  # noqa: E731
        return jax.grad(nats, argnums=(0, 1))(a, p)

    needed = jax.jit(step).lower(anchors, anchors, pool).compile().memory_analysis().temp_size_in_bytes
    assert 0 < needed < 256 * 2**20
