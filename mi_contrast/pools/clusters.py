"""Clusterings of a bank: several k-means, whose labels say which rows are close, as local aggregation wants them.

By scikit-learn where the bank is small, whatever the devices; else Lloyd's steps on the devices that hold it, in blocks
of rows, where only sums of clusters cross. Both start from distinct random rows and take 20 steps. Labels are int32
[R, C], a column for each clustering, -1 for rows that are not valid, which matches nothing.
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
from mi_contrast.pools.bank import CUT, SAME, Bank, read

ITERATIONS = 20
BLOCK = 512
HOST_LIMIT = 2**17  # rows: scikit-learn copies them, once for each of its threads


class Clustering(NamedTuple):
    """centroids f32 [K, D]; labels int32 [R], -1 for rows not valid; inertia f32 [], the sum of squared distances of
    valid rows to their centroids.
    """

    centroids: Float[Array, "K D"]
    labels: Int[Array, " R"]
    inertia: Float[Array, ""]


def refresh(bank: Bank, clusters: int, seeds: Sequence[int], mesh: Mesh) -> Int[Array, "R C"]:
    """Labels of one k-means for each seed, cut over the mesh as the bank is: a function of bank and seeds.

    By `fit_on_host` of the first process up to 131,072 rows, else by `fit_on_devices`.

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
    """The whole array in this process's memory."""
    return np.asarray(x if x.is_fully_addressable else multihost_utils.process_allgather(x, tiled=True))


def unassigned(size: int, clusterings: int, mesh: Mesh) -> Int[Array, "R C"]:
    """Labels before the first `refresh`: -1, so that no row is close to another."""
    return jnp.full((size, clusterings), -1, jnp.int32, device=batch_sharding(mesh))


def of(labels: Int[Array, "R C"], index: Int[Array, " B"], mesh: Mesh) -> Int[Array, "B C"]:
    """The labels of a batch's examples, the same on every device; -1 for an index that is no row."""
    return read(labels + 1, index, mesh) - 1


def fit_on_host(
    rows: Float[np.ndarray, "R D"], valid: Bool[np.ndarray, " R"], clusters: int, seeds: Sequence[int]
) -> Int[np.ndarray, "R C"]:
    """Labels by scikit-learn's KMeans on the valid rows: Lloyd, from distinct random rows by each seed, 20 iterations.

    Clusterings run side by side, each on one thread, so that sums do not depend on how threads race.

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
        with threadpool_limits(1, "openmp"):  # of this thread alone
            return KMeans(clusters, init="random", n_init=1, max_iter=ITERATIONS, random_state=seed).fit(data).labels_

    labels = np.full((len(rows), len(seeds)), -1, np.int32)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as threads:
        labels[valid] = np.stack(list(threads.map(fit, seeds)), axis=1)
    return labels


def fit_on_devices(
    rows: Float[Array, "R D"], valid: Bool[Array, " R"], clusters: int, seeds: Sequence[int], mesh: Mesh
) -> Int[Array, "R C"]:
    """Labels by `lloyd` from distinct random rows, 20 iterations for each seed, one clustering after another.

    Raises:
      UserError: fewer than 1 cluster, more clusters than valid rows, or no seeds.
    Source: Zhuang et al. 2019.
    """
    _check(int(valid.sum()), clusters, seeds)
    fits = [_fit(jax.random.key(seed), rows, valid, clusters, mesh) for seed in seeds]
    return jax.jit(lambda columns: jnp.stack(columns, axis=1), out_shardings=batch_sharding(mesh))(fits)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _fit(key: Key[Array, ""], rows: Array, valid: Array, clusters: int, mesh: Mesh) -> Array:
    return lloyd(rows, valid, random_rows(key, rows, valid, clusters, mesh), ITERATIONS, mesh).labels


def random_rows(
    key: Key[Array, ""], rows: Float[Array, "R D"], valid: Bool[Array, " R"], count: int, mesh: Mesh
) -> Float[Array, "K D"]:
    """Distinct valid rows by key, f32 [K, D], the same whatever the mesh."""
    order = jnp.where(valid, jax.random.uniform(key, valid.shape), -1)
    return read(rows, lax.top_k(order, count)[1], mesh)


def lloyd(
    rows: Float[Array, "R D"],
    valid: Bool[Array, " R"],
    centroids: Float[Array, "K D"],
    iterations: int,
    mesh: Mesh,
) -> Clustering:
    """Lloyd's steps from the centroids given: each row to its nearest centroid, each centroid to its rows' mean.

    After the last step rows are assigned once more, so that labels and inertia are those of the centroids returned. A
    cluster without rows keeps its centroid; of equally near centroids the first is taken. Memory beyond the inputs is
    about 512 x K float32 a device.

    Args:
      rows, valid: f32 [R, D] and bool [R], cut over the mesh axis `data`.
      centroids: f32 [K, D], the same on every device.
    Raises:
      UserError: shapes that do not fit, or a mesh that does not divide the rows.

    >>> from mi_contrast.core.mesh import make_mesh
    >>> rows, valid = jnp.array([[0.0], [1.0], [6.0], [99.0]]), jnp.array([True, True, True, False])
    >>> found = lloyd(rows, valid, rows[1:3], 2, make_mesh())
    >>> found.centroids.ravel().tolist(), found.labels.tolist(), float(found.inertia)
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

    fit = jax.shard_map(on_shard, mesh=mesh, in_specs=(CUT, CUT, SAME), out_specs=(SAME, CUT, SAME))
    return Clustering(*fit(rows, valid, centroids))


def _assign(rows: Array, valid: Array, centroids: Array) -> tuple[tuple[Array, Array, Array], Array]:
    """Sums and counts of each cluster and the inertia over this device's rows, and their labels, block by block."""
    clusters, block = len(centroids), math.gcd(len(rows), BLOCK)
    half = 0.5 * jnp.sum(centroids**2, axis=1)

    def of_block(carry: tuple[Array, Array, Array], given: tuple[Array, Array]) -> tuple[tuple, Array]:
        (sums, counts, inertia), (x, real) = carry, given
        nearness = jnp.matmul(x, centroids.T, precision=lax.Precision.HIGHEST) - half  # (|x|^2 - distance^2) / 2
        label = jnp.argmax(nearness, axis=1).astype(jnp.int32)
        at = jnp.where(real, label, clusters)  # out of range: dropped
        squared = jnp.sum(x**2, axis=1) - 2 * jnp.max(nearness, axis=1)
        carry = (
            sums.at[at].add(x, mode="drop"),
            counts.at[at].add(1.0, mode="drop"),
            inertia + jnp.sum(jnp.where(real, jnp.maximum(squared, 0), 0)),
        )
        return carry, jnp.where(real, label, -1)

    zeros = jnp.zeros_like(centroids), jnp.zeros(clusters), jnp.zeros(())
    zeros = jax.tree.map(lambda x: lax.pcast(x, DATA, to="varying"), zeros)
    carry, labels = lax.scan(of_block, zeros, (rows.reshape(-1, block, rows.shape[1]), valid.reshape(-1, block)))
    return carry, labels.reshape(-1)


def _check(valid: int, clusters: int, seeds: Sequence[int]) -> None:
    if not 1 <= clusters <= valid:
        raise UserError(f"{clusters} clusters of {valid} valid rows", fix="give from 1 to as many as there are rows")
    if not seeds:
        raise UserError("no seeds for k-means", fix="give one for each clustering")
