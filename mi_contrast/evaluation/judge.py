"""Judges a backbone by a task on a data set, and writes the result file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mi_contrast.core.config import to_plain_data
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.user_cache import use_compile_cache
from mi_contrast.evaluation import dense, diagnostics, feature_tasks, finetune, transfer
from mi_contrast.evaluation.task_config import Judgement, check_fields, load_split, resolve_data
from mi_contrast.evaluation.tasks import TASKS
from mi_contrast.interchange import LoadedBackbone

__all__ = ["JUDGES", "Judgement", "judge", "load_split", "resolve_data"]

# The judge of each kind of task.
JUDGES = {
    **dict.fromkeys(TASKS, feature_tasks.judge),
    "finetune": finetune.judge,
    "transfer": transfer.judge,
    "diagnostics": diagnostics.judge,
    "detection": dense.judge,
}


def judge(
    config: Mapping[str, Any],
    backbone: LoadedBackbone,
    workdir: Path | None = None,
    *,
    untrained: bool = False,
    twin: bool = False,
) -> Judgement:
    """Judges a backbone by the task that the config names, and writes results/<task>-<dataset>.json.

    A task on features (one of TASKS) extracts the features of two splits, or reads them from the cache, fits on the
    first split and scores the second one once. Images are resized by their short side to the backbone's size and
    centre-cropped. They are not augmented, unless the config names views to fit on. A fitted head is written next to
    the result, as .safetensors.

    The file name adds the label (unless it is the data set's main one), the test set (if it is a second data set) and
    'untrained' (if the untrained network is judged). If examples come in groups (such as frames of one object), the
    confidence interval uses the effective sample size: the number of independent examples that would be equally
    informative.

    Args:
      config: {'task', 'data', 'batch_size', 'seed'} and optionally 'features', as in configs/evaluate.
      backbone: as `interchange.open_source` returns it.
      workdir: folder for `results` and the cache of `features`; the run directory by default. An export needs it.
      untrained: judge the untrained twin, the same network before training, instead.
      twin: what `untrained` was called in 0.1.0.

    Returns:
      Judgement.

    Raises:
      UserError on a mistake in the config or the data, or if not all weights were loaded; BadNumbersError where
      features or scores are not finite.
    """
    use_compile_cache()
    config = to_plain_data(config)
    check_fields(config)
    check_loaded(backbone)
    kind = config["task"].get("kind")
    if kind not in JUDGES:
        raise unknown("task", kind, JUDGES)
    return JUDGES[kind](config, backbone, workdir, untrained=untrained or twin)


def check_loaded(backbone: LoadedBackbone) -> None:
    """Raises UserError unless all of the network's tensors were loaded. A partly loaded network would score too low."""
    expected = len(jax.tree.leaves(backbone.representation.variables))
    if backbone.tensors != expected or expected == 0:
        raise UserError(
            f"{backbone.tensors} of the network's {expected} tensors were loaded from {backbone.source}",
            fix="judge a backbone whose weights are all loaded, or its untrained twin with --untrained",
        )
