"""Contrastive learning of visual representations, with its mutual information in nats.

From Python as from the shell:

  run = mi_contrast.train("simclr", data="photos/")    trains and returns a run: run.plot(), run.map(), run.evaluate()
  run = mi_contrast.open("runs/simclr-photos")         the same of a finished run
  mi_contrast.load(path).encode(images)                features of images by any backbone
  mi_contrast.estimate(x, y)                           the mutual information of two samples, with a verdict
  mi_contrast.estimators                               the estimators, as pure functions
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; at run time `__getattr__` imports each on first use
    from mi_contrast import estimators
    from mi_contrast.estimation import estimate
    from mi_contrast.front import train
    from mi_contrast.interchange.load import load
    from mi_contrast.run import Run
    from mi_contrast.run import open_run as open

__version__ = "0.2.0.dev0"

__all__ = ["Run", "__version__", "estimate", "estimators", "load", "open", "train"]

# The module of each name, and what it is called there.
_PLACES = {
    "Run": ("mi_contrast.run", "Run"),
    "estimate": ("mi_contrast.estimate", None),  # the job's module, which is a function as well
    "estimators": ("mi_contrast.estimators", None),
    "load": ("mi_contrast.interchange.load", "load"),
    "open": ("mi_contrast.run", "open_run"),
    "train": ("mi_contrast.front", "train"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that `import mi_contrast` stays quick."""
    if name not in _PLACES:
        raise AttributeError(f"module 'mi_contrast' has no attribute {name!r}")
    path, inside = _PLACES[name]
    module = importlib.import_module(path)
    return module if inside is None else getattr(module, inside)


def __dir__() -> list[str]:
    """Lists the public names, without the submodules that happen to be imported."""
    return sorted(__all__)
