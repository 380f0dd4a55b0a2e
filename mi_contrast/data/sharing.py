"""Divides the decoding of a set over the processes of a run, so that each decodes only its own part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mi_contrast.core import processes
from mi_contrast.core.mesh import gather_rows, share_rows


def share_work(read: Callable[[np.ndarray], Sequence[np.ndarray]], indices: np.ndarray) -> list[np.ndarray]:
    """Returns the arrays `read(indices)`, of which each process reads a contiguous part. The parts are then exchanged.

    Every process must call this at the same place with the same indices. One process reads everything itself.

    Args:
      read: returns arrays whose axis 0 belongs to the indices. Their shapes and types must not depend on the process.
    Raises:
      UserError: a process could not read its part. Every process raises the error of the first such process.
    """
    count = len(indices)
    with processes.together():
        arrays = read(indices[share_rows(count)])
    return [gather_rows(array, count) for array in arrays]
