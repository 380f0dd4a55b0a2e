"""Readers return the batch of any step, either from images kept on the device or from images decoded on the fly.

Both readers return the same batch. It depends only on the seed and the step, not on the number of devices or processes:

- Epoch e = step // steps_per_epoch visits the members in a permutation that (seed, e) determines. A last batch that is
  not full is dropped.
- The example at `position` of a step draws its partner with the rng of (seed, step, position), stream 'partner'.
- Process p holds the p-th contiguous part of the positions, and decodes no other images.

A reader that is given `crops` takes random crops from whole images, not from their centre squares:

- Images of one size are whole as they are: the crops are drawn and cut on the device.
- A streamed set whose images have their own sizes is cut while it is decoded. The batch has the crops.
- A resident set with `data.size` keeps each whole image resized to a square, without regard to its aspect. The boxes
  are drawn for the image's own size, as for a streamed set, and scaled to the square. The device cuts them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.mesh import batch_sharding, host_device, replicated
from mi_contrast.core.rngs import STREAMS, example_rngs, stream_rng
from mi_contrast.data import pairing as pairs
from mi_contrast.data.crops import CropReader, Crops, read_squeezed
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.order import draw_distinct, permutation

RESIDENT_BYTES = 2 * 2**30
PREFETCH_BYTES = 2**30  # limit of what is decoded ahead of time; two batches are prefetched in any case
LAST_STEP = 2**31 - 1
ORDERS = ("epochs", "draws")


class Batch(NamedTuple):
    """The images of a batch.

    sources: uint8 [B, I, H, W, 3], I = 1 or 2 images per example. If the reader draws the crops' boxes itself, sources
      are `BoxedImages`, or the crops that were cut while the images were decoded, uint8 [B, size, size, 3] by name.
    index: int32 [B, I], the index of each image in its set.
    """

    sources: Any
    index: Int[Array, "B I"]  # type: ignore[assignment]  # over tuple.index


class BoxedImages(NamedTuple):
    """The images of a batch and the boxes that are to be cut out of them.

    images: uint8 [B, I, H, W, 3].
    boxes: float32 [B, 4] by the name of the crop: top, left, height and width in pixels of its image.
    """

    images: UInt8[Array, "B I H W 3"]
    boxes: Mapping[str, Float[Array, "B 4"]]


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

    def make_index_reader(self) -> Callable[[int], Int[np.ndarray, "b I"]]:
        """Returns a function of the step: the indices of this process's examples and their partners, on the host."""
        pairing, positions = jax.tree.map(np.asarray, self.pairing), np.asarray(self.positions)

        @jax.jit
        def append(pairing: pairs.Pairing, first_ids: Array, step: Array, positions: Array) -> Array:
            return append_partners(pairing, first_ids, self.seed, step, positions, self.images_per_example)

        def read_index(step: int) -> Int[np.ndarray, "b I"]:
            first_ids = self.first_ids(step)
            if self.images_per_example == 1:
                return first_ids[:, None]
            with jax.default_device(host_device()):
                return np.asarray(append(pairing, first_ids, np.int32(step), positions))

        return read_index


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
    crops: Crops | None = None,
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
      crops: random crops that are taken from whole images, as the module's docstring says. By default a batch has the
        images as the set returns them, cropped to their centre squares if it has a size.

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
    if crops is not None and images.open is not None and not (resident and images.square is None):
        crop_reader = CropReader(images, crops, seed)
        return SqueezedReader(sampler, crop_reader) if resident else StreamingReader(sampler, images, crop_reader)
    return ResidentReader(sampler, images) if resident else StreamingReader(sampler, images)


class ResidentReader:
    """Keeps all members decoded on every device. A batch is one gather in a jitted function."""

    def __init__(self, sampler: Sampler, images: ImageSet, decoded: UInt8[np.ndarray, "M H W 3"] | None = None):
        self.sampler, self.steps_per_epoch = sampler, sampler.steps_per_epoch
        everywhere, sharded = replicated(sampler.mesh), batch_sharding(sampler.mesh)
        self._rows = np.full(len(images), -1, np.int32)  # the row of `decoded` that holds each image of the set
        self._rows[sampler.members] = np.arange(len(sampler.members), dtype=np.int32)
        decoded = images.images(sampler.members) if decoded is None else decoded
        tables = decoded, self._rows, sampler.pairing
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


class SqueezedReader(ResidentReader):
    """Keeps all members on every device, each whole image resized to a square. A batch has the boxes of its crops."""

    def __init__(self, sampler: Sampler, crop_reader: CropReader):
        images = crop_reader.images
        assert images.square is not None
        pixels, self._sides = read_squeezed(images, sampler.members, images.square)
        super().__init__(sampler, images, pixels)
        self._crop_reader, self._square, self._read_index = crop_reader, images.square, sampler.make_index_reader()

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step. Its boxes are drawn on the host, for the image of each crop in its own size."""
        sides = self._sides[self._rows[self._read_index(step)]]  # [b, I, 2]
        sharding, boxes = batch_sharding(self.sampler.mesh), {}
        drawn = [self._crop_reader.boxes(step, np.asarray(self.sampler.positions), s) for s in sides.swapaxes(0, 1)]
        for name, source in self._crop_reader.crops.sources.items():
            scale = np.tile(np.float32(self._square) / sides[:, source].astype(np.float32), (1, 2))
            local = drawn[source][name] * scale  # top, left, height, width by height, width, height, width
            boxes[name] = to_global(local, sharding, (self.sampler.batch_size, 4))
        batch = super().batch(step)
        return batch._replace(sources=BoxedImages(batch.sources, boxes))


class StreamingReader:
    """Decodes the images of each batch when it is needed. Grain's threads prefetch the batches of the next steps.

    Args:
      crop_reader: cuts the crops while the images are decoded. Without it, a batch has the images.
    """

    def __init__(self, sampler: Sampler, images: ImageSet, crop_reader: CropReader | None = None):
        import grain

        self.sampler, self.images, self.steps_per_epoch = sampler, images, sampler.steps_per_epoch
        self._crop_reader = crop_reader
        crops = None if crop_reader is None else crop_reader.crops
        example_bytes = sampler.images_per_example * int(np.prod(images.image_shape))
        if crops is not None:
            example_bytes = sum(3 * size * size for size in crops.sizes.values())
        batch_bytes = len(sampler.positions) * example_bytes
        num_batches = int(np.clip(PREFETCH_BYTES // max(batch_bytes, 1), 2, os.cpu_count() or 2))
        self._options = grain.ReadOptions(num_threads=num_batches, prefetch_buffer_size=num_batches)
        self._batches: Any = None
        self._next_step = -1
        self._read_index = sampler.make_index_reader()

    def _read(self, step: int) -> tuple[np.ndarray | dict[str, np.ndarray], np.ndarray]:
        """Decodes this process's part of a batch. Returns sources [b, I, H, W, 3], or the crops, and index [b, I]."""
        index = self._read_index(step)
        if self._crop_reader is not None:
            return self._crop_reader.read(step, np.asarray(self.sampler.positions), index), index
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
        local = Batch(*next(self._batches))
        self._next_step = step + 1
        sharding, size = batch_sharding(self.sampler.mesh), self.sampler.batch_size
        return jax.tree.map(lambda part: to_global(part, sharding, (size, *part.shape[1:])), local)

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
