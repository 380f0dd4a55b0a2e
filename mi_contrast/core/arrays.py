"""Guards on numpy's files: what a header claims is compared with the file before memory is allocated."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np


def check_npz_sizes(path: str | Path) -> None:
    """Raises ValueError where an array in an .npz file claims more bytes than its member holds.

    Args:
      path: an .npz file. A damaged one raises what `zipfile` and `numpy.lib.format` raise: BadZipFile, ValueError.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                old = version == (1, 0)
                read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                held = member.file_size - file.tell()
            if not dtype.hasobject and math.prod(shape) * dtype.itemsize > held:
                raise ValueError(f"{member.filename} claims shape {list(shape)} and holds {held} bytes")
