"""Nats between two views as read from fixed features: several estimators on the same pairs, none of them trained."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mi_contrast import estimators as mi
from mi_contrast.data.order import permutation
from mi_contrast.readout.knn import unit

TEMPERATURES = (0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
BLOCK = 128  # pairs a matrix for the estimates that need batches
DIRECTIONS = 4  # of the features that the neighbour estimate reads
CLIP = 5.0

Views = Float[np.ndarray, "N F"]


def estimates(first: Views, second: Views, *, seed: int = 0) -> dict[str, dict[str, Any]]:
    """{estimator: nats, standard_error, ceiling (None where none), what}: of pairs of features of two views.

    The critic is f = s cos(x, y) + b of features centred by their mean. Its s, and for all but InfoNCE the b that makes
    mean_{i != j} e^f 1, come from half of the pairs; every number is of the other half, N of them. So InfoNCE and NWJ
    are, in the mean, lower bounds on the nats between the views, low where cosines say little; SMILE, clipped, is
    neither; KSG reads the first 4 principal directions of both views alone and knows nothing of the rest.

    Args:
      first, second: float [M, F], rows that belong together; M >= 4.
    """
    order = permutation(len(first), 1, seed)
    half = len(first) // 2
    fit, read = order[:half], order[half:]
    centre = np.concatenate([first[fit], second[fit]]).mean(axis=0)
    x, y = (unit(view - centre) for view in (first, second))
    block = min(BLOCK, half, len(read))
    batches = np.stack([fit[i : i + block] for i in range(0, half - block + 1, block)])
    held = np.stack([read[i : i + block] for i in range(0, len(read) - block + 1, block)])

    def cosines(rows: np.ndarray) -> Array:
        return jnp.einsum("bif,bjf->bij", x[rows], y[rows], precision="highest")

    whole = jnp.matmul(x[fit], y[fit].T, precision="highest"), jnp.matmul(x[read], y[read].T, precision="highest")
    bounds = {scale: float(jnp.mean(row_nats(whole[0] * scale))) for scale in (1 / t for t in TEMPERATURES)}
    best = max(bounds, key=bounds.__getitem__)
    nats = np.asarray(row_nats(whole[1] * best), np.float64)
    found = {
        "info_nce": told(
            nats.mean(),
            spread(nats),
            math.log(len(read)),
            f"a lower bound; cos / {1 / best:.2f}, {len(read) - 1} negatives",
        )
    }
    off = ~np.eye(block, dtype=bool)

    def level(scale: float) -> float:
        """The b with which e^(scale cos + b) has mean 1 over crossed pairs of the fitting half."""
        crossed = np.asarray(cosines(batches), np.float64)[:, off] * scale
        return -float(np.log(np.mean(np.exp(crossed - crossed.max()))) + crossed.max())

    scales = {scale: float(jnp.mean(mi.nwj(cosines(batches) * scale + 1 + level(scale)))) for scale in bounds}
    scale = max(scales, key=scales.__getitem__)
    each = np.asarray(mi.nwj(cosines(held) * scale + 1 + level(scale)), np.float64)
    found["nwj"] = told(each.mean(), spread(each), None, f"a lower bound; cos / {1 / scale:.2f}, batches of {block}")
    each = np.asarray(mi.smile(cosines(held) * scale + level(scale), CLIP), np.float64)
    found["smile"] = told(each.mean(), spread(each), None, f"no bound; the same critic, clipped at {CLIP:g}")
    found["ksg"] = nearest_neighbours(x, y, fit, read)
    return found


@jax.jit
def row_nats(scores: Float[Array, "N N"]) -> Float[Array, " N"]:
    """InfoNCE of every row against all the others' positives."""
    count = len(scores)
    pool = jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, scores)
    return mi.info_nce(jnp.diagonal(scores), pool)


def nearest_neighbours(x: Array, y: Array, fit: np.ndarray, read: np.ndarray) -> dict[str, Any]:
    """KSG of the first principal directions of both views together, found on the fitting half."""
    both = np.concatenate([np.asarray(x)[fit], np.asarray(y)[fit]])
    _, _, directions = np.linalg.svd(both - both.mean(axis=0), full_matrices=False)
    seen = directions[: min(DIRECTIONS, len(directions))].T
    found = mi.ksg(np.asarray(x)[read] @ seen, np.asarray(y)[read] @ seen, k=3)
    what = f"neither bound; {seen.shape[1]} principal directions of each view, k 3"
    return told(float(found.nats), float(found.standard_error), float(found.ceiling), what)


def spread(values: np.ndarray) -> float:
    """The standard error of the mean, of independent values; NaN of one alone."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def told(nats: float, error: float, ceiling: float | None, what: str) -> dict[str, Any]:
    """An estimate as plain data; what is not known is None."""
    known = {"nats": float(nats), "standard_error": float(error)}
    return {name: v if math.isfinite(v) else None for name, v in known.items()} | {"ceiling": ceiling, "what": what}
