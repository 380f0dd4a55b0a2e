"""One judgement: a backbone, a data set, a task; a top-1 with its interval, a result file, the fitted head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mi_contrast.core.config import plain
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.evaluation import dense, diagnostics, finetune, on_features, transfer
from mi_contrast.evaluation.asked import Judgement, check_fields, chosen_data, load_split
from mi_contrast.evaluation.tasks import TASKS
from mi_contrast.interchange import Loaded

__all__ = ["JUDGES", "Judgement", "chosen_data", "judge", "load_split"]

# Of each kind of task; those of TASKS are fits on features.
JUDGES = {
    **dict.fromkeys(TASKS, on_features.judge),
    "finetune": finetune.judge,
    "transfer": transfer.judge,
    "diagnostics": diagnostics.judge,
    "detection": dense.judge,
}


def judge(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None = None, *, twin: bool = False) -> Judgement:
    """Judges a backbone by the task that the config names, and writes results/<task>-<dataset>.json.

    Of a task on features (TASKS): takes features of both splits, or reads those that an earlier task kept; fits on one
    split, scores the other once. Images are resized by their short side to the backbone's size and centre-cropped,
    never augmented unless the config asks for views to fit on. The file's name grows by the label where it isn't the
    set's main one, by the set that is tested on where it is another, and by 'untrained' for the twin; a fitted head
    lies beside it as .safetensors. Where the set has groups (frames of one object), the interval counts as many
    examples as would tell as much independently.

    Args:
      config: {'task', 'data', 'batch_size', 'seed'} and perhaps 'features', as in configs/evaluate.
      workdir: where `results` and kept `features` go; the run directory itself by default, needed for an export.
      twin: judge the same network before training instead.

    Returns:
      Judgement.

    Raises:
      UserError on any mistake in the config or the data, or where weights are not all loaded; BadNumbersError where
      features or scores are not finite.
    """
    config = plain(config)
    check_fields(config)
    check_loaded(backbone)
    kind = config["task"].get("kind")
    if kind not in JUDGES:
        raise unknown("task", kind, JUDGES)
    return JUDGES[kind](config, backbone, workdir, twin=twin)


def check_loaded(backbone: Loaded) -> None:
    """UserError where fewer tensors were loaded than the network has: such a backbone would be scored at chance."""
    held = len(jax.tree.leaves(backbone.representation.variables))
    if backbone.tensors != held or held == 0:
        raise UserError(
            f"{backbone.tensors} of the network's {held} tensors were loaded from {backbone.source}",
            fix="judge a backbone whose weights are all loaded, or its untrained twin with --untrained",
        )
