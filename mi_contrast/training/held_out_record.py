"""What a run keeps of its held-out images for its page, in the folder held_out/.

  examples.npz         thumbnails, indices and labels of the images of the map and of the queries; written once
  before.npz           of the untrained network: places on the map and the nearest training images of each query
  after.npz            the same of the latest measurement
  measurements.jsonl   a line for each measurement: counts of similarities, the ring, hits of each class

A run of any size keeps less than a megabyte. Training never depends on these files: where they can't be made or
written, the user is told, training goes on, and the page says what is missing.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.errors import JaxRuntimeError
from jaxtyping import Float, Int, UInt8
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory, write_atomically, write_text
from mi_contrast.core.rngs import STREAMS
from mi_contrast.data.order import permutation
from mi_contrast.readout.knn import unit
from mi_contrast.training.assemble import Job
from mi_contrast.training.state import State

ON_MAP = 400  # images on the map
FEW = 100  # held-out images below which training images are added to the map
BANK = 1200  # training images among which neighbours are looked for
QUERIES, NEIGHBOURS = 12, 5
COMPONENTS = 32  # principal components that are kept of each image on the map
THUMBNAIL, QUALITY = 48, 70  # pixels a side, and WebP's quality


# What may go wrong while training is fine: a picture breaks, the disk is full, memory is short on the device or beside
# it, features are not finite. Anything else is a mistake in the program, and passes.
FAILURES = (UserError, OSError, MemoryError, JaxRuntimeError, np.linalg.LinAlgError)


class Choice(NamedTuple):
    """The examples that a run keeps something of, as int32 indices into the training split.

    Attributes:
      on_map: those of the map, held-out ones first.
      held_out: how many of them are held out.
      queries: held-out examples whose neighbours are shown; the first of `on_map`.
      bank: training examples among which the neighbours are.
    """

    on_map: Int[np.ndarray, " M"]
    held_out: int
    queries: Int[np.ndarray, " Q"]
    bank: Int[np.ndarray, " B"]


def choose_examples(job: Job) -> Choice:
    """Returns the examples to keep. They are the same in every run on these data: the run's seed does not matter."""
    held_out, bank = (
        ids[permutation(len(ids), STREAMS["held_out"], word)]
        for word, ids in enumerate((job.held_out_ids, job.train_ids))
    )
    on_map, bank = held_out[:ON_MAP], bank[:BANK]
    count = len(on_map)
    if count < FEW:
        on_map = np.concatenate([on_map, bank[: ON_MAP - count]])
    return Choice(on_map, count, held_out[:QUERIES], bank)


class HeldOutRecord:
    """Writes the folder held_out/ of a run.

    Args:
      say: tells the user a line.
    """

    def __init__(self, run: RunDirectory, job: Job, say: Callable[[str], None]):
        self._folder, self._job, self._say = run.held_out, job, say
        self._choice: Choice | None = None

    def begin(self, step: int) -> None:
        """Removes what belongs to steps after `step`, which will be taken again. Before the first step, everything."""

        def remove() -> None:
            for name in ("examples", "before", "after"):
                file = self._folder / f"{name}.npz"
                if file.is_file() and (step == 0 or _read_step(file) > step):
                    file.unlink()
            path = self._folder / "measurements.jsonl"
            if path.is_file():
                lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
                write_text(path, "".join(f"{line}\n" for line in lines if step > 0))

        self._attempt(step, remove)

    def write(self, step: int, state: State, details: Mapping[str, Any]) -> None:
        """Writes a measurement of this state. The first one is that of the untrained network if its step is 0."""

        def write() -> None:
            self._append({"step": step, **details})
            representation = self._job.represent(state)
            choice = self._choice or choose_examples(self._job)
            if self._choice is None:
                self._write_arrays("examples", describe_examples(self._job, choice) | {"step": np.array(0)})
                self._choice = choice
            features = {
                name: np.asarray(unit(representation.encode(self._job.images.images(index))))
                for name, index in (("map", choice.on_map), ("bank", choice.bank))
            }
            arrays = describe_features(features["map"], features["map"][: len(choice.queries)], features["bank"])
            near = choice.bank[arrays["neighbours"]]
            pictures = make_thumbnails(self._job.images.images(near.reshape(-1)))
            arrays |= {"neighbour_index": near, "step": np.array(step), **pictures}
            if (labels := read_labels(self._job)) is not None:
                arrays["neighbour_labels"] = labels[near]
            self._write_arrays("before" if step == 0 else "after", arrays)

        self._attempt(step, write)

    def _write_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        with write_atomically(self._folder / f"{name}.npz") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def _append(self, row: Mapping[str, Any]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with open(self._folder / "measurements.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _attempt(self, step: int, write: Callable[[], None]) -> None:
        """Calls `write`. If that fails, tells the user and notes it for the page; training goes on."""
        try:
            write()
        except FAILURES as error:
            problem = " ".join(str(error).split())[:300] or type(error).__name__
            self._say(f"held_out/ of step {step} is not complete, and the page will lack it: {problem}")
            with suppress(OSError):
                self._append({"step": step, "problem": problem})


def describe_examples(job: Job, choice: Choice) -> dict[str, np.ndarray]:
    """Returns the arrays of examples.npz: the images of the map, of which the queries are the first."""
    arrays = {
        "index": choice.on_map,
        "held_out": np.arange(len(choice.on_map)) < choice.held_out,
        "queries": np.array(len(choice.queries)),
        **make_thumbnails(job.images.images(choice.on_map)),
    }
    labels = read_labels(job)
    if labels is not None:
        arrays |= {"labels": labels[choice.on_map], "classes": np.array(job.images.classes[str(job.label)])}
    return arrays


def read_labels(job: Job) -> Int[np.ndarray, " N"] | None:
    """Returns the classes of all examples by the label that the probe learns, or None."""
    return None if job.label is None else np.asarray(job.images.labels[job.label])


def describe_features(
    features: Float[np.ndarray, "M F"], queries: Float[np.ndarray, "Q F"], bank: Float[np.ndarray, "B F"]
) -> dict[str, np.ndarray]:
    """Returns principal components of the features on the map, and the neighbours of the queries in the bank.

    Args:
      features, queries, bank: of unit norm.
    Returns:
      'components' float16 [M, C], the first being the largest; 'explained' float32 [C], their shares of the variance;
      'neighbours' int64 [Q, K], rows of the bank from the most similar on; 'similarities' float32 [Q, K], cosines.
    """
    centred = features - features.mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    kept = min(COMPONENTS, len(singular))
    components = left[:, :kept] * singular[:kept]
    largest = np.abs(components).argmax(axis=0)
    components *= np.where(components[largest, np.arange(kept)] < 0, -1, 1)  # a component's sign is arbitrary
    variance = singular**2
    cosines = queries @ bank.T
    near = np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS]
    return {
        "components": components.astype(np.float16),
        "explained": (variance[:kept] / max(variance.sum(), 1e-12)).astype(np.float32),
        "neighbours": near,
        "similarities": np.take_along_axis(cosines, near, axis=1).astype(np.float32),
    }


def make_thumbnails(images: UInt8[np.ndarray, "n H W 3"]) -> dict[str, np.ndarray]:
    """Returns small pictures of images as WebP files: 'pictures' uint8 [bytes], one after another, and 'ends' int64."""
    files = []
    for image in images:
        thumbnail, file = Image.fromarray(image), io.BytesIO()
        thumbnail.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        thumbnail.save(file, "WEBP", quality=QUALITY, method=4)
        files.append(file.getvalue())
    return {
        "pictures": np.frombuffer(b"".join(files), np.uint8),
        "ends": np.cumsum([len(file) for file in files]),
    }


def _read_step(path: Path) -> float:
    """Returns the step of a file; infinity if it is damaged, so that it is removed."""
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return int(file["step"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return math.inf


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0
