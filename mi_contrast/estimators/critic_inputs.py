"""Fits the coordinates in which a trained critic sees samples: canonical pairs, and inputs of its network."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mi_contrast.estimators.critics import Side, canonical_pairs, gaussian, normal_scores
from mi_contrast.estimators.matrices import matrix_info_nce

MIN_CORRELATION = 0.05  # canonical pairs above this correlation are inputs of the network
BUCKET = 8  # numbers of inputs are padded to a multiple of this, so that similar dimensions share a compiled program


class CriticInputs(NamedTuple):
    """The inputs of one part's critic, for all samples.

    Attributes:
      x, y: canonical coordinates and network inputs of each variable.
      correlations: of the canonical pairs.
      copula: canonical pairs u, v of the normal scores and their correlations, the Gaussian copula's critic.
    """

    x: Side
    y: Side
    correlations: np.ndarray
    copula: tuple[np.ndarray, np.ndarray, np.ndarray]


def make_inputs(x: np.ndarray, y: np.ndarray, train: np.ndarray, validation: np.ndarray) -> CriticInputs:
    """Fits coordinates and canonical directions to the training samples, and applies them to all samples.

    Four choices of coordinates are compared by InfoNCE of their Gaussian critic on the validation samples. This is a
    small computation, done in float64 on the host.
    """
    (standard_x, normal_x, inputs_x), (standard_y, normal_y, inputs_y) = _coordinates(x, train), _coordinates(y, train)
    best_value, best = -np.inf, None
    for coordinates_x, coordinates_y in ((standard_x, standard_y), (normal_x, normal_y)):
        for with_radius in (False, True):
            u, v = (_append_radius(z, train) if with_radius else z for z in (coordinates_x, coordinates_y))
            directions_u, directions_v, correlations = canonical_pairs(u[train], v[train])
            u, v = (u - u[train].mean(axis=0)) @ directions_u, (v - v[train].mean(axis=0)) @ directions_v
            u, v, correlations = _pad_to_bucket(u), _pad_to_bucket(v), _pad_to_bucket(correlations)
            value = float(_gaussian_info_nce(u[validation], v[validation], correlations))
            if coordinates_x is normal_x and not with_radius:
                copula = u, v, correlations
            if best is None or value > best_value:
                best_value, best = value, (u, v, correlations)
    assert best is not None
    u, v, correlations = best
    # Correlated canonical pairs are inputs of the network too: in many dimensions it would not find these few
    # directions by itself.
    is_correlated, count = correlations > MIN_CORRELATION, min(x.shape[1], y.shape[1])
    side_x, side_y = (
        Side(
            jnp.asarray(pairs),
            jnp.asarray(_pad_to_bucket(np.concatenate([inputs, pairs[:, :count] * is_correlated[:count]], axis=1))),
        )
        for pairs, inputs in ((u, inputs_x), (v, inputs_y))
    )
    return CriticInputs(side_x, side_y, correlations, copula)


@jax.jit
def _gaussian_info_nce(u: Array, v: Array, correlations: Array) -> Array:
    return matrix_info_nce(gaussian(u, v, correlations))


def _coordinates(values: np.ndarray, train: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns standardised values, normal scores and the inputs of a network, fitted to the training samples.

    The inputs are three radii, the normal scores, and robustly scaled values with compressed tails. The d coordinates
    are divided by sqrt(d), so that together they have the variance of one input and do not drown the radii.
    """
    train_values = values[train]
    standard = (values - train_values.mean(axis=0)) / np.maximum(train_values.std(axis=0), 1e-12)
    normal = normal_scores(train_values, values)
    low, median, high = np.quantile(train_values, (0.16, 0.5, 0.84), axis=0)
    robust = (values - median) / np.maximum((high - low) / 2, 1e-12)
    mean_square = lambda z: np.mean(z**2, axis=1, keepdims=True)  # noqa: E731
    radii = (
        np.log(mean_square(normal) + 0.05),
        np.log(mean_square(robust) + 0.05),
        np.minimum(mean_square(robust), 9.0),
    )
    inputs = np.concatenate([*radii, normal, np.arcsinh(robust)], axis=1)
    inputs = (inputs - inputs[train].mean(axis=0)) / np.maximum(inputs[train].std(axis=0), 1e-6)
    inputs[:, len(radii) :] /= np.sqrt(values.shape[1])
    return standard, normal, inputs


def _append_radius(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Appends the normal score of the squared radius, so that a common scale of x and y becomes a correlation."""
    square = np.sum(values**2, axis=1, keepdims=True)
    return np.concatenate([values, normal_scores(square[train], square)], axis=1)


def _pad_to_bucket(values: np.ndarray) -> np.ndarray:
    """Pads the last axis with zeros to a multiple of BUCKET."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, -values.shape[-1] % BUCKET)])
