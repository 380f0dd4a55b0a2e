"""Fingerprints of data sets. A run stores one, so that a later start can say what has changed on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

MAX_NAMED = 20_000  # larger sets are stored without the names of their files, and a change then names no file


def fingerprint_files(sizes: Mapping[str, int], classes: Sequence[str], where: str) -> dict[str, Any]:
    """Returns the fingerprint of files, given their sizes in bytes by name.

    It has the number of files and a checksum that does not depend on their order: the sum, modulo 2^64, of the first
    8 bytes of the sha256 of 'name size', in hexadecimal.
    """
    digests = (hashlib.sha256(f"{name} {size}".encode()).digest()[:8] for name, size in sizes.items())
    total = sum(int.from_bytes(digest, "big") for digest in digests) % 2**64
    named = {"sizes": dict(sorted(sizes.items()))} if len(sizes) <= MAX_NAMED else {}
    return {"set": where, "files": len(sizes), "sum": f"{total:016x}", "classes": list(classes), **named}


def describe_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Describes how a set's fingerprint has changed, as part of a line. Returns None if it has not."""
    old, new = ({k: v for k, v in one.items() if k not in ("set", "sizes")} for one in (before, now))
    if old == new:
        return None
    if "files" not in old or "files" not in new:
        field = next(k for k in [*old, *new] if old.get(k) != new.get(k))
        return f"{now.get('set')} has {field} {new.get(field)}, the run began with {old.get(field)}"
    counts = f"{now['set']} has {new['files']} files, the run began with {old['files']}"
    old_sizes, new_sizes = before.get("sizes"), now.get("sizes")
    if old_sizes is None or new_sizes is None:
        return counts + ("" if new["files"] != old["files"] else " of other names or sizes")
    kinds = {
        "missing": [name for name in old_sizes if name not in new_sizes],
        "new": [name for name in new_sizes if name not in old_sizes],
        "of another size": [name for name in old_sizes if new_sizes.get(name, old_sizes[name]) != old_sizes[name]],
    }
    changes = [
        f"{names[0]} is {kind}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for kind, names in kinds.items()
        if names
    ]
    return f"{counts}: {', '.join(changes) or 'a class came or went'}"
