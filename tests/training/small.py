"""A run of seconds: embedded digits, a network of a few thousand weights, a queue that fills within the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mi_contrast.core.config import load_config, to_plain_data

ROOT = Path(__file__).parents[2]
DATA = ROOT / ".cache" / "data"


def config(name: str = "ring_moco", **changes: Any) -> dict[str, Any]:
    """The small run of configs/<name>.py; changes are dotted names with '__' for '.': optim__lr=.1."""
    found = to_plain_data(load_config(f"configs/{name}.py:digits")[0])
    small = {
        "data__dir": str(DATA), "data__batch": 32, "data__options": {"size": 32, "length": 2}, "model__width": 8,
        "steps": 12, "eval__every": 12, "eval__pairs": 16, "eval__knn_bank": 64, "checkpoint__every": 100,
        "log__every": 1, "log__tensorboard": False, "method__pools": {"queue": {"size": 100}},
    }  # fmt: skip
    for path, value in (small | changes).items():
        at = found
        *way, last = path.split("__")
        for name in way:
            at = at[name]
        assert last in at, path
        at[last] = value
    return found
