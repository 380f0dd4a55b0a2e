"""In and out: `load` a representation from a run directory, an export or another trainer's file, `convert` it for other
tools; `write_export` is what a training leaves.
"""

from mi_contrast.interchange.export import write_export
from mi_contrast.interchange.formats import FORMATS, convert
from mi_contrast.interchange.load import load, open_source
from mi_contrast.interchange.loaded import Loaded

__all__ = ["FORMATS", "Loaded", "convert", "load", "open_source", "write_export"]
