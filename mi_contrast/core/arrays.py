"""Checks an .npz file before it is read, so that a false header cannot make numpy allocate too much memory."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np


def check_npz_sizes(path: str | Path) -> None:
    """Raises ValueError if the header of an array in an .npz file claims more bytes than the file holds.

    A damaged file raises what `zipfile` and `numpy.lib.format` raise: BadZipFile or ValueError.
    """
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                is_first = version == (1, 0)
                read_header = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
                shape, _, dtype = read_header(file)
                num_bytes = member.file_size - file.tell()
            if not dtype.hasobject and math.prod(shape) * dtype.itemsize > num_bytes:
                raise ValueError(f"{member.filename} claims shape {list(shape)} and holds {num_bytes} bytes")
