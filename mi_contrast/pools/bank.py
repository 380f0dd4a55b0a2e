"""The memory bank: one row for each training example, by its stable index, sharded over the mesh axis `data`.

Row i belongs to example i. The number of rows is padded to a multiple of 1,024, so that one bank serves a mesh of any
power of two up to that. Padding and held-out examples are never valid and never written. Every device keeps its own
rows: indices and embeddings travel to them, the rows never move.

Source: Wu et al. 2018 (instance discrimination).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Bool, Float, Int, Key, Shaped

from mi_contrast.core import schedules
from mi_contrast.core.checks import check_flag, check_schedule, check_whole, check_word
from mi_contrast.core.config import check_section
from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import DATA, batch_sharding
from mi_contrast.core.schedules import Progress, Schedule
from mi_contrast.pools.protocol import BatchEmbeddings, Candidates

MULTIPLE = 1024
SHARDED, REPLICATED = PartitionSpec(DATA), PartitionSpec()
STARTS = ("random", "forward")
CLUSTERS = ("number", "clusterings", "every_epochs")


@flax.struct.dataclass
class Bank:
    """The state of a bank. Both arrays are sharded over the mesh axis `data`; R is the number of examples, padded.

    Attributes:
      rows: f32 [R, D] of unit norm; zeros where not valid.
      valid: bool [R], the examples that may be candidates.
    """

    rows: Float[Array, "R D"]
    valid: Bool[Array, " R"]


@dataclass(frozen=True)
class BankPool:
    """One row for each example.

    Attributes:
      momentum: weight of the old row in an update, a schedule in [0, 1].
      takes: the view whose embeddings are written.
      start: 'random', or 'forward' for the embeddings of the untrained network.
      self_row: whether an anchor's own row is one of its candidates, as in the released code.
      clusters: dict(number, clusterings, every_epochs) of the k-means whose labels `close` compares; None for none.
    """

    momentum: Schedule
    takes: str | None = None
    start: str = "random"
    self_row: bool = False
    clusters: Mapping[str, Any] | None = None

    views: ClassVar[tuple[str, ...]] = ()
    network: ClassVar[Literal["online", "target"] | None] = "online"
    sharded: ClassVar[bool] = True
    per_example: ClassVar[bool] = True

    def check(self, path: str) -> None:
        """Raises UserError on the first wrong setting."""
        check_schedule(f"{path}.momentum", self.momentum, 0.0, 1.0)
        check_word(f"word in {path}.start", self.start, STARTS)
        check_flag(f"{path}.self_row", self.self_row, "give False, or True as released")
        if self.clusters is not None:
            check_section(f"{path}.clusters", self.clusters, CLUSTERS)
            for name in CLUSTERS:
                check_whole(f"{path}.clusters.{name}", self.clusters[name])

    def init(self, rng: Key[Array, ""], train_mask: Bool[Array, " N"], dim: int, mesh: Mesh) -> Bank:
        """Returns a bank of random directions. The caller writes over them where `start` is 'forward'."""
        return init_random(rng, train_mask, dim, mesh)

    def candidates(self, state: Bank, batch: BatchEmbeddings, labels: Int[Array, "N R"] | None) -> Candidates:
        """Returns all rows, an anchor's own row left out by its id unless `self_row` is set."""
        if labels is not None and len(labels) < len(state.valid):
            labels = jnp.pad(labels, ((0, len(state.valid) - len(labels)), (0, 0)), constant_values=-1)
        return Candidates(
            rows=state.rows,
            valid=state.valid,
            ids=None if self.self_row else row_ids(state),
            labels=labels,
            sharded=True,
            own_rows=0 if self.self_row else 1,
        )

    def update(
        self,
        state: Bank,
        embeddings: Float[Array, "B D"],
        ids: Int[Array, " B"],
        progress: Progress,
        accept: Bool[Array, ""],
        mesh: Mesh,
    ) -> Bank:
        """Returns the bank with the batch blended into its rows."""
        return write_rows(state, embeddings, ids, schedules.value(self.momentum, progress), mesh, accept)


def padded_size(examples: int) -> int:
    """Returns the number of rows of a bank for so many examples: the next multiple of 1,024.

    >>> padded_size(1_281_167)
    1282048
    """
    return -(-examples // MULTIPLE) * MULTIPLE


def init_random(rng: Key[Array, ""], valid: Bool[Array, " N"], dim: int, mesh: Mesh) -> Bank:
    """Returns a bank of random directions: rows uniform in [-s, s]^D with s = 1 / sqrt(D / 3), then normalised.

    A row is a function of `rng` and the example, whatever the mesh. To start from one forward pass instead, write
    to this bank with momentum 0, chunk by chunk, until every example has been written.

    Args:
      valid: bool [N], the examples of the split that are trained on.
    Raises:
      UserError: no examples, no dimensions, or a mesh that does not divide the rows.
    Source: Wu et al. 2018, its released code (which does not normalise) and that of Wu et al. 2021 (which does).

    >>> from mi_contrast.core.mesh import make_mesh
    >>> bank = init_random(jax.random.key(0), np.ones(1500, bool), 8, make_mesh())
    >>> bank.rows.shape, int(bank.valid.sum())
    ((2048, 8), 1500)
    """
    if valid.ndim != 1 or len(valid) == 0 or dim < 1:
        raise UserError(f"a bank of {list(valid.shape)} examples x {dim}", fix="give valid as bool [N] and dim above 0")
    size = padded_size(len(valid))
    _check_divides(size, mesh)

    bound = (dim / 3) ** -0.5

    def make_row(rng: Array, example: Array, real: Array) -> Array:
        direction = jax.random.uniform(jax.random.fold_in(rng, example), (dim,), jnp.float32, -bound, bound)
        return jnp.where(real, direction / jnp.linalg.norm(direction), 0)

    def on_shard(rng: Array, examples: Array, valid: Array) -> Array:
        return lax.map(lambda example: make_row(rng, *example), (examples, valid), batch_size=MULTIPLE)

    def make_bank(rng: Array, valid: Array) -> Bank:
        valid = jnp.pad(valid.astype(bool), (0, size - len(valid)))
        in_specs = (REPLICATED, SHARDED, SHARDED)
        rows = jax.shard_map(on_shard, mesh=mesh, in_specs=in_specs, out_specs=SHARDED)
        return Bank(rows(rng, jnp.arange(size), valid), valid)

    return jax.jit(make_bank, out_shardings=batch_sharding(mesh))(rng, valid)


def row_ids(bank: Bank) -> Int[Array, " R"]:
    """Returns the example of each row, int32 [R]. `contrast` compares them with the anchors' to leave out own rows."""
    return jnp.arange(len(bank.valid), dtype=jnp.int32)


def read(rows: Shaped[Array, "R ..."], index: Int[Array, " B"], mesh: Mesh) -> Shaped[Array, "B ..."]:
    """Returns rows of an array that is sharded over the mesh axis `data`, the same on every device.

    Each device contributes the rows that it holds, and zeros for the others; the contributions are summed.

    Args:
      rows: float32 or int32 [R, ...], for instance `bank.rows`, or labels of clusters.
      index: int32 [B]. An index without a row, such as -1, gives zeros.
    Raises:
      UserError: indices of another shape or dtype, or a mesh that does not divide the rows.

    >>> from mi_contrast.core.mesh import make_mesh
    >>> read(jnp.arange(4.0)[:, None], jnp.array([2, -1, 3]), make_mesh()).ravel().tolist()
    [2.0, 0.0, 3.0]
    """
    _check_index(index)
    _check_divides(len(rows), mesh)

    def on_shard(rows: Array, index: Array) -> Array:
        return lax.psum(rows.at[_local_rows(index, len(rows))].get(mode="fill", fill_value=0), DATA)

    return jax.shard_map(on_shard, mesh=mesh, in_specs=(SHARDED, REPLICATED), out_specs=REPLICATED)(rows, index)


def write_rows(
    bank: Bank,
    embeddings: Float[Array, "B D"],
    ids: Int[Array, " B"],
    momentum: Float[Array, ""] | float,
    mesh: Mesh,
    accept: Bool[Array, ""] | bool = True,
) -> Bank:
    """Returns the bank after a step: row_i <- normalise(momentum row_i + (1 - momentum) embedding_i).

    The momentum is the weight of the old row; 0 writes the embedding itself. Where an example comes several times in a
    batch, its last embedding is written, blended with the row as it was before the batch. Ids of rows that are not
    valid are ignored. A blend of zero has no direction, so the old row stays.

    A donated bank is updated in place only if everything else that reads it can run first. This holds if `accept`
    depends on those reads, as it does when it says that loss and gradient are finite.

    Args:
      embeddings: f32 or bf16 [B, D] of unit norm; they are not normalised before they are blended.
      ids: int32 [B], the example of each embedding.
      momentum: in [0, 1], may be traced.
      accept: if False, the bank is returned unchanged.
    Raises:
      UserError: shapes that do not fit, a concrete momentum outside [0, 1], or a mesh that does not divide the rows.
    Source: Wu et al. 2018, whose released code has momentum .5; that of Wu et al. 2021 has 0.

    >>> from mi_contrast.core.mesh import make_mesh
    >>> bank = Bank(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([True, True]))
    >>> embeddings = jnp.array([[9.0, 9.0], [0.0, 1.0], [1.0, 0.0]])
    >>> write_rows(bank, embeddings, jnp.array([1, 0, 1]), 0.0, make_mesh()).rows
    Array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    _check_index(ids)
    _check_divides(len(bank.rows), mesh)
    wanted = (len(ids), bank.rows.shape[1])
    if embeddings.shape != wanted:
        raise UserError(f"embeddings {list(embeddings.shape)} for a bank", fix=f"these indices want {list(wanted)}")
    if not isinstance(momentum, jax.core.Tracer) and not 0 <= float(momentum) <= 1:
        raise UserError(f"bank momentum {momentum}", fix="give the weight of the old row, from 0 to 1")

    def on_shard(bank: Bank, new: Array, ids: Array, momentum: Array, accept: Array) -> Array:
        size = len(bank.rows)
        order = jnp.argsort(ids, stable=True)
        new, ids = new[order], ids[order]
        last = jnp.append(ids[1:] != ids[:-1], True)
        local = _local_rows(ids, size)
        writable = last & accept & bank.valid.at[local].get(mode="fill", fill_value=False)
        old = bank.rows.at[local].get(mode="fill", fill_value=0)
        blend = momentum * old + (1 - momentum) * new
        norm = jnp.linalg.norm(blend, axis=1, keepdims=True)
        rows = jnp.where(norm == 0, old, blend / jnp.where(norm == 0, 1, norm))
        return bank.rows.at[jnp.where(writable, local, size)].set(rows, mode="drop")

    in_specs = (SHARDED, REPLICATED, REPLICATED, REPLICATED, REPLICATED)
    write = jax.shard_map(on_shard, mesh=mesh, in_specs=in_specs, out_specs=SHARDED)
    new = embeddings.astype(jnp.float32)
    return Bank(write(bank, new, ids, jnp.asarray(momentum, jnp.float32), jnp.asarray(accept)), bank.valid)


def _local_rows(index: Array, size: int) -> Array:
    """Returns where this device's `size` rows hold the examples, and `size` for those it does not hold."""
    local = index.astype(jnp.int32) - lax.axis_index(DATA) * size
    return jnp.where((local >= 0) & (local < size), local, size)


def _check_index(index: Array) -> None:
    if index.ndim != 1 or not jnp.issubdtype(index.dtype, np.integer):
        raise UserError(f"indices {index.dtype}{list(index.shape)} into a bank", fix="give int32 [B]")


def _check_divides(size: int, mesh: Mesh) -> None:
    if size % mesh.shape[DATA]:
        raise UserError(
            f"{size} rows over {mesh.shape[DATA]} devices", fix=f"use a number of devices that divides {MULTIPLE}"
        )
