"""Pictures of what a run sees: pairs of views before the first step, and learned channels after the last one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from mi_contrast.core import rngs as streams
from mi_contrast.core.colour import SPACES, from_rgb
from mi_contrast.core.division import Division
from mi_contrast.core.layout import write_atomically
from mi_contrast.core.mesh import local_mesh
from mi_contrast.data.pairing import make_distinct_pairs
from mi_contrast.training.assemble import Job
from mi_contrast.training.state import State
from mi_contrast.views.policies import unnormalise

COLUMNS = 12  # pairs or images in a picture
CELL, MARGIN = 96, 80  # pixels: the side of a cell, and the width of the names of rows


def draw_pairs(path: Path, job: Job, state: State) -> None:
    """Writes a PNG of held-out pairs. A column is a pair: the source image of each view and, below it, the view."""
    columns = min(COLUMNS, len(job.held_out_ids) // 2)
    index = make_distinct_pairs(job.images, job.held_out_ids, columns, job.data["shared"], seed=0)
    if (partner := job.data["partner"]) is not None:
        index = np.stack([index[:, 0], job.images.partners[partner][index[:, 0]]], axis=1)
    sources = np.stack([job.images.images(column) for column in index.T], axis=1)
    rngs = jax.random.split(streams.stream_rng(jax.random.key(job.parts.seed), "views"), columns)
    own_views = replace(job.parts.augmentation, mesh=local_mesh())
    make_views = jax.jit(lambda sources, rngs, generator: own_views(sources, rngs, generator))
    views = make_views(jnp.asarray(sources), rngs, state.generator.get("params"))
    rows, split = [], job.parts.tower.split
    for name, source in job.parts.method.source_index.items():
        view = np.asarray(views[name])
        if split is not None and split.generator is not None:
            pixels = false_colours(name, view, split)
        else:
            pixels = unnormalise_in(
                as_rgb(name, view, split), job.parts.augmentation.mean, job.parts.augmentation.std, split
            )
        rows += [sources[:, source], pixels]
    lines = [np.concatenate([_enlarge(image) for image in row], axis=1) for row in rows]
    with write_atomically(path) as file:
        Image.fromarray(np.concatenate(lines, axis=0)).save(file, "PNG")


def draw_channels(path: Path, job: Job, state: State) -> None:
    """Writes a PNG of held-out images and their channels. A column is an image.

    Below the image come the channels of the split's colour space, those of YDbDr, and those that the generator makes.
    Each channel is grey, scaled from its 1st to its 99th percentile over all images.
    """
    split, views = job.parts.tower.split, job.parts.augmentation
    assert split is not None and split.generator is not None
    spread = np.linspace(0, len(job.held_out_ids) - 1, min(COLUMNS, len(job.held_out_ids))).astype(int)
    pixels = job.images.images(job.held_out_ids[spread])
    spaces = {name: from_rgb(jnp.asarray(pixels) / 255.0, name) for name in dict.fromkeys((split.space, "ydbdr"))}
    whole = (spaces[split.space] - np.asarray(views.mean)) / np.asarray(views.std)
    channels = {**spaces, "learned": split.generator.forward(state.generator["params"], whole.astype(jnp.float32))}
    rows = [("image", pixels)]
    for name, images in channels.items():
        low, high = np.percentile(images, (1, 99), axis=(0, 1, 2))
        grey = np.round(255 * np.clip((np.asarray(images) - low) / np.maximum(high - low, 1e-6), 0, 1)).astype(np.uint8)
        rows += [(f"{name} {i}", grey[..., i : i + 1].repeat(3, axis=-1)) for i in range(3)]
    sheet = Image.new("RGB", (MARGIN + CELL * len(pixels), CELL * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (name, row) in enumerate(rows):
        pen.text((8, CELL * i + CELL // 2 - 5), name, fill="black")
        sheet.paste(Image.fromarray(np.concatenate([_enlarge(image) for image in row], axis=1)), (MARGIN, CELL * i))
    with write_atomically(path) as file:
        sheet.save(file, "PNG")


def false_colours(name: str, images: np.ndarray, split: Division) -> np.ndarray:
    """Returns learned channels as uint8 RGB [n, H, W, 3]. One channel is drawn in grey, two in green and blue.

    Each channel is scaled from its 1st to its 99th percentile over all images.
    """
    low, high = np.percentile(images, (1, 99), axis=(0, 1, 2))
    scaled = np.clip((images - low) / np.maximum(high - low, 1e-6), 0.0, 1.0)
    if split.count(name) == 1:
        return np.round(255 * scaled.repeat(3, axis=-1)).astype(np.uint8)
    whole = np.zeros((*images.shape[:-1], 3), np.float32)
    whole[..., split.slices[name]] = scaled
    return np.round(255 * whole).astype(np.uint8)


def as_rgb(name: str, images: np.ndarray, split: Division | None) -> np.ndarray:
    """Returns a view as whole images [n, H, W, 3], still normalised.

    Patches are laid out in their grid. Channels of a colour space that the view lacks are 0, their mean.
    """
    if images.ndim == 5:
        side = round(images.shape[1] ** 0.5)
        grid = images.reshape(len(images), side, side, *images.shape[2:])
        return grid.transpose(0, 1, 3, 2, 4, 5).reshape(
            len(images), side * images.shape[2], side * images.shape[3], images.shape[4]
        )
    if split is None or not split.is_colour_space:
        return images
    whole = np.zeros((*images.shape[:-1], 3), images.dtype)
    whole[..., split.slices[name]] = images
    return whole


def unnormalise_in(
    images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...], split: Division | None
) -> np.ndarray:
    """Returns uint8 RGB pixels of normalised images, which are in the colour space of `split` if there is one."""
    if split is None:
        return unnormalise(jnp.asarray(images), mean, std)
    pixels = images * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
    return unnormalise(SPACES[split.space][1](pixels), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _enlarge(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((CELL, CELL), Image.Resampling.NEAREST))
