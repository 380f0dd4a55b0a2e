"""Saves and restores the state of a detector's training. A save is atomic: it replaces the file or changes nothing."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mi_contrast.core.config import differences
from mi_contrast.core.errors import FileError, UserError
from mi_contrast.core.layout import read_json, write_atomically, write_json

# Fields that may differ when a training is resumed, because they don't change the weights.
MAY_DIFFER = ("task.save_every", "task.time_limit", "task.pictures", "task.device", "batch_size", "data.dir")


@dataclass(frozen=True)
class Checkpoint:
    """The folder that holds the state of one training."""

    folder: Path

    @property
    def config_file(self) -> Path:
        """File with all that the weights depend on: the config, the backbone and the annotations."""
        return self.folder / "asked.json"

    @property
    def state_file(self) -> Path:
        """File with the newest state: iteration, detector, optimiser, and the scores so far."""
        return self.folder / "checkpoint.pt"

    def claim(self, config: Mapping[str, Any]) -> None:
        """Writes the config. Raises UserError, naming the fields, if the folder belongs to another training."""
        if self.config_file.is_file():
            different = [d for d in differences(read_json(self.config_file), config) if d not in MAY_DIFFER]
            if different:
                raise UserError(
                    f"{self.folder} holds a fitting of another config: {', '.join(different[:8])} differ",
                    fix="give another --workdir, or the config that it was started with",
                )
        elif self.state_file.is_file():
            raise FileError(
                f"{self.folder} has a checkpoint but no {self.config_file.name}", fix="give another --workdir"
            )
        write_json(self.config_file, config)

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the saved state."""
        with write_atomically(self.state_file) as file:
            torch.save(dict(state), file)

    def newest(self, device: torch.device) -> dict[str, Any] | None:
        """Returns the saved state, or None. Runs no code from the file.

        Raises UserError if it is damaged or the detector has a NaN or an infinity.
        """
        if not self.state_file.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(self.state_file, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise FileError(
                f"{self.state_file} is damaged ({' '.join(str(error).split())[:80]})",
                fix="remove it to begin again, or restore it",
            ) from None
        for name, values in state["detector"].items():
            if not torch.isfinite(values).all():
                raise FileError(
                    f"{self.state_file}: {name!r} of the detector has numbers that are NaN or infinite",
                    fix="remove it to begin again, or restore an older one",
                )
        return state
