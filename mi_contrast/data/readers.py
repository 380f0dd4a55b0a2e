"""Batches by step: from memory on the device, or streamed; the same batch either way, whatever the devices.

The batch of a step is a function of the seed alone. Epoch e = step // steps_per_epoch visits a permutation of the
members that (seed, e) fixes, its tail dropped; the example at `position` of a step has the partner that
stream(example_key(seed, step, position), 'partner') draws. Process p holds the p-th contiguous part of the positions.
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
from mi_contrast.core.keys import STREAMS, example_keys, stream
from mi_contrast.core.mesh import along_batch, replicated
from mi_contrast.data import pairing as pairs
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.order import draws, permutation

RESIDENT_BYTES = 2 * 2**30
AHEAD_BYTES = 2**30  # read ahead at most so much, but two batches at least
LAST_STEP = 2**31 - 1
ORDERS = ("epochs", "draws")


class Batch(NamedTuple):
    """sources: uint8 [B, V, H, W, 3], V 1 or 2 images an example; index: int32 [B, V], which examples they are."""

    sources: UInt8[Array, "B V H W 3"]
    index: Int[Array, "B V"]  # type: ignore[assignment]  # over tuple.index


class Reader(Protocol):
    """Gives the batch of any step; reading on from the last step is quickest."""

    steps_per_epoch: int

    def batch(self, step: int) -> Batch:
        """The batch of a step: global arrays, cut along the batch over the mesh. Returns before it is computed."""
        ...

    def close(self) -> None:
        """Stops reading ahead."""
        ...

    def __enter__(self) -> Reader: ...

    def __exit__(self, *raised: object) -> None: ...


@dataclass(frozen=True)
class Plan:
    """Who is where: what both readers share.

    members: int32 [M]; views: 1 or 2 images an example; mesh: over whose axis `data` the batch is cut; order: a word of
    ORDERS.
    """

    members: Ints
    batch_size: int
    seed: int
    views: int
    pairing: pairs.Pairing
    mesh: jax.sharding.Mesh
    order: str = "epochs"

    @property
    def steps_per_epoch(self) -> int:
        return len(self.members) // self.batch_size

    @property
    def positions(self) -> range:
        """The positions in the full batch that this process holds."""
        own = self.batch_size // jax.process_count()
        return range(own * jax.process_index(), own * (jax.process_index() + 1))

    def anchors(self, step: int) -> Ints:
        """The first images of this process's examples, int32."""
        own = slice(self.positions.start, self.positions.stop)
        if self.order == "draws":
            key = STREAMS["permutation"], self.seed, step, 1  # one number more than an epoch's
            return self.members[draws(len(self.members), self.batch_size, *key)[own]]
        epoch, at = divmod(step, self.steps_per_epoch)
        order = epoch_order(len(self.members), self.seed, epoch)
        return self.members[order[at * self.batch_size :][own]]


@lru_cache(maxsize=4)
def epoch_order(count: int, seed: int, epoch: int) -> Ints:
    """The order in which an epoch visits its members: a permutation that (seed, epoch) fixes."""
    return permutation(count, STREAMS["permutation"], seed, epoch)


def with_partners(
    pairing: pairs.Pairing, anchors: Int[Array, " B"], seed: int, step: Array, positions: Array, views: int
) -> Int[Array, "B V"]:
    """int32 [B, V]: each anchor, and beside it its partner where V is 2. Jittable."""
    if views == 1:
        return anchors[:, None]
    keys = jax.vmap(partial(stream, name="partner"))(example_keys(seed, step, positions))
    return jnp.stack([anchors, jax.vmap(pairs.partner, (None, 0, 0))(pairing, anchors, keys)], axis=1)


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
    """A reader of the examples `members` of a set, in batches of `batch_size` over all processes and devices.

    Args:
      members: int [M], distinct indices into `images`.
      seed: of the run: it fixes order and partners.
      shared: factors that the two images of an example share; () gives one image an example.
      partner: the word under which the set has a partner for each example, its second image; not with `shared`.
      resident: keep the decoded members on every device, or stream them; by default resident up to 2 GiB.
      order: 'epochs', every member once before any comes twice, a last batch that isn't full left out; or 'draws',
        each batch drawn from all members, none twice in it. Of a bank of one row a member, epochs make the row of the
        example at hand the one not written for longest, which a fast network learns to tell by; draws don't.
    Raises:
      UserError where the batch is larger than the members or can't be cut over the mesh, or a factor is unknown.
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
    plan = Plan(members, batch_size, seed, 2 if shared or partner is not None else 1, pairing, mesh, order)
    if resident is None:
        resident = len(members) * int(np.prod(images.image_shape)) <= RESIDENT_BYTES
    return Resident(plan, images) if resident else Streamed(plan, images)


class Resident:
    """All members on every device, decoded once; a batch is one gather inside one jitted function."""

    def __init__(self, plan: Plan, images: ImageSet):
        self.plan, self.steps_per_epoch = plan, plan.steps_per_epoch
        everywhere, cut = replicated(plan.mesh), along_batch(plan.mesh)
        row = np.full(len(images), -1, np.int32)
        row[plan.members] = np.arange(len(plan.members), dtype=np.int32)
        decoded = images.images(plan.members)
        tables = decoded, row, plan.pairing
        self._tables = jax.tree.map(lambda x: as_global(np.asarray(x), everywhere, np.shape(x)), tables)

        @partial(jax.jit, in_shardings=(everywhere, cut, everywhere), out_shardings=cut)
        def gather(tables: Any, anchors: Array, step: Array) -> Batch:
            decoded, row, pairing = tables
            positions = jnp.arange(plan.batch_size)
            index = with_partners(pairing, anchors, plan.seed, step, positions, plan.views)
            return Batch(decoded[row[index]], index)

        self._gather = gather

    def batch(self, step: int) -> Batch:
        """The batch of a step; returns at once, the device computes it."""
        anchors = as_global(self.plan.anchors(step), along_batch(self.plan.mesh), (self.plan.batch_size,))
        return self._gather(self._tables, anchors, np.int32(step))

    def close(self) -> None:
        """Frees the members."""
        self._tables = None

    def __enter__(self) -> Resident:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class Streamed:
    """Members decoded as they are needed, whole batches ahead in grain's threads; any step can be sought."""

    def __init__(self, plan: Plan, images: ImageSet):
        self.plan, self.images, self.steps_per_epoch = plan, images, plan.steps_per_epoch
        size = len(plan.positions) * plan.views * int(np.prod(images.image_shape))
        ahead = int(np.clip(AHEAD_BYTES // max(size, 1), 2, os.cpu_count() or 2))
        import grain

        self._options = grain.ReadOptions(num_threads=ahead, prefetch_buffer_size=ahead)
        self._steps: Any = None
        self._next = -1

        @jax.jit
        def index(pairing: pairs.Pairing, anchors: Array, step: Array, positions: Array) -> Array:
            return with_partners(pairing, anchors, plan.seed, step, positions, plan.views)

        self._index = index
        self._pairing = jax.tree.map(np.asarray, plan.pairing)

    def _read(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What this process holds of a step's batch, decoded: sources [b, V, H, W, 3] and index [b, V]."""
        anchors = self.plan.anchors(step)
        index = anchors[:, None]
        if self.plan.views == 2:
            with jax.default_device(host()):
                index = np.asarray(self._index(self._pairing, anchors, np.int32(step), np.asarray(self.plan.positions)))
        sources = self.images.read(index.reshape(-1).astype(np.int64))
        return sources.reshape(*index.shape, *sources.shape[1:]), index

    def batch(self, step: int) -> Batch:
        """The batch of a step; waits for it to be decoded, unless it was read ahead."""
        if step != self._next:
            import grain

            self.close()
            ahead = grain.MapDataset.range(step, LAST_STEP).map(self._read)
            self._steps = iter(ahead.to_iter_dataset(self._options))
        self._next = -1  # until this one is read: after an error, seek anew
        sources, index = next(self._steps)
        self._next = step + 1
        cut = along_batch(self.plan.mesh)
        full = self.plan.batch_size
        return Batch(
            as_global(sources, cut, (full, *sources.shape[1:])), as_global(index, cut, (full, *index.shape[1:]))
        )

    def close(self) -> None:
        """Stops reading ahead."""
        if self._steps is not None:
            self._steps.close()
        self._steps, self._next = None, -1

    def __enter__(self) -> Streamed:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def as_global(local: np.ndarray, sharding: jax.sharding.NamedSharding, shape: tuple[int, ...]) -> jax.Array:
    """A global array from this process's part of it."""
    return jax.make_array_from_process_local_data(sharding, local, shape)


@lru_cache(maxsize=1)
def host() -> jax.Device | None:
    """A CPU to draw partners on, beside the accelerators; None where JAX was started without one."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None
