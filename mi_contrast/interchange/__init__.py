"""In and out: `load` a representation from a run directory or an export, `write_export` one for other tools."""

from mi_contrast.interchange.export import write_export
from mi_contrast.interchange.load import load, open_source
from mi_contrast.interchange.loaded import Loaded

__all__ = ["Loaded", "load", "open_source", "write_export"]
