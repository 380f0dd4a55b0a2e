"""Clusterings of a bank by k-means. Rows with the same label are close, in the sense of local aggregation.

A small bank is clustered by scikit-learn on the host, whatever the devices. A large one is clustered by Lloyd's
algorithm on the devices that hold it, in blocks of rows; only the sums of clusters cross devices. Both start from
distinct random rows and take 20 steps. Labels are int32 [R, C], one column for each clustering. Rows that are not valid
have the label -1, which equals nothing.

Source: Zhuang et al. 2019 (local aggregation).
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int, Key

from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import DATA, batch_sharding
from mi_contrast.pools.bank import REPLICATED, SHARDED, Bank, read

ITERATIONS = 20
BLOCK = 512
HOST_LIMIT = 2**17  # rows; scikit-learn copies them once for each of its threads


class Clustering(NamedTuple):
    """The result of one k-means.

    Attributes:
      centroids: f32 [K, D].
      labels: int32 [R], the cluster of each row; -1 for rows that are not valid.
      inertia: f32 [], the sum of the squared distances of valid rows to their centroids.
    """

    centroids: Float[Array, "K D"]
    labels: Int[Array, " R"]
    inertia: Float[Array, ""]


def refresh(bank: Bank, clusters: int, seeds: Sequence[int], mesh: Mesh) -> Int[Array, "R C"]:
    """Returns the labels of one k-means for each seed, sharded over the mesh as the bank is.

    The labels are a function of bank and seeds. Up to 131,072 rows they come from `fit_on_host` in the first process,
    else from `fit_on_devices`.

    Raises:
      UserError: fewer than 1 cluster, more clusters than valid rows, or no seeds.
    Source: Zhuang et al. 2019; its released code takes 20 iterations and from 3 to 10 clusterings.
    """
    if len(bank.valid) > HOST_LIMIT:
        return fit_on_devices(bank.rows, bank.valid, clusters, seeds, mesh)
    rows, valid = (_on_host(part) for part in (bank.rows, bank.valid))
    _check(int(valid.sum()), clusters, seeds)
    if jax.process_index() == 0:
        labels = fit_on_host(rows, valid, clusters, seeds)
    else:
        labels = np.empty((len(rows), len(seeds)), np.int32)
    if jax.process_count() > 1:
        labels = np.asarray(multihost_utils.broadcast_one_to_all(labels))
    return jax.make_array_from_callback(labels.shape, batch_sharding(mesh), lambda at: labels[at])


def _on_host(x: Array) -> np.ndarray:
    """Returns the whole array in this process's memory."""
    return np.asarray(x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True))


def init_labels(size: int, clusterings: int, mesh: Mesh) -> Int[Array, "R C"]:
    """Returns the labels before the first `refresh`: -1, so that no row is close to another."""
    return jnp.full((size, clusterings), -1, jnp.int32, device=batch_sharding(mesh))


def read_labels(labels: Int[Array, "R C"], index: Int[Array, " B"], mesh: Mesh) -> Int[Array, "B C"]:
    """Returns the labels of a batch's examples, the same on every device; -1 for an index without a row."""
    return read(labels + 1, index, mesh) - 1


def fit_on_host(
    rows: Float[np.ndarray, "R D"], valid: Bool[np.ndarray, " R"], clusters: int, seeds: Sequence[int]
) -> Int[np.ndarray, "R C"]:
    """Returns the labels of scikit-learn's KMeans on the valid rows: 20 steps of Lloyd's from distinct random rows.

    Clusterings run in parallel, each on one thread, so that no sum depends on the order in which threads finish.

    Raises:
      UserError: fewer than 1 cluster, more clusters than valid rows, or no seeds.
    Source: Zhuang et al. 2019, whose released code starts from random rows too.

    >>> rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [5.0, 5.0]], np.float32)
    >>> labels = fit_on_host(rows, np.array([True, True, True, False]), 2, seeds=[0])
    >>> bool(labels[0] == labels[2] != labels[1]), labels[3].tolist()
    (True, [-1])
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    _check(int(valid.sum()), clusters, seeds)
    data = rows[valid]

    def fit(seed: int) -> np.ndarray:
        with threadpool_limits(1, "openmp"):  # limits this thread only
            return KMeans(clusters, init="random", n_init=1, max_iter=ITERATIONS, random_state=seed).fit(data).labels_

    labels = np.full((len(rows), len(seeds)), -1, np.int32)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as threads:
        labels[valid] = np.stack(list(threads.map(fit, seeds)), axis=1)
    return labels


def fit_on_devices(
    rows: Float[Array, "R D"], valid: Bool[Array, " R"], clusters: int, seeds: Sequence[int], mesh: Mesh
) -> Int[Array, "R C"]:
    """Returns the labels of `lloyd` for each seed: 20 steps from distinct random rows, one seed after another.

    Raises:
      UserError: fewer than 1 cluster, more clusters than valid rows, or no seeds.
    Source: Zhuang et al. 2019.
    """
    _check(int(valid.sum()), clusters, seeds)
    columns = [_lloyd_from_random(jax.random.key(seed), rows, valid, clusters, mesh) for seed in seeds]
    return jax.jit(lambda columns: jnp.stack(columns, axis=1), out_shardings=batch_sharding(mesh))(columns)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _lloyd_from_random(rng: Key[Array, ""], rows: Array, valid: Array, clusters: int, mesh: Mesh) -> Array:
    return lloyd(rows, valid, draw_rows(rng, rows, valid, clusters, mesh), ITERATIONS, mesh).labels


def draw_rows(
    rng: Key[Array, ""], rows: Float[Array, "R D"], valid: Bool[Array, " R"], count: int, mesh: Mesh
) -> Float[Array, "K D"]:
    """Returns distinct random valid rows, f32 [K, D], the same whatever the mesh."""
    order = jnp.where(valid, jax.random.uniform(rng, valid.shape), -1)
    return read(rows, lax.top_k(order, count)[1], mesh)


def lloyd(
    rows: Float[Array, "R D"],
    valid: Bool[Array, " R"],
    centroids: Float[Array, "K D"],
    iterations: int,
    mesh: Mesh,
) -> Clustering:
    """Returns the clustering after some steps of Lloyd's algorithm from the given centroids.

    A step assigns each row to its nearest centroid (the first, where several are equally near) and moves each centroid
    to the mean of its rows. A cluster without rows keeps its centroid. After the last step rows are assigned once more,
    so that labels and inertia belong to the centroids returned. Memory beyond the inputs is about 512 x K float32 on
    each device.

    Args:
      rows, valid: f32 [R, D] and bool [R], sharded over the mesh axis `data`.
      centroids: f32 [K, D], replicated over the mesh.
    Raises:
      UserError: shapes that do not fit, or a mesh that does not divide the rows.

    >>> from mi_contrast.core.mesh import make_mesh
    >>> rows, valid = jnp.array([[0.0], [1.0], [6.0], [99.0]]), jnp.array([True, True, True, False])
    >>> result = lloyd(rows, valid, rows[1:3], 2, make_mesh())
    >>> result.centroids.ravel().tolist(), result.labels.tolist(), float(result.inertia)
    ([0.5, 6.0], [0, 0, 1, -1], 0.5)
    """
    if rows.shape[1:] != centroids.shape[1:] or valid.shape != rows.shape[:1] or len(rows) % mesh.shape[DATA]:
        raise UserError(
            f"rows {list(rows.shape)}, valid {list(valid.shape)}, centroids {list(centroids.shape)} over "
            f"{mesh.shape[DATA]} devices",
            fix="give [R, D], [R] and [K, D], R a multiple of the devices",
        )

    def on_shard(rows: Array, valid: Array, centroids: Array) -> tuple[Array, Array, Array]:
        def step(_: int, centroids: Array) -> Array:
            sums, counts, _ = lax.psum(_assign(rows, valid, centroids)[0], DATA)
            return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1)[:, None], centroids)

        centroids = lax.fori_loop(0, iterations, step, centroids)
        (_, _, inertia), labels = _assign(rows, valid, centroids)
        return centroids, labels, lax.psum(inertia, DATA)

    fit = jax.shard_map(
        on_shard, mesh=mesh, in_specs=(SHARDED, SHARDED, REPLICATED), out_specs=(REPLICATED, SHARDED, REPLICATED)
    )
    return Clustering(*fit(rows, valid, centroids))


def _assign(rows: Array, valid: Array, centroids: Array) -> tuple[tuple[Array, Array, Array], Array]:
    """Assigns this device's rows to their nearest centroids, one block of rows after another.

    Returns ((sums f32 [K, D] and counts f32 [K] of each cluster, inertia f32 []), labels int32 [R]).
    """
    clusters, block = len(centroids), math.gcd(len(rows), BLOCK)
    half = 0.5 * jnp.sum(centroids**2, axis=1)

    def assign_block(totals: tuple[Array, Array, Array], rows: tuple[Array, Array]) -> tuple[tuple, Array]:
        (sums, counts, inertia), (x, valid) = totals, rows
        nearness = jnp.matmul(x, centroids.T, precision=lax.Precision.HIGHEST) - half  # (|x|^2 - distance^2) / 2
        label = jnp.argmax(nearness, axis=1).astype(jnp.int32)
        cluster = jnp.where(valid, label, clusters)  # out of range, where nothing is added
        squared = jnp.sum(x**2, axis=1) - 2 * jnp.max(nearness, axis=1)
        totals = (
            sums.at[cluster].add(x, mode="drop"),
            counts.at[cluster].add(1.0, mode="drop"),
            inertia + jnp.sum(jnp.where(valid, jnp.maximum(squared, 0), 0)),
        )
        return totals, jnp.where(valid, label, -1)

    zeros = jnp.zeros_like(centroids), jnp.zeros(clusters), jnp.zeros(())
    zeros = jax.tree.map(lambda x: lax.pcast(x, DATA, to="varying"), zeros)
    blocks = rows.reshape(-1, block, rows.shape[1]), valid.reshape(-1, block)
    totals, labels = lax.scan(assign_block, zeros, blocks)
    return totals, labels.reshape(-1)


def _check(valid: int, clusters: int, seeds: Sequence[int]) -> None:
    if not 1 <= clusters <= valid:
        raise UserError(f"{clusters} clusters of {valid} valid rows", fix="give from 1 to as many as there are rows")
    if not seeds:
        raise UserError("no seeds for k-means", fix="give one for each clustering")
