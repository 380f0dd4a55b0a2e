"""Counts similarities of held-out pairs: of positives, of negatives with the anchor's class, and of other negatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mi_contrast.core.schedules import Progress
from mi_contrast.estimators.percentiles import millionths, rank
from mi_contrast.methods import words

BINS = 64  # of equal width, from cosine -1 to cosine 1
EDGES = np.linspace(-1.0, 1.0, BINS + 1)


def count_similarities(
    cosines: Float[np.ndarray, "P P"], anchor_labels: Int[np.ndarray, " P"], other_labels: Int[np.ndarray, " P"]
) -> dict[str, list[int]]:
    """Returns how many similarities lie in each of `BINS` bins, for positives and for two kinds of negatives.

    Args:
      cosines: entry (i, j) is the similarity of anchor i with the second view of pair j; (i, i) is a positive.
      anchor_labels, other_labels: the classes of the anchors and of the second views; -1 where they are unknown.
    Returns:
      counts by name: 'positive', and 'same_class' and 'other_class'; without any label 'negative' instead of the two.
    """
    off_diagonal = ~np.eye(len(cosines), dtype=bool)
    groups = {"positive": ~off_diagonal}
    known = (anchor_labels >= 0)[:, None] & (other_labels >= 0)[None, :]
    if known.any():
        same = known & (anchor_labels[:, None] == other_labels[None, :])
        groups |= {"same_class": off_diagonal & same, "other_class": off_diagonal & ~same}
    else:
        groups["negative"] = off_diagonal
    clipped = np.clip(cosines, -1.0, 1.0)
    return {name: np.histogram(clipped[mask], EDGES)[0].tolist() for name, mask in groups.items()}


def find_ring(cosines: Float[np.ndarray, "P P"], support: Mapping[str, Any], t: Progress) -> dict[str, float] | None:
    """Returns where a support's band of percentiles lies among the negatives of each anchor.

    Args:
      cosines: as in `count_similarities`.
      support: of a term, plain data.
      t: the progress at which its percentiles are read.
    Returns:
      'lower' and 'upper', the percentiles; 'from' and 'to', the least and the greatest similarity inside the band, each
      a mean over anchors. None if the support has no percentiles, or if there are too few negatives for the band.
    """
    percentiles = {name: float(value) for name, value in words.read_percentiles(support, t).items()}
    if not percentiles:
        return None
    lower, upper = percentiles.get("lower", 0.0), percentiles.get("upper", 1.0)
    count = len(cosines) - 1
    first, end = (int(rank(millionths(edge), count)) for edge in (lower, upper))
    if first >= end:
        return None
    negatives = np.sort(cosines[~np.eye(len(cosines), dtype=bool)].reshape(len(cosines), count), axis=1)
    inside = {"from": float(negatives[:, first].mean()), "to": float(negatives[:, end - 1].mean())}
    return {"lower": lower, "upper": upper, **inside}
