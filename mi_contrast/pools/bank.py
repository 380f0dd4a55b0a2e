"""The memory bank: one row for each training example, by its stable index, cut over the mesh.

Row i is example i. The rows are padded to a multiple of 1,024, so that one bank serves a mesh of any power of two up to
that; padding and held-out examples are never valid and never written. Every device keeps its own rows: indices and
embeddings travel to them, the bank goes nowhere. All functions are pure, so what only reads cannot write.
"""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Bool, Float, Int, Key, Shaped

from mi_contrast.core.errors import UserError
from mi_contrast.core.mesh import DATA, batch_sharding

MULTIPLE = 1024
CUT, SAME = PartitionSpec(DATA), PartitionSpec()


@flax.struct.dataclass
class Bank:
    """rows f32 [R, D] of norm 1, zeros where not valid; valid bool [R], the examples that may be candidates. R is the
    number of examples, padded; both are cut over the mesh axis `data`.
    """

    rows: Float[Array, "R D"]
    valid: Bool[Array, " R"]


def padded(examples: int) -> int:
    """The rows of a bank of so many examples: the next multiple of 1,024.

    >>> padded(1_281_167)
    1282048
    """
    return -(-examples // MULTIPLE) * MULTIPLE


def random(key: Key[Array, ""], valid: Bool[Array, " N"], dim: int, mesh: Mesh) -> Bank:
    """A bank of random directions: rows uniform in [-s, s]^D with s = 1 / sqrt(D / 3), then normalised.

    To start from one forward pass instead, `update` this bank with momentum 0, chunk by chunk, until each example has
    been written. A row is a function of the key and the example, whatever the mesh.

    Args:
      valid: bool [N], of the split's N examples those that are trained on.
    Raises:
      UserError: no examples, no dimensions, or a mesh that does not divide the rows.
    Source: Wu et al. 2018, its released code (which does not normalise) and that of Wu et al. 2021 (which does).

    >>> from mi_contrast.core.mesh import make_mesh
    >>> bank = random(jax.random.key(0), np.ones(1500, bool), 8, make_mesh())
    >>> bank.rows.shape, int(bank.valid.sum())
    ((2048, 8), 1500)
    """
    if valid.ndim != 1 or len(valid) == 0 or dim < 1:
        raise UserError(f"a bank of {list(valid.shape)} examples x {dim}", fix="give valid as bool [N] and dim above 0")
    size = padded(len(valid))
    _check_cut(size, mesh)

    bound = (dim / 3) ** -0.5

    def row(key: Array, example: Array, real: Array) -> Array:
        drawn = jax.random.uniform(jax.random.fold_in(key, example), (dim,), jnp.float32, -bound, bound)
        return jnp.where(real, drawn / jnp.linalg.norm(drawn), 0)

    def on_shard(key: Array, examples: Array, valid: Array) -> Array:
        return lax.map(lambda given: row(key, *given), (examples, valid), batch_size=MULTIPLE)

    def make(key: Array, valid: Array) -> Bank:
        valid = jnp.pad(valid.astype(bool), (0, size - len(valid)))
        rows = jax.shard_map(on_shard, mesh=mesh, in_specs=(SAME, CUT, CUT), out_specs=CUT)
        return Bank(rows(key, jnp.arange(size), valid), valid)

    return jax.jit(make, out_shardings=batch_sharding(mesh))(key, valid)


def ids(bank: Bank) -> Int[Array, " R"]:
    """int32 [R], the example of each row: given to `contrast` beside the anchors' indices, an anchor's own row is no
    candidate of that anchor. Giving no ids keeps it, as the released code does (`reproduce_self_row`).
    """
    return jnp.arange(len(bank.valid), dtype=jnp.int32)


def read(rows: Shaped[Array, "R ..."], index: Int[Array, " B"], mesh: Mesh) -> Shaped[Array, "B ..."]:
    """Rows of an array cut over the mesh, the same on every device: each gives what it holds, and they are summed.

    Args:
      rows: float32 or int32 [R, ...], for instance `bank.rows`, or labels of clusters.
      index: int32 [B]; one that is no row, -1 for instance, gives zeros.
    Raises:
      UserError: indices of another shape or kind, or a mesh that does not divide the rows.

    >>> from mi_contrast.core.mesh import make_mesh
    >>> read(jnp.arange(4.0)[:, None], jnp.array([2, -1, 3]), make_mesh()).ravel().tolist()
    [2.0, 0.0, 3.0]
    """
    _check_index(index)
    _check_cut(len(rows), mesh)

    def on_shard(rows: Array, index: Array) -> Array:
        return lax.psum(rows.at[_local(index, len(rows))].get(mode="fill", fill_value=0), DATA)

    return jax.shard_map(on_shard, mesh=mesh, in_specs=(CUT, SAME), out_specs=SAME)(rows, index)


def update(
    bank: Bank,
    index: Int[Array, " B"],
    embeddings: Float[Array, "B D"],
    momentum: Float[Array, ""] | float,
    mesh: Mesh,
    keep: Bool[Array, ""] | bool = True,
) -> Bank:
    """The bank after a step: row_i <- normalise(momentum row_i + (1 - momentum) embedding_i).

    The momentum weighs the old row: 0 writes the embedding itself. Where an example comes several times in a batch the
    last one is written, blended with the row as the step found it. Indices that are no valid row are dropped. Where a
    blend is zero and has no direction, the old row stays.

    A donated bank is written without a copy where all else that the program reads of it comes before: let `keep` follow
    from what was read, as it does where it says that loss and gradient are finite.

    Args:
      index: int32 [B], each embedding's example.
      embeddings: f32 or bf16 [B, D], of norm 1: they are blended as given.
      momentum: in [0, 1], may be traced.
      keep: where False, the bank is returned as it was.
    Raises:
      UserError: shapes that do not fit, a concrete momentum outside [0, 1], or a mesh that does not divide the rows.
    Source: Wu et al. 2018, whose released code has momentum .5; that of Wu et al. 2021 has 0.

    >>> from mi_contrast.core.mesh import make_mesh
    >>> bank = Bank(jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([True, True]))
    >>> update(bank, jnp.array([1, 0, 1]), jnp.array([[9.0, 9.0], [0.0, 1.0], [1.0, 0.0]]), 0.0, make_mesh()).rows
    Array([[0., 1.],
           [1., 0.]], dtype=float32)
    """
    _check_index(index)
    _check_cut(len(bank.rows), mesh)
    wanted = (len(index), bank.rows.shape[1])
    if embeddings.shape != wanted:
        raise UserError(f"embeddings {list(embeddings.shape)} for a bank", fix=f"these indices want {list(wanted)}")
    if not isinstance(momentum, jax.core.Tracer) and not 0 <= float(momentum) <= 1:
        raise UserError(f"bank momentum {momentum}", fix="give the weight of the old row, from 0 to 1")

    def on_shard(bank: Bank, index: Array, new: Array, momentum: Array, keep: Array) -> Array:
        size = len(bank.rows)
        order = jnp.argsort(index, stable=True)
        index, new = index[order], new[order]
        last = jnp.append(index[1:] != index[:-1], True)
        at = _local(index, size)
        writable = last & keep & bank.valid.at[at].get(mode="fill", fill_value=False)
        old = bank.rows.at[at].get(mode="fill", fill_value=0)
        blend = momentum * old + (1 - momentum) * new
        norm = jnp.linalg.norm(blend, axis=1, keepdims=True)
        rows = jnp.where(norm == 0, old, blend / jnp.where(norm == 0, 1, norm))
        return bank.rows.at[jnp.where(writable, at, size)].set(rows, mode="drop")

    written = jax.shard_map(on_shard, mesh=mesh, in_specs=(CUT, SAME, SAME, SAME, SAME), out_specs=CUT)
    given = embeddings.astype(jnp.float32), jnp.asarray(momentum, jnp.float32), jnp.asarray(keep)
    return Bank(written(bank, index, *given), bank.valid)


def _local(index: Array, size: int) -> Array:
    """Where this device's `size` rows hold the examples; `size`, out of range, where they do not."""
    at = index.astype(jnp.int32) - lax.axis_index(DATA) * size
    return jnp.where((at >= 0) & (at < size), at, size)


def _check_index(index: Array) -> None:
    if index.ndim != 1 or not jnp.issubdtype(index.dtype, np.integer):
        raise UserError(f"indices {index.dtype}{list(index.shape)} into a bank", fix="give int32 [B]")


def _check_cut(size: int, mesh: Mesh) -> None:
    if size % mesh.shape[DATA]:
        raise UserError(
            f"{size} rows over {mesh.shape[DATA]} devices", fix=f"use a number of devices that divides {MULTIPLE}"
        )
