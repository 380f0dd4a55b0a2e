"""Writes and reads a fitted head: a linear classifier on the backbone's features, stored next to its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Array, Float

from mi_contrast.core.errors import FileError
from mi_contrast.core.layout import write_atomically
from mi_contrast.readout import linear
from mi_contrast.readout.accuracy import Arrays

FORMAT = "mi_contrast linear head 1"


@dataclass(frozen=True)
class Head:
    """A fitted linear classifier.

    model: weights, bias, and the mean and scale that standardise features.
    classes: names of the columns of its scores.
    about: provenance: task, data set and settings of the fit.
    """

    model: linear.LinearModel
    classes: tuple[str, ...]
    about: Mapping[str, Any]

    def scores(self, features: Float[Arrays, "N F"]) -> Float[Array, "N C"]:
        """Returns logits, float32 [N, C], of the features that `Representation.encode` returns for the head's layer."""
        return linear.scores(self.model, features)


def write_head(path: Path, model: linear.LinearModel, classes: Sequence[str], about: Mapping[str, Any]) -> None:
    """Writes a head as safetensors: weights [F, C], bias [C], mean [F], scale [F]; classes and about as metadata."""
    tensors = {name: np.ascontiguousarray(value, np.float32) for name, value in model._asdict().items()}
    metadata = {"format": FORMAT, "classes": json.dumps(list(classes)), "about": json.dumps(about)}
    with write_atomically(path) as file:
        file.write(safetensors.numpy.save(tensors, metadata=metadata))


def read_head(path: str | Path) -> Head:
    """Returns the head from a file that an evaluation wrote, results/<task>-<dataset>.safetensors.

    scores = ((features - mean) / scale) weights + bias. Raises UserError if the file is missing, damaged or not a head.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "linear-blobs.safetensors"
    ...     model = linear.LinearModel(jnp.eye(2), jnp.zeros(2), jnp.ones(2), jnp.ones(2))
    ...     write_head(file, model, ("cat", "dog"), {"layer": "pooled"})
    ...     head = read_head(file)
    >>> head.classes[int(head.scores(np.array([[1.0, 3.0]])).argmax())]
    'dog'
    """
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, safetensors.SafetensorError) as error:
        raise FileError(f"can't read the head {path} ({error})") from None
    if metadata.get("format") != FORMAT or set(tensors) != set(linear.LinearModel._fields):
        raise FileError(f"{path} is not a head", fix="give the .safetensors next to a result of the linear task")
    model = linear.LinearModel(**{name: jnp.asarray(value) for name, value in tensors.items()})
    return Head(model, tuple(json.loads(metadata["classes"])), json.loads(metadata["about"]))
