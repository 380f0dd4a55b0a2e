"""Readers return the batch of any step, either from images kept on the device or from images decoded on the fly.

Both readers return the same batch. It depends only on the seed and the step, not on the number of devices or processes:

- Epoch e = step // steps_per_epoch visits the members in a permutation that (seed, e) determines. A last batch that is
  not full is dropped.
- The example at `position` of a step draws its partner with the rng of (seed, step, position), stream 'partner'.
- Process p holds the p-th contiguous part of the positions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt8

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.mesh import batch_sharding, replicated
from mi_contrast.core.rngs import STREAMS, example_rngs, stream_rng
from mi_contrast.data import pairing as pairs
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.order import draw_distinct, permutation

RESIDENT_BYTES = 2 * 2**30
PREFETCH_BYTES = 2**30  # limit of what is decoded ahead of time; two batches are prefetched in any case
LAST_STEP = 2**31 - 1
ORDERS = ("epochs", "draws")


class Batch(NamedTuple):
    """The images of a batch.

    sources: uint8 [B, I, H, W, 3], I = 1 or 2 images per example.
    index: int32 [B, I], the index of each image in its set.
    """

    sources: UInt8[Array, "B I H W 3"]
    index: Int[Array, "B I"]  # type: ignore[assignment]  # over tuple.index


class Reader(Protocol):
    """Returns the batch of any step. Reading steps in sequence is the fastest."""

    steps_per_epoch: int

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step as global arrays, sharded along the batch. Does not wait for the device."""
        ...

    def close(self) -> None:
        """Releases the reader's memory and threads."""
        ...

    def __enter__(self) -> Reader: ...

    def __exit__(self, *error: object) -> None: ...


@dataclass(frozen=True)
class Sampler:
    """Chooses the examples of every batch. Both readers use it.

    Attributes:
      members: int32 [M], indices of the examples to read.
      images_per_example: 1 or 2.
      pairing: tables from which the second images are drawn.
      mesh: the mesh whose axis `data` shards the batch.
      order: one of `ORDERS`.
    """

    members: Ints
    batch_size: int
    seed: int
    images_per_example: int
    pairing: pairs.Pairing
    mesh: jax.sharding.Mesh
    order: str = "epochs"

    @property
    def steps_per_epoch(self) -> int:
        return len(self.members) // self.batch_size

    @property
    def positions(self) -> range:
        """The positions in the global batch that this process holds."""
        members = sorted({device.process_index for device in self.mesh.devices.flat})
        each, at = self.batch_size // len(members), members.index(jax.process_index())
        return range(each * at, each * (at + 1))

    def first_ids(self, step: int) -> Ints:
        """Returns the indices of the first images of this process's examples, int32."""
        local = slice(self.positions.start, self.positions.stop)
        if self.order == "draws":
            # The fourth number makes these seeds differ from those of every epoch.
            seeds = STREAMS["permutation"], self.seed, step, 1
            return self.members[draw_distinct(len(self.members), self.batch_size, *seeds)[local]]
        epoch, number = divmod(step, self.steps_per_epoch)
        visit_order = epoch_order(len(self.members), self.seed, epoch)
        return self.members[visit_order[number * self.batch_size :][local]]


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> Ints:
    """Returns the order in which an epoch visits its members, a permutation that (seed, epoch) determines."""
    return permutation(count, STREAMS["permutation"], seed, epoch)


def append_partners(
    pairing: pairs.Pairing,
    first_ids: Int[Array, " B"],
    seed: int,
    step: Array,
    positions: Array,
    images_per_example: int,
) -> Int[Array, "B I"]:
    """Returns the id of each first image and, with 2 images per example, of a partner drawn for it, int32 [B, I].

    It can be jitted.
    """
    if images_per_example == 1:
        return first_ids[:, None]
    rngs = jax.vmap(partial(stream_rng, name="partner"))(example_rngs(seed, step, positions))
    return jnp.stack([first_ids, jax.vmap(pairs.draw_partner, (None, 0, 0))(pairing, first_ids, rngs)], axis=1)


def make_reader(
    images: ImageSet,
    members: Ints,
    *,
    batch_size: int,
    seed: int,
    shared: Sequence[str] = (),
    partner: str | None = None,
    mesh: jax.sharding.Mesh,
    resident: bool | None = None,
    order: str = "epochs",
) -> Reader:
    """Makes a reader of some examples of a set.

    Args:
      images: the set.
      members: int [M], distinct indices into `images`: the examples to read.
      batch_size: examples in a batch, over all processes and devices.
      seed: the run's seed. It determines the order and the partners.
      shared: factors that the two images of an example share. With (), an example has one image.
      partner: a key of `images.partners`. The second image of an example is its partner under that key. It can't be
        combined with `shared`.
      resident: True keeps the decoded members on every device, False decodes them for every batch. None chooses True if
        the decoded members take at most 2 GiB.
      order: 'epochs' visits every member once before any comes again, and drops a last batch that is not full. 'draws'
        draws every batch from all members, without repeats within the batch. With a memory bank, 'epochs' has a flaw
        that 'draws' does not have: the row of the current example is always the oldest, and a network that changes
        fast can recognise it by its age.

    Raises:
      UserError: the batch is larger than the number of members, or the mesh can't divide it; or a factor is unknown.
    """
    members = np.asarray(members, np.int32)
    if not 1 <= batch_size <= len(members):
        what = f"batch {batch_size} is larger than the {len(members)} examples of {images.name} {images.split}"
        raise UserError(what if batch_size > 0 else f"batch {batch_size} is empty", fix="give another data.batch")
    if batch_size % mesh.shape["data"]:
        raise UserError(f"batch {batch_size} is not a multiple of the mesh's {mesh.shape['data']} devices")
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    if not 0 <= seed < 2**32:
        raise UserError(f"seed {seed} is out of range", fix="give 0 to 4294967295")
    pairing = pairs.make_pairing(images, members, shared, partner)
    sampler = Sampler(members, batch_size, seed, 2 if shared or partner is not None else 1, pairing, mesh, order)
    if resident is None:
        resident = len(members) * int(np.prod(images.image_shape)) <= RESIDENT_BYTES
    return ResidentReader(sampler, images) if resident else StreamingReader(sampler, images)


class ResidentReader:
    """Keeps all members decoded on every device. A batch is one gather in a jitted function."""

    def __init__(self, sampler: Sampler, images: ImageSet):
        self.sampler, self.steps_per_epoch = sampler, sampler.steps_per_epoch
        everywhere, sharded = replicated(sampler.mesh), batch_sharding(sampler.mesh)
        rows = np.full(len(images), -1, np.int32)  # the row of `decoded` that holds each image of the set
        rows[sampler.members] = np.arange(len(sampler.members), dtype=np.int32)
        decoded = images.images(sampler.members)
        tables = decoded, rows, sampler.pairing
        self._tables = jax.tree.map(lambda x: to_global(np.asarray(x), everywhere, np.shape(x)), tables)

        @partial(jax.jit, in_shardings=(everywhere, sharded, everywhere), out_shardings=sharded)
        def gather(tables: Any, first_ids: Array, step: Array) -> Batch:
            decoded, rows, pairing = tables
            positions = jnp.arange(sampler.batch_size)
            index = append_partners(pairing, first_ids, sampler.seed, step, positions, sampler.images_per_example)
            return Batch(decoded[rows[index]], index)

        self._gather = gather

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step without waiting; the device computes the batch asynchronously."""
        first_ids = to_global(
            self.sampler.first_ids(step), batch_sharding(self.sampler.mesh), (self.sampler.batch_size,)
        )
        return self._gather(self._tables, first_ids, np.int32(step))

    def close(self) -> None:
        """Frees the decoded images."""
        self._tables = None

    def __enter__(self) -> ResidentReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class StreamingReader:
    """Decodes the images of each batch when it is needed. Grain's threads prefetch the batches of the next steps."""

    def __init__(self, sampler: Sampler, images: ImageSet):
        import grain

        self.sampler, self.images, self.steps_per_epoch = sampler, images, sampler.steps_per_epoch
        batch_bytes = len(sampler.positions) * sampler.images_per_example * int(np.prod(images.image_shape))
        num_batches = int(np.clip(PREFETCH_BYTES // max(batch_bytes, 1), 2, os.cpu_count() or 2))
        self._options = grain.ReadOptions(num_threads=num_batches, prefetch_buffer_size=num_batches)
        self._batches: Any = None
        self._next_step = -1

        @jax.jit
        def draw_ids(pairing: pairs.Pairing, first_ids: Array, step: Array, positions: Array) -> Array:
            return append_partners(pairing, first_ids, sampler.seed, step, positions, sampler.images_per_example)

        self._draw_ids = draw_ids
        self._pairing = jax.tree.map(np.asarray, sampler.pairing)

    def _read(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Decodes this process's part of a batch. Returns sources [b, I, H, W, 3] and index [b, I]."""
        first_ids, positions = self.sampler.first_ids(step), np.asarray(self.sampler.positions)
        index = first_ids[:, None]
        if self.sampler.images_per_example == 2:
            with jax.default_device(host_device()):
                index = np.asarray(self._draw_ids(self._pairing, first_ids, np.int32(step), positions))
        sources = self.images.read(index.reshape(-1).astype(np.int64))
        return sources.reshape(*index.shape, *sources.shape[1:]), index

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step. Waits for it to be decoded if it was not prefetched."""
        if step != self._next_step:
            import grain

            self.close()
            steps = grain.MapDataset.range(step, LAST_STEP).map(self._read)
            self._batches = iter(steps.to_iter_dataset(self._options))
        self._next_step = -1  # makes the next call start afresh if reading this batch fails
        sources, index = next(self._batches)
        self._next_step = step + 1
        sharding, size = batch_sharding(self.sampler.mesh), self.sampler.batch_size
        return Batch(*(to_global(local, sharding, (size, *local.shape[1:])) for local in (sources, index)))

    def close(self) -> None:
        """Stops the prefetching threads."""
        if self._batches is not None:
            self._batches.close()
        self._batches, self._next_step = None, -1

    def __enter__(self) -> StreamingReader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def to_global(local: np.ndarray, sharding: jax.sharding.NamedSharding, shape: tuple[int, ...]) -> jax.Array:
    """Makes a global array from this process's part of it."""
    return jax.make_array_from_process_local_data(sharding, local, shape)


@lru_cache(maxsize=1)
def host_device() -> jax.Device | None:
    """Returns the CPU device on which partners are drawn, or None if JAX was started without one."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
