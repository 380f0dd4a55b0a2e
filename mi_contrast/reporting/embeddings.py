"""Places features on a plane: by PCA, t-SNE or UMAP."""

from __future__ import annotations

import importlib

import numpy as np
from jaxtyping import Float
from threadpoolctl import threadpool_limits

from mi_contrast.core.errors import UserError

ITERATIONS = 350  # of t-SNE, which moves a few hundred points little after that; a second on one core
LEAST = 8  # images for which t-SNE and UMAP are of use


def embed(components: Float[np.ndarray, "M C"], method: str, seed: int = 0) -> Float[np.ndarray, "M 2"]:
    """Returns a place on a plane for each row, float32.

    Args:
      components: principal components of the features, the largest first.
      method: 'pca' takes the first two; 'tsne' is scikit-learn's and 'umap' umap-learn's, of all components.
      seed: of tsne and umap.
    Raises:
      UserError: umap-learn is missing, or there are too few rows.
    """
    if len(components) < 4 or components.shape[1] < 2:
        raise UserError(f"{len(components)} images are too few for a map", fix="train on more images")
    if method == "pca" or not np.ptp(components, axis=0).any():  # all images are alike: no method tells them apart
        return components[:, :2]
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(components) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", random_state=seed, max_iter=ITERATIONS)
        with threadpool_limits(1):  # a few hundred points: threads that wait for each other take longer than one
            return np.asarray(tsne.fit_transform(components.astype(np.float32)), np.float32)
    try:
        umap = importlib.import_module("umap")
    except ImportError:
        raise UserError("umap-learn is not installed", fix="pip install umap-learn, or take method='tsne'") from None
    neighbours = min(15, len(components) - 1)
    return np.asarray(
        umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(components), np.float32
    )
