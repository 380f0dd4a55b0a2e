"""Diagnoses a backbone on test images: the geometry of its features, the mutual information of views, invariances."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image

from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.layout import write_atomically, write_json
from mi_contrast.data.order import permutation
from mi_contrast.data.sets import ImageSet
from mi_contrast.evaluation import feature_tasks
from mi_contrast.evaluation.augmentation import POLICIES, encode_views, make_policy
from mi_contrast.evaluation.features import encode_all
from mi_contrast.evaluation.information import estimate_information
from mi_contrast.evaluation.task_config import Judgement
from mi_contrast.evaluation.tasks import make_settings
from mi_contrast.interchange import LoadedBackbone
from mi_contrast.readout.accuracy import FEWEST
from mi_contrast.readout.geometry import alignment, effective_rank, uniformity
from mi_contrast.readout.knn import unit

CELL, GAP = 72, 3  # pixels: side of a cell of the picture, and gap between cells
SAME_CLASS, OTHER_CLASS, NO_CLASS = (46, 125, 50), (183, 28, 28), (158, 158, 158)  # colours of frames


@dataclass(frozen=True)
class Diagnostics:
    """Settings of the diagnostics.

    images: number of test images that all numbers are computed on.
    views: the augmentation of the two views: 'train', or the name of a policy.
    queries, neighbours: rows and columns of the picture.
    strength: the policy whose ops are applied one at a time.
    """

    images: int = 1024
    views: str = "train"
    queries: int = 8
    neighbours: int = 8
    strength: str = "simclr"

    def __post_init__(self):
        """Raises UserError on an invalid value."""
        for name, least in (("images", 64), ("queries", 1), ("neighbours", 1)):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {least} or more")
        if self.strength not in POLICIES:
            raise unknown("strength", self.strength, POLICIES)


def judge(
    config: Mapping[str, Any], backbone: LoadedBackbone, workdir: Path | None = None, *, untrained: bool = False
) -> Judgement:
    """Writes results/diagnostics-<set>.json, and a picture of nearest neighbours next to it (.png).

    geometry: alignment and uniformity of the features of two views of each image on the unit sphere, and the effective
      rank of the images' features.
    information: mutual information between the two views, in nats, see `evaluation.information`.
    invariance: the effect of each op on the features, see `measure_invariance`.

    The features are those of the backbone, not of the head that the training objective used. Raises what
    `evaluation.judge` raises.
    """
    task = {name: value for name, value in config["task"].items() if name != "kind"}
    settings: Diagnostics = make_settings(Diagnostics, task)
    start_time = time.perf_counter()
    setup = feature_tasks.prepare(config, backbone, workdir, untrained=untrained, needs_labels=False)
    labels = feature_tasks.read_labels(setup)[1][0] if setup.label else None
    encoder, size = setup.backbone.representation, setup.backbone.representation.spec["size"]
    images, rows = sample_images(setup.test, settings.images)
    policy = make_policy(settings.views, size, backbone.config)
    plain = encode_all(encoder, images, batch_size=config["batch_size"])
    encode = partial(encode_views, encoder, images, seed=config["seed"], batch_size=config["batch_size"])
    views = encode(policy=policy, copies=2)
    first, second = views[: len(images)], views[len(images) :]
    result = {
        "task": "diagnostics",
        "dataset": setup.data["name"],
        "split": setup.data["test_split"],
        "images": len(images),
        "settings": {**config["task"], "seed": config["seed"], "size": size, "features": plain.shape[1]},
        "geometry": {
            "alignment": float(alignment(first, second)),
            "uniformity": float(uniformity(first)),
            "effective_rank": float(effective_rank(plain - plain.mean(axis=0))),
            "features": plain.shape[1],
        },
        "information": {
            "pairs": f"two views ({settings.views}) of each of {len(images)} images of {setup.data['test_split']}, "
            "features of the backbone",
            # Each estimator fits on one part and estimates on another, which a handful of images can't fill.
            "estimates": estimate_information(first, second, seed=config["seed"]) if len(images) >= FEWEST else {},
        },
        "invariance": {
            name: measure_invariance(plain, encode(policy=op_policy, copies=1))
            for name, op_policy in make_single_op_policies(settings.strength, size).items()
        },
        "backbone": backbone.sha256 or str(backbone.source),
        "step": setup.backbone.step,
        "untrained": untrained,
    }
    path = setup.results / feature_tasks.name_result(setup, "diagnostics")
    picture = draw_neighbours(
        images, plain, None if labels is None else labels[rows], settings.queries, settings.neighbours
    )
    with write_atomically(path.with_suffix(".png")) as file:
        picture.save(file, "PNG")
    result["seconds"] = round(time.perf_counter() - start_time, 3)
    write_json(path, result)
    return Judgement(result, path, summarise(result, path))


def sample_images(images: ImageSet, count: int) -> tuple[ImageSet, np.ndarray]:
    """Returns a random subset of at most `count` images, the same one at every call, and its row indices."""
    rows = np.sort(permutation(len(images), 0)[: min(count, len(images))]).astype(np.int64)
    labels = {name: np.asarray(images.labels[name])[rows] for name in images.labels}
    groups = None if images.groups is None else images.groups[rows]
    part = ImageSet(
        f"{images.name} ({len(rows):,})", images.split, len(rows), images.image_shape,
        lambda i: images.images(rows[i]), labels, images.classes, groups,
    )  # fmt: skip
    return part, rows


def make_single_op_policies(strength: str, size: int) -> dict[str, dict[str, Any]]:
    """Returns, for each op of a policy, a policy that applies only this op, with probability 1.

    All of them but that of the crop take the whole image.
    """
    ops = make_policy(strength, size, {})["query"]
    whole_image = {"area": (1.0, 1.0), "aspect": (1.0, 1.0)}
    single_op_policies = {}
    for name in ops["order"]:
        op = {**ops[name], "p": 1.0} if isinstance(ops[name], Mapping) and "p" in ops[name] else ops[name]
        op = 1.0 if isinstance(op, float) else op  # an op that is a number, such as a flip, is its probability
        view = {"crop": op} if name == "crop" else {"crop": whole_image, name: op}
        view["order"] = tuple(view)
        single_op_policies[name] = {"kind": "two_crops", "size": size, "mean": (0.0,) * 3, "std": (1.0,) * 3,
                                    "query": view, "key": view}  # fmt: skip
    return single_op_policies


def measure_invariance(plain: Float[np.ndarray, "N F"], changed: Float[np.ndarray, "N F"]) -> dict[str, float]:
    """Returns how far an op moves an image's features, compared with the distance to other images.

    cosine: mean cosine between the features of an image before and after the op. Features are centred by the images'
      mean first, so that two unrelated images have cosine 0.
    found: share of changed images whose nearest image, by this cosine, is the one that they were made from.
    median_rank: median rank of that image among all N, from 1, the nearest; ties count as nearer.

    Args:
      plain, changed: float32 [N, F], features of the images and of the images after the op.
    """
    centre = plain.mean(axis=0)
    cosines = np.asarray(jnp.matmul(unit(changed - centre), unit(plain - centre).T, precision="highest"))
    own = np.diag(cosines)
    ranks = np.sum(cosines >= own[:, None], axis=1)
    return {"cosine": float(own.mean()), "found": float(np.mean(ranks == 1)), "median_rank": float(np.median(ranks))}


def draw_neighbours(
    images: ImageSet, features: Float[np.ndarray, "N F"], labels: np.ndarray | None, queries: int, neighbours: int
) -> Image.Image:
    """Draws one row per query: the image, then its nearest images by cosine.

    Images of the query's class have a green frame, others a red one. Without labels, frames are grey.
    """
    queries, neighbours = min(queries, len(images)), min(neighbours, len(images) - 1)
    query_rows = np.linspace(0, len(images) - 1, queries).astype(int)
    similarity = np.array(jnp.matmul(unit(features[query_rows]), unit(features).T, precision="highest"))
    similarity[np.arange(queries), query_rows] = -np.inf
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]
    pitch = CELL + 2 * GAP
    sheet = Image.new("RGB", (pitch * (neighbours + 1) + 3 * GAP, pitch * queries), (255, 255, 255))
    for row, (query, near) in enumerate(zip(query_rows, nearest, strict=True)):
        indices = np.array([query, *near])
        for column, (index, pixels) in enumerate(zip(indices, images.images(indices), strict=True)):
            frame = NO_CLASS
            if labels is not None:
                frame = SAME_CLASS if labels[index] == labels[query] else OTHER_CLASS
            cell = Image.new("RGB", (pitch, pitch), (255, 255, 255) if column == 0 else frame)
            filtering = Image.Resampling.NEAREST if len(pixels) < CELL else Image.Resampling.BILINEAR
            cell.paste(Image.fromarray(pixels).resize((CELL, CELL), filtering), (GAP, GAP))
            sheet.paste(cell, (pitch * column + (3 * GAP if column else 0), pitch * row))
    return sheet


def summarise(result: Mapping[str, Any], path: Path) -> str:
    """Returns the result as lines for a terminal."""
    geometry, twin = result["geometry"], "untrained twin, " if result["untrained"] else ""
    lines = [
        f"diagnostics on {result['dataset']} {result['split']}: {twin}{result['images']:,} images",
        f"  alignment {geometry['alignment']:.3f}, uniformity {geometry['uniformity']:.3f}, effective rank "
        f"{geometry['effective_rank']:.1f} of {geometry['features']}",
        f"  nats between {result['information']['pairs']}:",
    ]
    if not result["information"]["estimates"]:
        lines.append(f"    not estimated on fewer than {FEWEST} images")
    for name, estimate in result["information"]["estimates"].items():
        ceiling = "no ceiling" if estimate["ceiling"] is None else f"at most {estimate['ceiling']:.2f}"
        error = "" if estimate["standard_error"] is None else f" -+ {estimate['standard_error']:.2f}"
        nats = "     ?" if estimate["nats"] is None else f"{estimate['nats']:6.2f}"
        lines.append(f"    {name:12} {nats}{error} ({ceiling}; {estimate['what']})")
    lines.append("  one op at a time: cosine to the image, share found among all images, median rank")
    for name, effect in result["invariance"].items():
        numbers = f"{effect['cosine']:6.3f} {100 * effect['found']:6.1f} % {effect['median_rank']:8.1f}"
        lines.append(f"    {name:12} {numbers}")
    return "\n".join([*lines, f"-> {path}, {path.with_suffix('.png').name}"])
