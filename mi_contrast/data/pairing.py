"""Which examples make a pair, and which are held out of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.rngs import STREAMS
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.order import permutation, random_bits

CLIP = "clip"  # the factor that frames of one take share, and with it every factor that a take keeps


def split_held_out(images: ImageSet, fraction: float = 1 / 20) -> tuple[Ints, Ints]:
    """Parts the set in two, whole groups on either side: (kept, held), sorted int32 indices.

    Held are round(fraction * groups) groups, at least one and never all, in an order fixed for good: the same whatever
    the run's seed. Raises UserError where there is one group only.
    """
    groups = np.arange(len(images)) if images.groups is None else images.groups
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"{images.name} {images.split} is one group and can't be parted", fix="give a larger split")
    count = min(max(round(fraction * len(names)), 1), len(names) - 1)
    chosen = np.zeros(len(names), bool)
    chosen[permutation(len(names), STREAMS["held_out"])[:count]] = True
    held = chosen[group]
    return np.flatnonzero(~held).astype(np.int32), np.flatnonzero(held).astype(np.int32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pairing:
    """Tables from which `draw_partner` draws: the members, sorted so that those with equal shared factors lie together.

    order: int32 [M], members by (shared factors, clip).
    place: int32 [N], where each example of the set lies in `order`; -1 for one that is not a member.
    start, end: int32 [M], by place: the range of members with the same shared factors.
    skip, resume: int32 [M], by place: the range within it that is not drawn.
    """

    order: Int[Array, " M"]
    place: Int[Array, " N"]
    start: Int[Array, " M"]
    end: Int[Array, " M"]
    skip: Int[Array, " M"]
    resume: Int[Array, " M"]


def make_pairing(images: ImageSet, members: Ints, shared: Sequence[str], partner: str | None = None) -> Pairing:
    """Tables for pairs among `members` that share all the factors `shared`, and by intent no other; or for those that
    the set has chosen.

    Frames of one clip share every factor that the clip keeps, so a partner comes from another clip, where `clip` is not
    itself shared and there is another clip to draw from. With shared=() everything is its own partner.

    Args:
      members: int [M], distinct indices into `images`.
      partner: a word of `images.partners`, under which every example has its one partner; not with `shared`.
    Raises:
      UserError for a factor or a partner that the set has not, naming the nearest, or for both at once.
    """
    members = np.asarray(members, np.int32)
    if partner is not None:
        if shared:
            what = f"data.partner is {partner!r} and data.shared {', '.join(shared)}: two ways to the second image"
            raise UserError(what, fix="give --config.data.shared='()', or partner=None")
        return pair_with_fixed_partners(images, members, partner)
    groups, clips = number_groups(images, members, shared)
    order = np.lexsort((members, clips, groups))
    groups, clips = groups[order], clips[order]
    start, end = find_runs(groups)
    skip, resume = find_runs(groups, clips)
    alone = (skip == start) & (resume == end)  # no other clip: only the example itself is left out
    here = np.arange(len(members))
    skip, resume = np.where(alone, here, skip), np.where(alone, here + 1, resume)
    place = np.full(len(images), -1)
    place[members[order]] = here
    return Pairing(*(jnp.asarray(x, jnp.int32) for x in (members[order], place, start, end, skip, resume)))


def pair_with_fixed_partners(images: ImageSet, members: Ints, word: str) -> Pairing:
    """Tables from which every draw for an example gives the one partner that the set has for it under `word`."""
    if not images.partners:
        raise UserError(f"{images.name} has no partners to choose from",
                        fix="give --config.data.name=pairs:FOLDER, made by python -m mi_contrast.pairs")  # fmt: skip
    if word not in images.partners:
        raise unknown(f"partner of {images.name}", word, images.partners)
    place = np.full(len(images), -1)
    place[members] = np.arange(len(members))
    start = place[np.asarray(images.partners[word])[members]]
    if (start < 0).any():
        said = f"the partner of example {members[start < 0][0]} of {images.name} {images.split} is not trained on"
        raise UserError(said, fix="a pair set's partners are of one clip; make it anew")
    return Pairing(*(jnp.asarray(x, jnp.int32) for x in (members, place, start, start + 1, start, start)))


def draw_partner(pairing: Pairing, index: Int[Array, ""], key: Key[Array, ""]) -> Int[Array, ""]:
    """The second example of a pair: uniform over the members that `make_pairing` allows; itself where there is none.

    Args:
      index: int32 scalar, a member; vmap for a batch. key: of this example alone.
    Returns:
      int32 scalar. Pure: may be jitted and vmapped.
    """
    here = pairing.place[index]
    start, end, skip, resume = (x[here] for x in (pairing.start, pairing.end, pairing.skip, pairing.resume))
    free = (end - start) - (resume - skip)
    drawn = start + jax.random.randint(key, (), 0, jnp.maximum(free, 1))
    drawn = jnp.where(drawn >= skip, drawn + resume - skip, drawn)
    return pairing.order[jnp.where(free > 0, drawn, here)]


def make_distinct_pairs(
    images: ImageSet, members: Ints, count: int, shared: Sequence[str], seed: int
) -> Int[np.ndarray, "P V"]:
    """`count` fixed pairs of members that share the factors `shared`: no example is anchor twice, none partner twice.

    Within each set of members with equal shared factors, ordered at random but clip by clip, partners are the anchors
    shifted in a circle, far enough to land in another clip wherever that is possible.

    Args:
      seed: of these pairs; not the run's.
    Returns:
      int32 [count, 1] where shared is (), else [count, 2].
    Raises:
      UserError where there are fewer pairs than `count`: a member without a partner makes none.
    """
    members = np.asarray(members, np.int32)
    stream = STREAMS["held_out"], seed
    pairs = members[:, None] if not shared else pair_by_rotation(images, members, shared, stream)
    if count > len(pairs):
        what = f"{images.name} {images.split} has {len(pairs)} distinct pairs among {len(members)} held-out examples"
        raise UserError(f"{what}, not {count}", fix="ask for fewer pairs or share fewer factors")
    return pairs[permutation(len(pairs), *stream, 0)[:count]]


def pair_by_rotation(images: ImageSet, members: Ints, shared: Sequence[str], stream: tuple[int, ...]) -> Ints:
    """[pairs, 2]: every member that has a partner, with the one it lands on when its group is shifted in a circle."""
    groups, clips = number_groups(images, members, shared)
    first, second = random_bits(2 * len(members), *stream, 1).reshape(2, -1)
    order = np.lexsort((first, clips, groups))
    anchors, groups, clips, first = members[order], groups[order], clips[order], first[order]
    start, end = find_runs(groups)
    own, other = find_runs(groups, clips)
    size, longest = end - start, np.zeros(len(members), np.int64)
    np.maximum.at(longest, start, other - own)  # the longest clip of each group, noted at the group's first place
    longest = longest[start]
    near = np.maximum(np.minimum(longest, size - longest), 1)
    far = np.minimum(np.maximum(longest, size - longest), size - 1)
    shift = near + (second[start] % np.maximum(far - near + 1, 1).astype(np.uint64)).astype(np.int64)
    # Where every shift leaves the clip, each clip's partners come in an order of their own: (a, b) is not also (b, a).
    partners = anchors[np.lexsort((np.where(2 * longest <= size, second, first), clips, groups))]
    lands = start + (np.arange(len(members)) - start + shift) % size
    return np.stack([anchors, partners[lands]], axis=1)[size > 1]


def number_groups(images: ImageSet, members: Ints, shared: Sequence[str]) -> tuple[Ints, Ints]:
    """For each member, a number of its shared factors and one of its clip; examples without clips are a clip each."""
    for name in shared:
        if not images.factors:
            raise UserError(f"{images.name} has no factor {name!r} to share", fix="give --config.data.shared='()'")
        if name not in images.factors:
            raise unknown(f"factor of {images.name}", name, images.factors)
    columns = [images.factors[name][members] for name in shared] or [members]
    _, groups = np.unique(np.stack(columns), axis=1, return_inverse=True)
    apart = CLIP in images.factors and CLIP not in shared
    return groups.reshape(-1), images.factors[CLIP][members] if apart else members


def find_runs(*keys: Ints) -> tuple[Ints, Ints]:
    """For every place of sorted keys, where the run of equal keys around it starts and ends."""
    new = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.concatenate([[0], np.flatnonzero(new) + 1])
    lengths = np.diff(np.concatenate([starts, [len(keys[0])]]))
    return np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)
