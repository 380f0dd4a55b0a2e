"""Pictures of what a run sees: pairs of views, drawn once, before the first step."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from mi_contrast.core import keys as random
from mi_contrast.data.pairing import distinct_pairs
from mi_contrast.training.assemble import Job
from mi_contrast.views.policies import unnormalise

COLUMNS, CELL = 12, 96  # pairs in the picture; pixels of a cell's side


def draw_pairs(path: Path, job: Job) -> None:
    """Writes a PNG of held-out pairs, a column each: the source of either view, and below it the view."""
    columns = min(COLUMNS, len(job.held) // 2)
    index = distinct_pairs(job.images, job.held, columns, job.shared, seed=0)
    sources = np.stack([job.images.images(column) for column in index.T], axis=1)
    keys = jax.random.split(random.stream(jax.random.key(job.parts.seed), "views"), columns)
    views = jax.jit(lambda s, k: job.parts.views(s, k))(jnp.asarray(sources), keys)
    rows = []
    for name, source in job.parts.row.source.items():
        shown = unnormalise(views[name], job.parts.views.mean, job.parts.views.std)
        rows += [sources[:, source], shown]
    lines = [np.concatenate([_cell(image) for image in row], axis=1) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(lines, axis=0)).save(path)


def _cell(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.NEAREST))
