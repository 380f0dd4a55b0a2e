"""A backbone read from disk: the representation, its origin, and the parts of the file that were not used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_contrast.models.representation import Representation


@dataclass(frozen=True)
class LoadedBackbone:
    """A representation and its origin.

    tensors: number of tensors that were loaded, which are all that the network has.
    step: training step of the weights; None if unknown.
    config: of the training; {} if unknown.
    sha256: of the file of weights; None for a run directory.
    commit: of the code that trained it; None if unknown.
    other_tensors: of another trainer's file, the number of tensors that do not belong to the backbone.
    unused_parts: their names, in groups.
    remarks: of another trainer's file, which of its networks was loaded, how it was recognised, and the preprocessing
      that was assumed, since such a file doesn't describe it.
    """

    representation: Representation
    source: Path
    tensors: int
    step: int | None
    config: Mapping[str, Any]
    sha256: str | None = None
    commit: str | None = None
    other_tensors: int = 0
    unused_parts: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        total = self.tensors + self.other_tensors
        parts = [f"loaded {self.tensors} of {total} tensors from {self.source}"]
        if self.unused_parts:
            parts.append(f"left out: {', '.join(self.unused_parts)}")
        return "; ".join([*parts, *self.remarks])
