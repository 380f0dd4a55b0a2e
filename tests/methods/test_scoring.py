"""Terms against a float64 loop from the equation, on one device and on eight."""

import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core.mesh import make_mesh
from mi_contrast.methods import method as methods
from mi_contrast.methods import scoring
from mi_contrast.pools.protocol import Candidates
from tests import devices
from tests.methods.test_method import METHOD, changed

B, K, D = 16, 40, 8


def inputs():
    draws = np.random.default_rng(0)
    unit = lambda *shape: (lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True))(draws.normal(size=shape))  # noqa: E731
    ids = draws.integers(0, 60, size=K).astype(np.int32)
    anchor_ids = draws.integers(0, 60, size=(B, 2)).astype(np.int32)
    valid = np.arange(K) < 33
    rounded = [x.astype(np.float32) for x in (unit(B, D), unit(B, D), unit(K, D))]
    return *rounded, valid, np.where(valid, ids, -1), anchor_ids


def reference(anchors, positives, pool, valid, ids, anchor_ids, lower, upper, temperature):
    """f+ - log((e^f+ + sum over the band) / (n + 1)), the band by sorting."""
    values = []
    for a, p, own in zip(anchors.astype(float), positives.astype(float), anchor_ids, strict=True):
        scores = sorted(a @ row / temperature for row, v, i in zip(pool.astype(float), valid, ids, strict=True)
                        if v and i not in own)  # fmt: skip
        n = len(scores)
        low, high = (math.floor(n * f + 0.5 + 1e-9) for f in (lower, upper))
        band = scores[low:high]
        positive = a @ p / temperature
        values.append(positive - math.log((math.exp(positive) + sum(map(math.exp, band))) / (len(band) + 1)))
    return np.array(values)


@pytest.mark.parametrize("t", [0.0, 0.2, 0.5, 1.0])
def test_a_ring_term_equals_the_loop_and_leaves_own_keys_out(t):
    anchors, positives, pool, valid, ids, anchor_ids = inputs()
    term = methods.build(METHOD).terms[0]
    described = scoring.Anchors(anchors, positives, anchor_ids)
    found = scoring.score_anchors(term, described, Candidates(pool, valid, ids), jnp.float32(t), make_mesh())
    u = min(t / 0.5, 1.0)
    band = (0.9 * u, 0.9 + 0.09 * u)
    np.testing.assert_allclose(
        found, reference(anchors, positives, pool, valid, ids, anchor_ids, *band, 0.2), atol=1e-5
    )
    control = reference(anchors, positives, pool, valid, ids, anchor_ids - 1000, *band, 0.2)
    assert np.abs(found - control).max() > 1e-4  # the exclusion matters here


def test_settings_are_logged_as_used():
    term = methods.build(METHOD).terms[0]
    at = {name: float(v) for name, v in scoring.read_settings(term, jnp.float32(0.25)).items()}
    assert at == pytest.approx({"lower": 0.45, "upper": 0.945, "temperature": 0.2, "weight": 1.0}, rel=1e-5)


def test_the_ceiling_counts_valid_candidates():
    pool = Candidates(np.zeros((50, 2)), np.arange(50) < 30, np.arange(50))
    everything = methods.build(changed(("terms", 0, "support"), dict(kind="all"))).terms[0]
    assert float(scoring.compute_ceiling(everything, pool, jnp.float32(0))) == pytest.approx(math.log(31))
    ring = methods.build(changed(("terms", 0, "support"), dict(kind="ring", lower=0.5, upper=0.9))).terms[0]
    assert float(scoring.compute_ceiling(ring, pool, jnp.float32(0))) == pytest.approx(math.log(13))


def values_and_gradients():
    anchors, positives, pool, valid, ids, anchor_ids = inputs()
    mesh, found = make_mesh(), {}
    for kind in (dict(kind="all"), dict(kind="ball", lower=0.5), dict(kind="ring", lower=0.5, upper=0.9)):
        term = methods.build(changed(("terms", 0, "support"), kind)).terms[0]

        def mean(anchors, positives, term=term):
            described = scoring.Anchors(anchors, positives, anchor_ids)
            return jnp.mean(scoring.score_anchors(term, described, Candidates(pool, valid, ids), jnp.float32(1), mesh))

        value, gradients = jax.jit(jax.value_and_grad(mean, argnums=(0, 1)))(anchors, positives)
        found[kind["kind"]] = [float(value), *(np.asarray(g).ravel().tolist() for g in gradients)]
    return found


@pytest.mark.slow
def test_eight_devices_equal_one():
    environment = devices.environment(8)
    code = (
        "import json, jax; assert len(jax.devices()) == 8\n"
        "from tests.methods.test_scoring import values_and_gradients; print(json.dumps(values_and_gradients()))"
    )
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    eight, one = json.loads(out.stdout), values_and_gradients()
    for kind, values in one.items():
        for a, b in zip(values, eight[kind], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_two_terms_over_the_batch_are_nt_xent():
    """SimCLR's convention: 2B - 2 candidates and the positive, averaged over both directions."""
    import optax

    anchors, positives, *_ = inputs()
    ids = np.arange(B, dtype=np.int32)
    term = methods.build(SIMCLR).terms[0]

    def ours(anchors, positives):
        pool = jnp.stack([anchors, positives], axis=1).reshape(2 * B, D)
        candidates = Candidates(pool, np.ones(2 * B, bool), np.repeat(ids, 2), sharded=True, has_gradient=True)
        nats = lambda a, p: scoring.score_anchors(  # noqa: E731
            term, scoring.Anchors(a, p, ids[:, None]), candidates, jnp.float32(0), make_mesh()
        )
        return (nats(anchors, positives).mean() + nats(positives, anchors).mean()) / 2

    def theirs(anchors, positives):
        labels = jnp.concatenate([ids, ids])
        loss = optax.losses.ntxent(jnp.concatenate([anchors, positives]), labels, temperature=0.2)
        return math.log(2 * B - 1) - loss.mean()

    graded = [jax.jit(jax.value_and_grad(f, argnums=(0, 1)))(anchors, positives) for f in (ours, theirs)]
    np.testing.assert_allclose(graded[0][0], graded[1][0], atol=1e-5)
    for a, b, y in zip(graded[0][1], graded[1][1], (anchors, positives), strict=True):
        a, b = (x - (x * y).sum(axis=1, keepdims=True) * y for x in (a, b))  # theirs normalises within
        np.testing.assert_allclose(a, b, atol=2e-5)


SIMCLR = dict(
    views="two_crops",
    target="none",
    pools=dict(in_batch=dict(views=("query", "key"))),
    terms=(
        dict(
            anchor="query", positive="key", pool="in_batch", form="softmax", temperature=0.2, weight=1.0,
            support=dict(kind="all"),
        ),
    ),
)  # fmt: skip
