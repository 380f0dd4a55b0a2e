"""What studies' configs change of their runs alike, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

OFTEN: dict[str, Any] = {"checkpoint.every": 200, "log.tensorboard": False}  # saved often, for many are stopped
AT_ENDS = {**OFTEN, "eval.every": 10000}  # and measured at the first step and the last alone
TINY: dict[str, Any] = {"model.backbone": "tiny", "model.width": 64, "data.batch": 128, "steps": 600}  # minutes a run
# Of SimCLR's two terms: at its .5 cosines keep the nats far below the ceiling.
COLD = {f"method.terms.{i}.temperature": 0.2 for i in (0, 1)}


def runs(
    rows: Iterable[tuple[str, str, str, Mapping[str, Any]]],
    variant: str,
    common: Mapping[str, Any],
    seeds: tuple[int, ...],
) -> tuple[dict[str, Any], ...]:
    """A study's runs from (group, label, row of the table, changes) each; what is common gives way to a row's own."""
    return tuple(
        dict(
            group=group,
            label=label,
            config=f"configs/{row}.py",
            variant=variant,
            changes={**common, **changes},
            seeds=seeds,
        )
        for group, label, row, changes in rows
    )
