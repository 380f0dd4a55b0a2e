"""Control partners to compare twins with, and how often a patch and its partner lie on the same object.

A twin (the partner with the most mutual information) is usually close by, and patches that are close are usually on the
same object anyway. A twin is therefore compared with patches at the same distance, not only with patches anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

RING = 6  # number of patches that represent those at a distance
DRAWS = 2000  # bootstrap samples of clips for an interval
COMPARED_WORDS = ("at_twin", "near", "any")  # what twins are compared with

Places = Int[np.ndarray, " P"]


def choose_controls(
    centres: Int[np.ndarray, "P 2"],
    patches: UInt8[np.ndarray, "P S S 3"],
    allowed: Bool[np.ndarray, "P P"],
    generator: np.random.Generator,
) -> dict[str, Places]:
    """Chooses control partners for each patch of a clip, among the partners that `allowed` has for it.

    - random: drawn uniformly.
    - near: the nearest in space.
    - alike: the one with the least squared difference of pixels, after each patch's mean colour is subtracted.

    Of equally good partners the first is chosen.

    Returns:
      int32 [P] by word, indices in the clip. A patch without an allowed partner has its own index.
    """
    pixels = patches.reshape(len(patches), -1, 3).astype(np.float64)
    pixels = (pixels - pixels.mean(axis=1, keepdims=True)).reshape(len(patches), -1)
    squares = (pixels**2).sum(axis=1)
    differences = squares[:, None] + squares - 2 * pixels @ pixels.T
    return {
        "random": argmin_allowed(generator.random((len(patches), len(patches))), allowed),
        "near": argmin_allowed(compute_distances(centres), allowed),
        "alike": argmin_allowed(differences, allowed),
    }


def compute_distances(centres: Int[np.ndarray, "P 2"]) -> Float[np.ndarray, "P P"]:
    """Returns the distance between the centres of every two patches, in pixels."""
    return np.hypot(*(centres[:, None].astype(np.float64) - centres).transpose(2, 0, 1))


def argmin_allowed(costs: Float[np.ndarray, "P P"], allowed: Bool[np.ndarray, "P P"]) -> Places:
    """Returns, for each row, the index of the least cost among the allowed ones, or the row's own index without any.

    >>> argmin_allowed(np.array([[0.0, 2.0, 1.0], [2.0, 0.0, 3.0], [1.0, 3.0, 0.0]]), np.eye(3)[[1, 0, 2]] > 0).tolist()
    [1, 0, 2]
    """
    costs = np.where(allowed, costs, np.inf)
    best = np.argmin(costs, axis=1)
    return np.where(np.isfinite(costs.min(axis=1)), best, np.arange(len(allowed))).astype(np.int32)


def find_eligible(
    places: Int[np.ndarray, "P 2"] | Float[np.ndarray, "P 2"], usable: Bool[np.ndarray, " P"], apart: int
) -> Bool[np.ndarray, "P P"]:
    """Returns which patches can be partners: two different, usable ones, at least `apart` pixels apart in x or in y.

    If `apart` is the side of a patch, partners then have no pixel in common.

    >>> find_eligible(np.array([[0, 0], [0, 4], [8, 0]]), np.ones(3, bool), 8).sum(axis=1).tolist()
    [1, 1, 2]
    """
    offsets = np.abs(places[:, None] - places).max(axis=-1)
    return usable & usable[:, None] & ~np.eye(len(usable), dtype=bool) & (offsets >= apart)


def same_object_shares(
    objects: Int[np.ndarray, " P"],
    centres: Int[np.ndarray, "P 2"],
    allowed: Bool[np.ndarray, "P P"],
    partners: Mapping[str, Places],
) -> dict[str, Float[np.ndarray, " P"]]:
    """Returns, for each patch of a clip and each word, whether its partner is on the same object (0 or 1).

    Two kinds of words are added, with shares in [0, 1]:

    - 'at_<word>': the share on the same object among the 6 allowed patches whose distance is closest to that of the
      word's partner, without the partner itself.
    - 'any': the share among all allowed partners.

    Patches without a partner have NaN.

    Args:
      objects: the object that each patch is on.
      centres: row and column of each patch.
      allowed: result of `find_eligible`.
      partners: int32 [P] by word, the index of each patch's partner, or its own index if it has none.
    """
    distances = compute_distances(centres)
    same = (objects == objects[:, None]).astype(np.float64)
    own = np.arange(len(objects))
    shares = {"any": _mean(same, allowed)}
    for word, places in partners.items():
        has_partner = allowed[own, places]
        shares[word] = np.where(has_partner, same[own, places], np.nan)
        gaps = np.abs(distances - distances[own, places][:, None])
        gaps = np.where(allowed & (own != places[:, None]), gaps, np.inf)
        largest = np.sort(gaps, axis=1)[:, min(RING, len(objects)) - 1 : min(RING, len(objects))]
        ring = np.isfinite(gaps) & (gaps <= largest)
        shares[f"at_{word}"] = np.where(has_partner, _mean(same, ring), np.nan)
    return shares


def _mean(values: Float[np.ndarray, "P P"], mask: Bool[np.ndarray, "P P"]) -> Float[np.ndarray, " P"]:
    count = mask.sum(axis=1)
    return np.where(count > 0, (values * mask).sum(axis=1) / np.maximum(count, 1), np.nan)


def summarise_shares(
    shares: Mapping[str, Float[np.ndarray, " N"]],
    on_object: Bool[np.ndarray, " N"],
    accepted: Bool[np.ndarray, " N"],
    clip: Int[np.ndarray, " N"],
) -> dict[str, Any]:
    """Averages the shares of `same_object_shares` over the patches of all clips that have a twin.

    Returns {group: {'patches': n, word: mean share, 'over': {word: (difference, low, high)}}}. The groups are all
    patches, those on an object, those whose twin was accepted, and those with both. 'over' has the twins' share minus
    that of at_twin, near and any, with its interval over clips (see `bootstrap_interval`).
    """
    has_twin = ~np.isnan(shares["twin"])
    groups = {
        "all": has_twin,
        "on_object": has_twin & on_object,
        "accepted": has_twin & accepted,
        "accepted_on_object": has_twin & accepted & on_object,
    }
    return {
        group: {
            "patches": int(mask.sum()),
            **{w: round(float(np.nanmean(v[mask])), 4) for w, v in shares.items() if not np.isnan(v[mask]).all()},
            "over": {
                word: bootstrap_interval((shares["twin"] - shares[word])[mask], clip[mask])
                for word in COMPARED_WORDS
                if word in shares and not np.isnan(shares[word][mask]).all()
            },
        }
        for group, mask in groups.items()
    }


def bootstrap_interval(values: Float[np.ndarray, " N"], clip: Int[np.ndarray, " N"]) -> tuple[float, float, float]:
    """Returns the mean of the values, and its 2.5 % and 97.5 % quantiles over bootstrap samples of clips.

    Whole clips are resampled, because the patches of a clip are not independent. NaN is left out.

    Source: the percentile bootstrap by cluster, Efron and Tibshirani 1993.

    >>> bootstrap_interval(np.array([0.0, 1.0, 0.5]), np.array([7, 7, 7]))  # with one clip, the interval is a point
    (0.5, 0.5, 0.5)
    """
    is_known = ~np.isnan(values)
    _, place = np.unique(clip[is_known], return_inverse=True)
    sums, counts = np.bincount(place, values[is_known]), np.bincount(place)
    weights = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), DRAWS)
    low, high = np.quantile(weights @ sums / (weights @ counts), (0.025, 0.975))
    return tuple(round(float(x), 4) for x in (sums.sum() / counts.sum(), low, high))  # type: ignore[return-value]
