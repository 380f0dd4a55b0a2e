"""The log of a run: metrics.jsonl, one object a line, and the same numbers as TensorBoard and W&B curves if asked."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import RunDirectory, write_text


def read(run: RunDirectory) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl, oldest first; [] where there is none. A last line cut short by a kill is left out."""
    if not run.metrics.is_file():
        return []
    rows = []
    for line in run.metrics.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def cut_back(run: RunDirectory, step: int) -> None:
    """Drops the rows after `step`: they belong to steps that will be taken again."""
    rows = [row for row in read(run) if row["step"] <= step]
    write_text(run.metrics, "".join(json.dumps(row) + "\n" for row in rows))


class Log:
    """Writes rows of numbers; NaN and infinities are kept (JSON's NaN, Infinity).

    Args:
      run: the run directory.
      config: the run's config as plain data; its `log` section says where else to write.
      wandb_id: the id of the W&B run to go on with, or None.
    """

    def __init__(self, run: RunDirectory, config: Mapping[str, Any], wandb_id: str | None = None):
        self._board, self._wandb = None, None
        if config["log"]["wandb"]:
            try:
                import wandb
            except ImportError:
                raise UserError("log.wandb is set but wandb is not installed", fix="pip install wandb") from None
            self._wandb = wandb.init(
                project=config["log"]["wandb"], id=wandb_id, resume="allow", dir=str(run.root), config=dict(config)
            )
        if config["log"]["tensorboard"]:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(run.tensorboard))
        self._file = open(run.metrics, "a", encoding="utf-8")  # noqa: SIM115 - held for the whole run

    @property
    def wandb_id(self) -> str | None:
        """The W&B run's id, to be kept so that a resume goes on with the same curves."""
        return None if self._wandb is None else self._wandb.id

    def write(self, step: int, seconds: float, numbers: Mapping[str, float]) -> None:
        """Appends one row, and returns when it is on disk."""
        row = {"step": step, "seconds": round(seconds, 3), **numbers}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._board is not None:
            for name, number in numbers.items():
                if math.isfinite(number):
                    self._board.add_scalar(name, number, step)
        if self._wandb is not None:
            self._wandb.log(dict(numbers), step=step)

    def close(self) -> None:
        """Closes every writer."""
        self._file.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()
