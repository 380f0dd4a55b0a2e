"""Contrastive learning of visual representations, with its mutual information in nats.

From Python as from the shell: `mi_contrast.train(config, workdir)`, `mi_contrast.load(path)`, `mi_contrast.estimators`.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0.dev0"

_DOORS = {
    "train": ("mi_contrast.main", "train"),
    "load": ("mi_contrast.interchange.load", "load"),
    "estimators": ("mi_contrast.estimators", None),
}

__all__ = ["__version__", "estimators", "load", "train"]


def __getattr__(name: str) -> Any:
    """Opens a door when it is first asked for, so that `import mi_contrast` stays quick."""
    if name not in _DOORS:
        raise AttributeError(f"module 'mi_contrast' has no attribute {name!r}")
    module, attribute = _DOORS[name]
    found = importlib.import_module(module)
    return found if attribute is None else getattr(found, attribute)
