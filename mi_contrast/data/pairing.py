"""Chooses the second example of each pair, and the examples that are held out of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.rngs import STREAMS
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.order import permutation, random_bits

CLIP = "clip"  # the factor that frames of one recording share, together with all that is constant in it


def split_held_out(images: ImageSet, fraction: float = 1 / 20, least: int = 1) -> tuple[Ints, Ints]:
    """Splits a set into a training part and a held-out part by whole groups. Returns sorted indices, int32.

    The held-out part has round(fraction * groups) groups, at least one and never all. It does not depend on the run's
    seed. Raises UserError if there is only one group.

    Args:
      least: examples that are held out at least, for which more groups are taken if there are others.
    """
    groups = np.arange(len(images)) if images.groups is None else images.groups
    names, group = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise UserError(f"{images.name} {images.split} is one group and can't be split", fix="give a larger split")
    count = min(max(round(fraction * len(names)), 1), len(names) - 1)
    is_held_group = np.zeros(len(names), bool)
    order = permutation(len(names), STREAMS["held_out"])
    while count < len(names) - 1 and np.isin(group, order[:count]).sum() < least:
        count += 1
    is_held_group[order[:count]] = True
    is_held = is_held_group[group]
    return np.flatnonzero(~is_held).astype(np.int32), np.flatnonzero(is_held).astype(np.int32)


def split_by_config(images: ImageSet, config: Mapping[str, Any]) -> tuple[Ints, Ints]:
    """Splits a set as `split_held_out` does, for the run of a config.

    At least config.eval.held_out examples are held out. A config from before there was this field holds out two.
    """
    return split_held_out(images, least=config.get("eval", {}).get("held_out", 2))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pairing:
    """Tables from which `draw_partner` draws. Members with equal shared factors are neighbours in `order`.

    Attributes:
      order: int32 [M], the members, sorted by (shared factors, clip).
      place: int32 [N], the position of each example of the set in `order`, or -1 if it is not a member.
      start, end: int32 [M], for each position, the range of positions with equal shared factors.
      skip, resume: int32 [M], for each position, the part of that range that is not drawn: [skip, resume).
    """

    order: Int[Array, " M"]
    place: Int[Array, " N"]
    start: Int[Array, " M"]
    end: Int[Array, " M"]
    skip: Int[Array, " M"]
    resume: Int[Array, " M"]


def make_pairing(images: ImageSet, members: Ints, shared: Sequence[str], partner: str | None = None) -> Pairing:
    """Makes the tables for pairs that share the factors `shared`, or for the partners that the set has fixed.

    Frames of one clip share more than the factors in `shared`. A partner therefore comes from another clip, unless
    'clip' is itself in `shared` or there is no other clip. With shared=(), every example is its own partner.

    Args:
      images: the set.
      members: int [M], distinct indices into `images`. Pairs are made among them.
      shared: names of factors that both examples have in common.
      partner: a key of `images.partners`. The second image of an example is its partner under that key. It can't be
        combined with `shared`.

    Raises:
      UserError: the set does not have a factor or the partner (the message names the nearest), or both are given.
    """
    members = np.asarray(members, np.int32)
    if partner is not None:
        if shared:
            what = f"data.partner and data.shared both choose the second image: {partner!r} and {', '.join(shared)}"
            raise UserError(what, fix="give --config.data.shared='()', or partner=None")
        return pair_with_fixed_partners(images, members, partner)
    groups, clips = number_groups(images, members, shared)
    order = np.lexsort((members, clips, groups))
    groups, clips = groups[order], clips[order]
    start, end = find_runs(groups)
    skip, resume = find_runs(groups, clips)
    is_only_clip = (skip == start) & (resume == end)  # then only the example itself is skipped
    positions = np.arange(len(members))
    skip = np.where(is_only_clip, positions, skip)
    resume = np.where(is_only_clip, positions + 1, resume)
    place = np.full(len(images), -1)
    place[members[order]] = positions
    return Pairing(*(jnp.asarray(x, jnp.int32) for x in (members[order], place, start, end, skip, resume)))


def pair_with_fixed_partners(images: ImageSet, members: Ints, word: str) -> Pairing:
    """Makes the tables with which `draw_partner` always returns the partner of `images.partners[word]`."""
    if not images.partners:
        raise UserError(f"{images.name} has no partners to choose from",
                        fix="give --config.data.name=pairs:FOLDER, made by python -m mi_contrast.pairs")  # fmt: skip
    if word not in images.partners:
        raise unknown(f"partner of {images.name}", word, images.partners)
    place = np.full(len(images), -1)
    place[members] = np.arange(len(members))
    start = place[np.asarray(images.partners[word])[members]]
    if (start < 0).any():
        what = f"the partner of example {members[start < 0][0]} of {images.name} {images.split}"
        what += " is not a training example"
        raise UserError(what, fix="make the pair set again: both patches of a pair must come from one clip")
    return Pairing(*(jnp.asarray(x, jnp.int32) for x in (members, place, start, start + 1, start, start)))


def draw_partner(pairing: Pairing, index: Int[Array, ""], rng: Key[Array, ""]) -> Int[Array, ""]:
    """Draws the partner of an example uniformly from those that `pairing` allows. Use vmap for a batch.

    Args:
      pairing: tables of `make_pairing`.
      index: int32 scalar, a member.
      rng: of this example.

    Returns:
      int32 scalar: the partner's index, or `index` itself if there is none.
    """
    position = pairing.place[index]
    start, end, skip, resume = (x[position] for x in (pairing.start, pairing.end, pairing.skip, pairing.resume))
    count = (end - start) - (resume - skip)
    choice = start + jax.random.randint(rng, (), 0, jnp.maximum(count, 1))
    choice = jnp.where(choice >= skip, choice + resume - skip, choice)
    return pairing.order[jnp.where(count > 0, choice, position)]


def make_distinct_pairs(
    images: ImageSet, members: Ints, count: int, shared: Sequence[str], seed: int
) -> Int[np.ndarray, "P V"]:
    """Makes `count` fixed pairs of members that share the factors `shared`, without repeated anchors or partners.

    Members with equal shared factors are put in a random order, clip by clip. The partner of an anchor is the member a
    fixed distance further on, modulo their number. The distance is large enough to reach another clip, if possible.

    Args:
      images: the set.
      members: int [M], distinct indices into `images`.
      count: number of pairs.
      shared: names of factors that both examples have in common.
      seed: determines the pairs. It is not the run's seed.

    Returns:
      int32 [count, 2], or [count, 1] if shared is ().
    Raises:
      UserError: there are fewer than `count` pairs. Members without a partner make no pair.
    """
    members = np.asarray(members, np.int32)
    stream = STREAMS["held_out"], seed
    pairs = members[:, None] if not shared else pair_by_rotation(images, members, shared, stream)
    if count > len(pairs):
        what = f"{images.name} {images.split} has {len(pairs)} distinct pairs among {len(members)} held-out examples"
        raise UserError(f"{what}, not {count}", fix="ask for fewer pairs or share fewer factors")
    return pairs[permutation(len(pairs), *stream, 0)[:count]]


def pair_by_rotation(images: ImageSet, members: Ints, shared: Sequence[str], stream: tuple[int, ...]) -> Ints:
    """Pairs every member with the member of its group that is `shift` places further on, modulo the size of the group.

    Returns int32 [pairs, 2].
    """
    groups, clips = number_groups(images, members, shared)
    first, second = random_bits(2 * len(members), *stream, 1).reshape(2, -1)
    order = np.lexsort((first, clips, groups))
    anchors, groups, clips, first = members[order], groups[order], clips[order], first[order]
    start, end = find_runs(groups)
    clip_start, clip_end = find_runs(groups, clips)
    size, longest = end - start, np.zeros(len(members), np.int64)
    np.maximum.at(longest, start, clip_end - clip_start)  # the longest clip of each group, stored at the group's start
    longest = longest[start]
    low = np.maximum(np.minimum(longest, size - longest), 1)
    high = np.minimum(np.maximum(longest, size - longest), size - 1)
    shift = low + (second[start] % np.maximum(high - low + 1, 1).astype(np.uint64)).astype(np.int64)
    # If every shift leaves the clip, partners are shuffled once more within each clip. Then (a, b) and (b, a) do not
    # both occur.
    partners = anchors[np.lexsort((np.where(2 * longest <= size, second, first), clips, groups))]
    targets = start + (np.arange(len(members)) - start + shift) % size
    return np.stack([anchors, partners[targets]], axis=1)[size > 1]


def number_groups(images: ImageSet, members: Ints, shared: Sequence[str]) -> tuple[Ints, Ints]:
    """Numbers the members' combinations of shared factors, and their clips.

    If clips don't matter, every example counts as a clip of its own.
    """
    for name in shared:
        if not images.factors:
            raise UserError(f"{images.name} has no factor {name!r} to share", fix="give --config.data.shared='()'")
        if name not in images.factors:
            raise unknown(f"factor of {images.name}", name, images.factors)
    columns = [images.factors[name][members] for name in shared] or [members]
    _, groups = np.unique(np.stack(columns), axis=1, return_inverse=True)
    avoids_own_clip = CLIP in images.factors and CLIP not in shared
    return groups.reshape(-1), images.factors[CLIP][members] if avoids_own_clip else members


def find_runs(*keys: Ints) -> tuple[Ints, Ints]:
    """Returns, for every position in sorted keys, the start and the end of the run of equal keys around it."""
    is_new = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.concatenate([[0], np.flatnonzero(is_new) + 1])
    lengths = np.diff(np.concatenate([starts, [len(keys[0])]]))
    return np.repeat(starts, lengths), np.repeat(starts + lengths, lengths)
