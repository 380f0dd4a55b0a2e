"""What was loaded, from where, and what was left there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_contrast.models.representation import Representation


@dataclass(frozen=True)
class Loaded:
    """A representation and where it came from.

    tensors: how many were loaded, which is all that the network has; step: of training, None where unknown;
    config: of training, {} where unknown; sha256: of the file of weights, None for a run directory;
    commit: of the code that trained it, None where unknown.
    Of another trainer's file: beside, how many tensors it has more (counters of batches aside), and left_out, their
    names in groups; remarks: which of its networks was taken, for what it was taken, and what was assumed of the
    pixels, which such a file does not tell.
    """

    representation: Representation
    source: Path
    tensors: int
    step: int | None
    config: Mapping[str, Any]
    sha256: str | None = None
    commit: str | None = None
    beside: int = 0
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = [f"loaded {self.tensors} of {self.tensors + self.beside} tensors from {self.source}", *self.remarks]
        if self.left_out:
            said.insert(1, f"left out: {', '.join(self.left_out)}")
        return "; ".join(said)
