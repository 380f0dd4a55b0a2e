"""k-means over a bank against scikit-learn and plain loops, on one device and on eight."""

import functools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import make_mesh
from mi_contrast.pools import clusters
from mi_contrast.pools.bank import Bank
from tests import devices

MESH = make_mesh()
SIZE, EXAMPLES, DIM, CLUSTERS = 2048, 1500, 8, 12
lloyd = jax.jit(clusters.lloyd, static_argnums=(3, 4))
draw_rows = jax.jit(clusters.draw_rows, static_argnums=(3, 4))
labels_of = jax.jit(clusters.read_labels, static_argnums=2)


@functools.cache
def blobs(spread=0.25):
    """Rows of norm 1 about 12 directions, padded with rows that would spoil a mean; who is valid; whose direction."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, DIM))
    of = rng.integers(0, CLUSTERS, SIZE)
    rows = centres[of] / np.linalg.norm(centres[of], axis=1, keepdims=True) + spread * rng.normal(size=(SIZE, DIM))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    valid = (np.arange(SIZE) < EXAMPLES) & (rng.random(SIZE) < 0.95)
    rows[~valid] = 50.0
    return rows.astype(np.float32), valid, of


def first_rows():
    rows, valid, _ = blobs()
    return rows[np.flatnonzero(valid)[:CLUSTERS]]


@pytest.mark.parametrize("iterations", [1, 3, 20])
def test_lloyd_equals_scikit_learn_from_the_same_start(iterations):
    rows, valid, _ = blobs()
    found = lloyd(rows, valid, first_rows(), iterations, MESH)
    theirs = KMeans(CLUSTERS, init=first_rows(), n_init=1, max_iter=iterations, tol=0).fit(rows[valid].astype(float))
    assert float(found.inertia) == pytest.approx(theirs.inertia_, rel=1e-4)
    np.testing.assert_allclose(found.centroids, theirs.cluster_centers_, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(found.labels)[valid], theirs.labels_)
    np.testing.assert_array_equal(np.asarray(found.labels)[~valid], -1)
    # the inertia is that of the labels and centroids returned
    far = rows[valid] - np.asarray(found.centroids, np.float64)[np.asarray(found.labels)[valid]]
    assert float(found.inertia) == pytest.approx((far**2).sum(), rel=1e-5)


def test_a_cluster_without_rows_keeps_its_centroid():
    rows, valid, _ = blobs()
    start = first_rows().copy()
    start[3] = -9.0
    found = lloyd(rows, valid, start, 3, MESH)
    np.testing.assert_array_equal(found.centroids[3], start[3])
    assert not (np.asarray(found.labels) == 3).any() and np.isfinite(found.centroids).all()


def test_random_rows_are_distinct_and_valid():
    rows, valid, _ = blobs()
    rng = jax.random.key(0)
    found = np.asarray(draw_rows(rng, rows, valid, int(valid.sum()), MESH))
    np.testing.assert_array_equal(np.unique(found, axis=0), np.unique(rows[valid], axis=0))  # all of them, once
    few = [np.asarray(draw_rows(jax.random.key(k), rows, valid, 5, MESH)) for k in (0, 1)]
    assert (few[0] != few[1]).any()


def on_host(rows, valid, count, seeds):
    return clusters.fit_on_host(rows, valid, count, seeds)


def on_devices(rows, valid, count, seeds):
    return clusters.fit_on_devices(jnp.asarray(rows), jnp.asarray(valid), count, seeds, MESH)


@pytest.mark.parametrize("fit", [on_host, on_devices])
def test_several_clusterings_by_seed(fit):
    rows, valid, of = blobs()
    labels = np.asarray(fit(rows, valid, CLUSTERS, (0, 1, 2)))
    assert labels.shape == (SIZE, 3) and labels.dtype == np.int32
    assert (labels[~valid] == -1).all()
    assert set(np.unique(labels[valid])) <= set(range(CLUSTERS))
    np.testing.assert_array_equal(labels, fit(rows, valid, CLUSTERS, (0, 1, 2)))
    np.testing.assert_array_equal(labels[:, [1]], fit(rows, valid, CLUSTERS, (1,)))
    assert (labels[:, 0] != labels[:, 1]).any()  # another seed, another clustering
    for column in labels.T:
        assert adjusted_rand_score(of[valid], column[valid]) > 0.6
        # Lloyd has settled: as good as scikit-learn's from as many starts, within a local optimum's reach
        means = np.stack([rows[valid & (column == k)].mean(axis=0) for k in np.unique(column[valid])])
        inertia = ((rows[valid][:, None] - means) ** 2).sum(axis=2).min(axis=1).sum()
        best = KMeans(CLUSTERS, n_init=3, random_state=9).fit(rows[valid]).inertia_
        assert inertia < 1.6 * best


@pytest.mark.parametrize("limit", [0, SIZE])
def test_refresh_goes_where_the_bank_is(monkeypatch, limit):
    rows, valid, _ = blobs()
    bank = Bank(jnp.asarray(rows), jnp.asarray(valid))
    monkeypatch.setattr(clusters, "HOST_LIMIT", limit)
    before = np.array(bank.rows).tobytes()
    labels = clusters.refresh(bank, CLUSTERS, (4, 5), MESH)
    np.testing.assert_array_equal(labels, (on_host if limit else on_devices)(rows, valid, CLUSTERS, (4, 5)))
    assert isinstance(labels, jax.Array) and np.array(bank.rows).tobytes() == before


def test_labels_of_a_batch():
    labels = np.random.default_rng(0).integers(-1, 9, (1024, 3)).astype(np.int32)
    index = np.array([5, -1, 1023, 5], np.int32)
    expected = labels[index]
    expected[1] = -1
    np.testing.assert_array_equal(labels_of(jnp.asarray(labels), index, MESH), expected)
    nothing = clusters.init_labels(1024, 3, MESH)
    assert nothing.dtype == jnp.int32 and (np.asarray(nothing) == -1).all()
    assert (np.asarray(labels_of(nothing, index, MESH)) == -1).all()


@pytest.mark.parametrize("fit", [on_host, on_devices])
def test_mistakes_are_said(fit):
    rows, valid, _ = blobs()
    for count, seeds, says in ((0, (0,), "0 clusters of"), (SIZE, (0,), "2048 clusters of"), (3, (), "no seeds")):
        with pytest.raises(UserError, match=says):
            fit(rows, valid, count, seeds)
    with pytest.raises(UserError, match=r"rows \[2048, 8\].*centroids \[12, 7\]"):
        clusters.lloyd(rows, valid, first_rows()[:, :7], 1, MESH)


def on_eight():
    """Run on eight virtual devices: Lloyd from the same start, and a refresh."""
    rows, valid, _ = blobs()
    mesh = make_mesh()
    found = lloyd(rows, valid, first_rows(), 20, mesh)
    labels = clusters.refresh(Bank(jnp.asarray(rows), jnp.asarray(valid)), CLUSTERS, (4, 5), mesh)
    of_devices = clusters.fit_on_devices(jnp.asarray(rows), jnp.asarray(valid), CLUSTERS, (4, 5), mesh)
    return {
        "inertia": float(found.inertia),
        "lloyd": np.asarray(found.labels).tolist(),
        "labels": np.asarray(labels).tolist(),
        "of_devices": np.asarray(of_devices).tolist(),
        "shards": [list(x.data.shape) for x in labels.addressable_shards],
    }


@pytest.mark.slow
def test_eight_devices_equal_one_and_scikit_learn():
    environment = devices.environment(8)
    code = (
        "import json, jax; assert len(jax.devices()) == 8\n"
        "from tests.pools.test_clusters import on_eight; print(json.dumps(on_eight()))"
    )
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    seen = json.loads(out.stdout)
    rows, valid, _ = blobs()
    one = lloyd(rows, valid, first_rows(), 20, MESH)
    theirs = KMeans(CLUSTERS, init=first_rows(), n_init=1, max_iter=20, tol=0).fit(rows[valid].astype(float))
    assert seen["inertia"] == pytest.approx(theirs.inertia_, rel=1e-4)
    np.testing.assert_array_equal(seen["lloyd"], one.labels)
    np.testing.assert_array_equal(seen["labels"], on_host(rows, valid, CLUSTERS, (4, 5)))
    np.testing.assert_array_equal(seen["of_devices"], on_devices(rows, valid, CLUSTERS, (4, 5)))
    assert seen["shards"] == [[SIZE // 8, 2]] * 8
