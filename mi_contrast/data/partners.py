"""Other partners than the twin, to compare with it, and how often a partner lies on the same object.

A twin is mostly near, and what is near is mostly of one object.
So a twin is compared with patches at *its* distance, not with patches anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

RING = 6  # patches that stand for those at a distance
DRAWS = 2000  # of clips, for an interval
COMPARED_WORDS = ("at_twin", "near", "any")  # what twins are held against

Places = Int[np.ndarray, " P"]


def choose_controls(
    centres: Int[np.ndarray, "P 2"],
    patches: UInt8[np.ndarray, "P S S 3"],
    may: Bool[np.ndarray, "P P"],
    draw: np.random.Generator,
) -> dict[str, Places]:
    """Partners of each patch of a clip among those it `may` have: drawn evenly (random), nearest in space (near), of
    least mean squared difference of pixels, each patch's mean colour removed (alike). int32 [P]; a patch's own place
    where it may have none. Of equally good ones the first.
    """
    pixels = patches.reshape(len(patches), -1, 3).astype(np.float64)
    pixels = (pixels - pixels.mean(axis=1, keepdims=True)).reshape(len(patches), -1)
    squares = (pixels**2).sum(axis=1)
    unlike = squares[:, None] + squares - 2 * pixels @ pixels.T
    return {
        "random": argmin_allowed(draw.random((len(patches), len(patches))), may),
        "near": argmin_allowed(compute_distances(centres), may),
        "alike": argmin_allowed(unlike, may),
    }


def compute_distances(centres: Int[np.ndarray, "P 2"]) -> Float[np.ndarray, "P P"]:
    """Pixels between the centres of every two patches."""
    return np.hypot(*(centres[:, None].astype(np.float64) - centres).transpose(2, 0, 1))


def argmin_allowed(costs: Float[np.ndarray, "P P"], may: Bool[np.ndarray, "P P"]) -> Places:
    """Of each row the place of the least cost among those that it may have; its own where there is none.

    >>> argmin_allowed(np.array([[0.0, 2.0, 1.0], [2.0, 0.0, 3.0], [1.0, 3.0, 0.0]]), np.eye(3)[[1, 0, 2]] > 0).tolist()
    [1, 0, 2]
    """
    costs = np.where(may, costs, np.inf)
    found = np.argmin(costs, axis=1)
    return np.where(np.isfinite(costs.min(axis=1)), found, np.arange(len(may))).astype(np.int32)


def find_eligible(
    places: Int[np.ndarray, "P 2"] | Float[np.ndarray, "P 2"], where: Bool[np.ndarray, " P"], apart: int
) -> Bool[np.ndarray, "P P"]:
    """Which patch may be whose partner: two different ones of `where`, at least `apart` pixels apart across or down, so
    that patches of that side share no pixel.

    >>> find_eligible(np.array([[0, 0], [0, 4], [8, 0]]), np.ones(3, bool), 8).sum(axis=1).tolist()
    [1, 1, 2]
    """
    off = np.abs(places[:, None] - places).max(axis=-1)
    return where & where[:, None] & ~np.eye(len(where), dtype=bool) & (off >= apart)


def same_object_shares(
    of: Int[np.ndarray, " P"],
    centres: Int[np.ndarray, "P 2"],
    may: Bool[np.ndarray, "P P"],
    partner: Mapping[str, Places],
) -> dict[str, Float[np.ndarray, " P"]]:
    """For each patch of a clip and each word, whether its partner is of the same object: 0, 1, or a share of several.

    Beside the words of `partner`: 'at_<word>', the share among the patches whose distance is nearest that of the word's
    partner (6 of them, the partner left out), and 'any', the share among all it may have. NaN where there is none.

    Args:
      of: the object of each patch; may: `find_eligible`; partner: word to places, a patch's own where it has none.
    """
    apart = compute_distances(centres)
    same = (of == of[:, None]).astype(np.float64)
    own = np.arange(len(of))
    found = {"any": _mean(same, may)}
    for word, places in partner.items():
        has = may[own, places]
        found[word] = np.where(has, same[own, places], np.nan)
        off = np.where(may & (own != places[:, None]), np.abs(apart - apart[own, places][:, None]), np.inf)
        edge = np.sort(off, axis=1)[:, min(RING, len(of)) - 1 : min(RING, len(of))]
        found[f"at_{word}"] = np.where(has, _mean(same, np.isfinite(off) & (off <= edge)), np.nan)
    return found


def _mean(values: Float[np.ndarray, "P P"], chosen: Bool[np.ndarray, "P P"]) -> Float[np.ndarray, " P"]:
    number = chosen.sum(axis=1)
    return np.where(number > 0, (values * chosen).sum(axis=1) / np.maximum(number, 1), np.nan)


def summarise_shares(
    of_words: Mapping[str, Float[np.ndarray, " N"]],
    on_object: Bool[np.ndarray, " N"],
    accepted: Bool[np.ndarray, " N"],
    clip: Int[np.ndarray, " N"],
) -> dict[str, Any]:
    """Mean shares of all patches of all clips that have a twin, of those on an object, of those whose twin was
    accepted, and of both: {group: {'patches': n, word: share, 'over': {word: (difference, low, high)}}}, where 'over'
    holds the twins' share less that of at_twin, near and any, with its interval over clips (see `bootstrap_interval`).
    """
    there = ~np.isnan(of_words["twin"])
    groups = {
        "all": there,
        "on_object": there & on_object,
        "accepted": there & accepted,
        "accepted_on_object": there & accepted & on_object,
    }
    return {
        group: {
            "patches": int(chosen.sum()),
            **{w: round(float(np.nanmean(v[chosen])), 4) for w, v in of_words.items() if not np.isnan(v[chosen]).all()},
            "over": {
                word: bootstrap_interval((of_words["twin"] - of_words[word])[chosen], clip[chosen])
                for word in COMPARED_WORDS
                if word in of_words and not np.isnan(of_words[word][chosen]).all()
            },
        }
        for group, chosen in groups.items()
    }


def bootstrap_interval(values: Float[np.ndarray, " N"], clip: Int[np.ndarray, " N"]) -> tuple[float, float, float]:
    """The mean of values that are not NaN, and its 2.5 and 97.5 % quantiles where whole clips are drawn anew, since the
    patches of one clip are not independent (the percentile bootstrap by cluster; Efron and Tibshirani 1993).

    >>> bootstrap_interval(np.array([0.0, 1.0, 0.5]), np.array([7, 7, 7]))  # one clip tells nothing of others
    (0.5, 0.5, 0.5)
    """
    known = ~np.isnan(values)
    _, place = np.unique(clip[known], return_inverse=True)
    sums, counts = np.bincount(place, values[known]), np.bincount(place)
    drawn = np.random.default_rng(0).multinomial(len(counts), np.full(len(counts), 1 / len(counts)), DRAWS)
    low, high = np.quantile(drawn @ sums / (drawn @ counts), (0.025, 0.975))
    return tuple(round(float(x), 4) for x in (sums.sum() / counts.sum(), low, high))  # type: ignore[return-value]
