"""Changes that the configs of several studies make to their runs, as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# Checkpoints are frequent, because studies are often stopped.
SAVE_OFTEN: dict[str, Any] = {"checkpoint.every": 200, "log.tensorboard": False}
# The run is measured only at its first and its last step.
MEASURE_AT_ENDS = {**SAVE_OFTEN, "eval.every": 10000}
TINY: dict[str, Any] = {"model.backbone": "tiny", "model.width": 64, "data.batch": 128, "steps": 600}  # minutes a run
# For SimCLR's two terms. At its own temperature, .5, cosines in [-1, 1] keep the nats far below the ceiling.
LOW_TEMPERATURE = {f"method.terms.{i}.temperature": 0.2 for i in (0, 1)}


def make_runs(
    rows: Iterable[tuple[str, str, str, Mapping[str, Any]]],
    variant: str,
    common: Mapping[str, Any],
    seeds: tuple[int, ...],
) -> tuple[dict[str, Any], ...]:
    """Returns the runs of a study.

    Args:
      rows: (group, label, name of a method's config, changes) of each run.
      variant: of all configs.
      common: changes of all runs; a run's own changes override them.
      seeds: of all runs.
    """
    return tuple(
        dict(
            group=group,
            label=label,
            config=f"configs/{method}.py",
            variant=variant,
            changes={**common, **changes},
            seeds=seeds,
        )
        for group, label, method, changes in rows
    )
