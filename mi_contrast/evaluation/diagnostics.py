"""Diagnostics of a backbone, on images it was not trained on: how features lie, what views share, what they survive."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
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
from mi_contrast.evaluation import on_features
from mi_contrast.evaluation.asked import Judgement
from mi_contrast.evaluation.augmented import POLICIES, encode_views, policy_named
from mi_contrast.evaluation.features import encode_all
from mi_contrast.evaluation.information import estimates
from mi_contrast.evaluation.tasks import fill
from mi_contrast.interchange import Loaded
from mi_contrast.readout.geometry import alignment, effective_rank, uniformity
from mi_contrast.readout.knn import unit

CELL, GAP = 72, 3  # pixels of a picture's cell, and between cells
RIGHT, WRONG = (46, 125, 50), (183, 28, 28)  # frames: of the query's class, of another


@dataclass(frozen=True)
class Diagnostics:
    """What is looked at.

    images: of the test split, drawn once, that all numbers are of; views: 'train', or a policy's name; queries and
    neighbours: rows and columns of the picture; strength: the policy whose ops are tried one at a time.
    """

    images: int = 1024
    views: str = "train"
    queries: int = 8
    neighbours: int = 8
    strength: str = "simclr"

    def __post_init__(self):
        """Raises UserError on a value that can't be."""
        for name, least in (("images", 64), ("queries", 1), ("neighbours", 1)):
            if not getattr(self, name) >= least:
                raise UserError(f"{name} is {getattr(self, name)}", fix=f"give {least} or more")
        if self.strength not in POLICIES:
            raise unknown("strength", self.strength, POLICIES)


def judge(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None = None, *, twin: bool = False) -> Judgement:
    """Writes results/diagnostics-<set>.json and a picture of nearest neighbours beside it, .png.

    geometry: of two views of each image, alignment and uniformity of their features on the unit sphere and the
    effective rank of the images' own; information: nats between the two views, see `evaluation.information`;
    invariance: what one op alone does to an image's features, see `invariance`. Features are the backbone's, not the
    head's that the objective saw. Raises as `evaluation.judge` does.
    """
    settings: Diagnostics = fill(Diagnostics, {n: value for n, value in config["task"].items() if n != "kind"})
    began = time.perf_counter()
    begun = on_features.ready(config, backbone, workdir, twin=twin)
    _, (truth, _) = on_features.truths(begun)
    encoder, size = begun.backbone.representation, begun.backbone.representation.spec["size"]
    images, rows = some_of(begun.test, settings.images)
    how = {"batch_size": config["batch_size"]}
    policy = policy_named(settings.views, size, backbone.config)
    plain = encode_all(encoder, images, **how)
    views = encode_views(encoder, images, policy=policy, copies=2, seed=config["seed"], **how)
    first, second = views[: len(images)], views[len(images) :]
    result = {
        "task": "diagnostics",
        "dataset": begun.data["name"],
        "split": begun.data["test_split"],
        "images": len(images),
        "settings": {**config["task"], "seed": config["seed"], "size": size, "features": plain.shape[1]},
        "geometry": {
            "alignment": float(alignment(first, second)),
            "uniformity": float(uniformity(first)),
            "effective_rank": float(effective_rank(plain - plain.mean(axis=0))),
            "features": plain.shape[1],
        },
        "information": {
            "pairs": f"two views ({settings.views}) of each of {len(images)} images of {begun.data['test_split']}, "
            "features of the backbone",
            "estimates": estimates(first, second, seed=config["seed"]),
        },
        "invariance": {
            name: invariance(plain, encode_views(encoder, images, policy=alone, copies=1, seed=config["seed"], **how))
            for name, alone in one_at_a_time(settings.strength, size).items()
        },
        "backbone": backbone.sha256 or str(backbone.source),
        "step": begun.backbone.step,
        "untrained": twin,
    }
    path = begun.results / on_features.name_of(begun, "diagnostics")
    picture = neighbours_of(images, plain, truth[rows], settings.queries, settings.neighbours)
    with write_atomically(path.with_suffix(".png")) as file:
        picture.save(file, "PNG")
    result["seconds"] = round(time.perf_counter() - began, 3)
    write_json(path, result)
    return Judgement(result, path, said_of(result, path))


def some_of(images: ImageSet, count: int) -> tuple[ImageSet, np.ndarray]:
    """As many images of a split as asked for, at most all of them, in an order fixed for good; and which they are."""
    rows = np.sort(permutation(len(images), 0)[: min(count, len(images))]).astype(np.int64)
    labels = {name: np.asarray(images.labels[name])[rows] for name in images.labels}
    groups = None if images.groups is None else images.groups[rows]
    part = ImageSet(
        f"{images.name} ({len(rows):,})", images.split, len(rows), images.image_shape,
        lambda i: images.images(rows[i]), labels, images.classes, groups,
    )  # fmt: skip
    return part, rows


def one_at_a_time(strength: str, size: int) -> dict[str, dict[str, Any]]:
    """For each op of a policy the policy of that op alone, which always happens; the whole image where it isn't the
    crop. A flip is of every image.
    """
    ops = policy_named(strength, size, {})["query"]
    whole = {"area": (1.0, 1.0), "aspect": (1.0, 1.0)}
    found = {}
    for name in ops["order"]:
        setting = {**ops[name], "p": 1.0} if isinstance(ops[name], Mapping) and "p" in ops[name] else ops[name]
        setting = 1.0 if isinstance(setting, float) else setting
        alone = {"crop": setting} if name == "crop" else {"crop": whole, name: setting}
        both = {**alone, "order": tuple(alone)}
        found[name] = {"kind": "two_crops", "size": size, "mean": (0.0,) * 3, "std": (1.0,) * 3,
                       "query": both, "key": both}  # fmt: skip
    return found


def invariance(plain: Float[np.ndarray, "N F"], changed: Float[np.ndarray, "N F"]) -> dict[str, float]:
    """What an op does to features, against what tells images apart.

    cosine: mean cosine of an image and itself changed, features centred by the images' mean, so that 0 is what two
    images have; found: share of changed images whose nearest image, by that cosine, is their own; median_rank: the
    median place of their own among all N, 1 the nearest, ties to its disadvantage.
    """
    centre = plain.mean(axis=0)
    cosines = np.asarray(jnp.matmul(unit(changed - centre), unit(plain - centre).T, precision="highest"))
    own = np.diag(cosines)
    ranks = np.sum(cosines >= own[:, None], axis=1)
    return {"cosine": float(own.mean()), "found": float(np.mean(ranks == 1)), "median_rank": float(np.median(ranks))}


def neighbours_of(
    images: ImageSet, features: Float[np.ndarray, "N F"], labels: np.ndarray, queries: int, neighbours: int
) -> Image.Image:
    """A row a query: the image, then those nearest to it by cosine, framed green where of its class, else red."""
    queries, neighbours = min(queries, len(images)), min(neighbours, len(images) - 1)
    chosen = np.linspace(0, len(images) - 1, queries).astype(int)
    similar = np.array(jnp.matmul(unit(features[chosen]), unit(features).T, precision="highest"))
    similar[np.arange(queries), chosen] = -np.inf
    nearest = np.argsort(-similar, axis=1, kind="stable")[:, :neighbours]
    pitch = CELL + 2 * GAP
    sheet = Image.new("RGB", (pitch * (neighbours + 1) + 3 * GAP, pitch * queries), (255, 255, 255))
    for y, (query, near) in enumerate(zip(chosen, nearest, strict=True)):
        for x, (index, pixels) in enumerate(zip((query, *near), images.images(np.array([query, *near])), strict=True)):
            frame = None if x == 0 else RIGHT if labels[index] == labels[query] else WRONG
            cell = Image.new("RGB", (pitch, pitch), (255, 255, 255) if frame is None else frame)
            shown = Image.fromarray(pixels).resize(
                (CELL, CELL), Image.Resampling.NEAREST if len(pixels) < CELL else Image.Resampling.BILINEAR
            )
            cell.paste(shown, (GAP, GAP))
            sheet.paste(cell, (pitch * x + (3 * GAP if x else 0), pitch * y))
    return sheet


def said_of(result: Mapping[str, Any], path: Path) -> str:
    """The result for a terminal."""
    lie, which = result["geometry"], "untrained twin, " if result["untrained"] else ""
    lines = [
        f"diagnostics on {result['dataset']} {result['split']}: {which}{result['images']:,} images",
        f"  alignment {lie['alignment']:.3f}, uniformity {lie['uniformity']:.3f}, effective rank "
        f"{lie['effective_rank']:.1f} of {lie['features']}",
        f"  nats between {result['information']['pairs']}:",
    ]
    for name, found in result["information"]["estimates"].items():
        top = "no ceiling" if found["ceiling"] is None else f"at most {found['ceiling']:.2f}"
        error = "" if found["standard_error"] is None else f" -+ {found['standard_error']:.2f}"
        nats = "     ?" if found["nats"] is None else f"{found['nats']:6.2f}"
        lines.append(f"    {name:12} {nats}{error} ({top}; {found['what']})")
    lines.append("  one op alone: cosine to the image, share found among all, median rank")
    for name, found in result["invariance"].items():
        lines.append(f"    {name:12} {found['cosine']:6.3f} {100 * found['found']:6.1f} % {found['median_rank']:8.1f}")
    return "\n".join([*lines, f"-> {path}, {path.with_suffix('.png').name}"])
