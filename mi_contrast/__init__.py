"""Contrastive learning of visual representations, with its mutual information in nats.

From Python as from the shell: `mi_contrast.train(config, workdir)`, `mi_contrast.load(path)`, `mi_contrast.estimators`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; at run time `__getattr__` imports each on first use
    from mi_contrast import estimators
    from mi_contrast.interchange.load import load
    from mi_contrast.main import train

__version__ = "0.2.0.dev0"

__all__ = ["__version__", "estimators", "load", "train"]

_MODULES = {"train": "mi_contrast.main", "load": "mi_contrast.interchange.load", "estimators": "mi_contrast.estimators"}


def __getattr__(name: str) -> Any:
    """Imports `train`, `load` or `estimators` on first use, so that `import mi_contrast` stays quick."""
    if name not in _MODULES:
        raise AttributeError(f"module 'mi_contrast' has no attribute {name!r}")
    module = importlib.import_module(_MODULES[name])
    return module if name == "estimators" else getattr(module, name)


def __dir__() -> list[str]:
    """Lists the public names, without the submodules that happen to be imported."""
    return sorted(__all__)
