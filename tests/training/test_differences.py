"""Differences from released code that show only where a step, its pools or a whole run are looked at."""

import math
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mi_contrast.core.config import to_plain_data
from mi_contrast.core.mesh import make_mesh
from mi_contrast.data.readers import Batch
from mi_contrast.methods import method as methods
from mi_contrast.methods import scoring
from mi_contrast.pools import clusters
from mi_contrast.pools.protocol import Candidates
from mi_contrast.training import candidates as pooling
from mi_contrast.training import loop
from mi_contrast.training.encoding import make_crops
from tests.methods.test_differences import example
from tests.training import rows


def test_the_nearest_row_is_another_examples_and_carries_no_gradient():
    draws = np.random.default_rng(0)
    unit = lambda *shape: (lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True))(draws.normal(size=shape))  # noqa: E731
    embeddings, kept, ids = unit(6, 4), unit(10, 4), np.arange(6)[:, None].repeat(2, axis=1)
    whose = np.arange(10) % 7
    kept[:6] = embeddings  # each example's own older row is the nearest of all
    found, slope = jax.jit(
        lambda x, q: (
            pooling.look_up_nearest(q, x, jnp.asarray(ids)),
            jax.grad(lambda x: pooling.look_up_nearest(q, x, jnp.asarray(ids)).sum())(x),
        )
    )(jnp.asarray(embeddings), Candidates(jnp.asarray(kept), jnp.ones(10, bool), jnp.asarray(whose)))
    for i in range(6):
        others = [j for j in range(10) if whose[j] != i]
        best = max(others, key=lambda j: embeddings[i] @ kept[j])
        np.testing.assert_allclose(found[i], kept[best], atol=1e-6)
        assert np.abs(found[i] - embeddings[i]).max() > 1e-3
    assert not np.asarray(slope).any()
    empty = Candidates(jnp.zeros((10, 4)), jnp.zeros(10, bool), jnp.full(10, -1))
    of_nothing = pooling.look_up_nearest(empty, jnp.asarray(embeddings), jnp.asarray(ids))
    np.testing.assert_allclose(of_nothing, embeddings, atol=1e-6)


def test_clusterings_are_made_before_the_first_step_and_every_few_epochs(monkeypatch):
    made = []
    monkeypatch.setattr(clusters, "refresh", lambda bank, count, seeds, mesh: made.append(tuple(seeds)) or "labels")
    method = methods.build(rows.small("la")["method"])
    carried = {}
    for epoch in range(11):  # the loop asks at the first step of every epoch, whatever the batch
        carried = pooling.refresh_clusters(method, {"bank": None}, carried, epoch, make_mesh())
        assert carried == {"bank_clusters": "labels"}
    assert [len(seeds) for seeds in made] == [3, 3, 3]  # epochs 0, 5 and 10
    assert len({seed for seeds in made for seed in seeds}) == 9


def test_draws_are_poisson_in_number_and_never_the_own_row():
    """With f = 0 for the positive and log 3 for every candidate an anchor's value tells how many it has drawn."""
    count, rows_of_pool, k = 256, 512, 24
    at = jnp.arange(count, dtype=jnp.int32)
    theirs = jnp.arange(rows_of_pool, dtype=jnp.int32)
    # a last coordinate of 1 meets log 3; the pool's own row of an anchor is a hundred nats away from the others
    anchors = jnp.concatenate([jnp.eye(count), jnp.ones((count, 1))], axis=1)
    pool = jnp.concatenate([100.0 * jnp.eye(rows_of_pool, count), jnp.full((rows_of_pool, 1), math.log(3.0))], axis=1)
    support = dict(kind="drawn", k=k, of=dict(kind="all"))
    term = replace(methods.build(rows.small("ir")["method"]).terms[0], support=support, temperature=1.0)
    rngs = jax.random.split(jax.random.key(0), count)
    described = scoring.Anchors(anchors, jnp.zeros_like(anchors), at[:, None], rngs=rngs)

    @jax.jit
    def nats(ids):
        candidates = Candidates(pool, jnp.ones(rows_of_pool, bool), ids, sharded=True)
        return scoring.score_anchors(term, described, candidates, jnp.float32(0), make_mesh())

    ratio = np.exp(-np.asarray(nats(theirs), np.float64))  # (1 + 3 N) / (1 + N)
    drawn = (ratio - 1) / (3 - ratio)
    np.testing.assert_allclose(drawn, np.round(drawn), atol=0.02)
    assert abs(drawn.mean() - k) < 4 * math.sqrt(k / count) and 0.6 * k < drawn.var() < 1.6 * k
    kept = np.asarray(nats(theirs + 1000))  # where ids say nothing, some draw their own row
    assert (kept < -50).any() and not (kept < -50).all()


@pytest.mark.nightly
def test_a_bank_takes_the_embeddings_that_the_loss_saw():
    config = rows.small("ir")
    config["optim"] |= dict(lr=0.01, warmup=0)
    parts, state, _ = rows.begin(config)
    batch = rows.batch(0)

    @jax.jit
    def embed(state):
        views = parts.augmentation.divide(make_crops(parts.augmentation, parts.seed, state.step, batch))
        return parts.encoder.encode_views(state.online, views, ("query",))[0]["query"].embedding

    expected = np.asarray(embed(state))
    _, after, _ = rows.train(config, 1)
    written = np.asarray(after.pools["bank"].rows)[np.asarray(batch.index[:, 0])]
    np.testing.assert_allclose(written, expected, atol=2e-5)
    assert np.abs(written - np.asarray(embed(replace(state, online=after.online)))).max() > 1e-4  # not those after it


def test_batches_are_candidates_with_gradient_only_where_there_is_no_target():
    index = jnp.stack([jnp.arange(16), jnp.arange(16)], axis=1)
    embeddings = {view: jnp.zeros((16, 4)) for view in ("query", "key")}
    tables = pooling.Tables(jnp.zeros(16, jnp.int32), jnp.arange(16))
    for name, size, own, gradient in (("simclr", 32, 2, True), ("nnclr", 16, 1, True), ("moco_v3", 16, 1, False)):
        method = methods.build(rows.small(name)["method"])
        for term in method.terms:
            state, batch = SimpleNamespace(pools={}, carried={}), Batch(None, index)
            context = pooling.StepContext(method, None, state, batch, tables, make_mesh())
            found = pooling.find_candidates(context, term, embeddings)
            assert (len(found.rows), found.own_rows, found.has_gradient, found.sharded) == (size, own, gradient, True)


def shrunk_example():
    return rows.shrink(to_plain_data(example()()))


@pytest.mark.nightly
def test_the_pages_example_trains():
    _, state, scalars = rows.train(shrunk_example(), 3)
    assert all(found["bad_steps"] == 0 and np.isfinite(found["objective"]) for found in scalars)
    assert scalars[-1]["grad_norm"] > 0 and {"term_0", "term_1", "lower_0", "weight_1"} <= set(scalars[-1])
    assert int(state.pools["keys"].pointer) == 3 * rows.BATCH % 40


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["la", "moco"])
def test_measuring_writes_nothing(name, tmp_path):
    from tests.training.test_resume import different

    often, once = rows.whole(name), rows.whole(name)
    often["eval"]["every"] = 2
    loop.run(often, tmp_path / "often")
    loop.run(once, tmp_path / "once")
    assert different(tmp_path / "often", tmp_path / "once") == []
