"""What studies' configs change of their runs alike, as plain data."""

from __future__ import annotations

from typing import Any

OFTEN: dict[str, Any] = {"checkpoint.every": 200, "log.tensorboard": False}  # saved often, for many are stopped
AT_ENDS = {**OFTEN, "eval.every": 10000}  # and measured at the first step and the last alone
TINY: dict[str, Any] = {"model.backbone": "tiny", "model.width": 64, "data.batch": 128, "steps": 600}  # minutes a run
# Of SimCLR's two terms: at its .5 cosines keep the nats far below the ceiling.
COLD = {f"method.terms.{i}.temperature": 0.2 for i in (0, 1)}
