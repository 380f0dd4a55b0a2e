"""The table of pools: what a config calls a kind of pool, and the class that follows the protocol of pools."""

from __future__ import annotations

from mi_contrast.pools.bank import BankPool
from mi_contrast.pools.in_batch import BatchPool
from mi_contrast.pools.protocol import Pool
from mi_contrast.pools.queue import QueuePool

KINDS: dict[str, type[Pool]] = {
    "in_batch": BatchPool,
    "queue": QueuePool,
    "bank": BankPool,
}


def find_kind(pool: Pool) -> str:
    """Returns what a config calls a pool of this class."""
    return next(kind for kind, pool_class in KINDS.items() if type(pool) is pool_class)
