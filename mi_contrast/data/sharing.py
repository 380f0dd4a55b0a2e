"""Divides the decoding of a set over the processes of a run, so that each decodes only its own part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from mi_contrast.core.errors import FileError, UserError

MESSAGE_BYTES = 2048  # of the line that is exchanged if a process can't read its part


def share_work(read: Callable[[np.ndarray], Sequence[np.ndarray]], indices: np.ndarray) -> list[np.ndarray]:
    """Returns the arrays `read(indices)`, of which each process reads a contiguous part. The parts are then exchanged.

    Every process must call this at the same place with the same indices. One process reads everything itself.

    Args:
      read: returns arrays whose axis 0 belongs to the indices. Their shapes and types must not depend on the process.
    Raises:
      UserError: a process could not read its part. Every process raises the error of the first such process.
    """
    count = jax.process_count()
    if count == 1:
        return list(read(indices))
    size = -(-len(indices) // count)
    part = np.resize(indices, count * size)[size * jax.process_index() :][:size]  # the last one is filled up
    arrays: Sequence[np.ndarray] = ()
    error: UserError | None = None
    try:
        arrays = read(part)
    except UserError as caught:
        error = caught
    raise_together(error)
    joined = (np.asarray(multihost_utils.process_allgather(array, tiled=True)) for array in arrays)
    return [array[: len(indices)] for array in joined]


def raise_together(error: UserError | None) -> None:
    """Raises `error` here or, if this process has none, the error of the first process that has one."""
    message = np.zeros(MESSAGE_BYTES, np.uint8)
    text = f"{error.what}\0{error.fix}".encode()[:MESSAGE_BYTES] if error is not None else b""
    message[: len(text)] = np.frombuffer(text, np.uint8)
    for row in np.asarray(multihost_utils.process_allgather(message)):
        what, _, fix = bytes(row).decode(errors="ignore").rstrip("\0").partition("\0")
        if what:
            raise error if error is not None else FileError(what, fix=fix)
