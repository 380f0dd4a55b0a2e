"""A fitting kept on disk: what it was asked for, and its newest state, whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mi_contrast.core.config import differences
from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import read_json, write_atomically, write_json

# What may differ between the starts of one fitting: none of it changes the weights.
FREE = ("task.save_every", "task.time_limit", "task.pictures", "task.device", "batch_size", "data.dir")


@dataclass(frozen=True)
class Kept:
    """The folder of one fitting."""

    folder: Path

    @property
    def asked(self) -> Path:
        """What it was asked for."""
        return self.folder / "asked.json"

    @property
    def state(self) -> Path:
        """The newest state: iteration, detector, optimiser, and what was scored so far."""
        return self.folder / "checkpoint.pt"

    def claim(self, asked: Mapping[str, Any]) -> None:
        """Writes what is asked for, or refuses a folder that holds another fitting, naming the fields."""
        if self.asked.is_file():
            different = [d for d in differences(read_json(self.asked), asked) if d not in FREE]
            if different:
                raise UserError(
                    f"{self.folder} holds a fitting of another config: {', '.join(different[:8])} differ",
                    fix="give another --workdir, or what it was started with",
                )
        elif self.state.is_file():
            raise UserError(f"{self.folder} has a checkpoint but no {self.asked.name}", fix="give another --workdir")
        write_json(self.asked, asked)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the newest state."""
        with write_atomically(self.state) as file:
            torch.save(dict(state), file)

    def newest(self, device: torch.device) -> dict[str, Any] | None:
        """The newest state, read without running anything in it; None where there is none. UserError if damaged."""
        if not self.state.is_file():
            return None
        try:
            found: dict[str, Any] = torch.load(self.state, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise UserError(
                f"{self.state} is damaged ({' '.join(str(error).split())[:80]})",
                fix="remove it to begin again, or restore it",
            ) from None
        return found
