"""Reads and writes backbones.

`load` reads a representation from a run directory, an export or another trainer's file. `convert` writes it for other
tools. `write_export` writes the export at the end of a training.
"""

from mi_contrast.interchange.export import write_export
from mi_contrast.interchange.formats import FORMATS, convert
from mi_contrast.interchange.load import load, open_source
from mi_contrast.interchange.loaded_backbone import LoadedBackbone

__all__ = ["FORMATS", "LoadedBackbone", "convert", "load", "open_source", "write_export"]
