"""What tells a set from what it was: plain data that is kept with a run, and the line that says what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

MAX_NAMED = 20_000  # files up to which each is kept by name, so that what changed can be named


def fingerprint_files(sizes: Mapping[str, int], classes: Sequence[str], where: str) -> dict[str, Any]:
    """The fingerprint of files by name and size in bytes: their count, and a sum that no order changes.

    The sum is that of the first 8 bytes of the sha256 of every 'name size', modulo 2^64, in hexadecimal.
    """
    each = (hashlib.sha256(f"{name} {size}".encode()).digest()[:8] for name, size in sizes.items())
    total = sum(int.from_bytes(first, "big") for first in each) % 2**64
    named = {"sizes": dict(sorted(sizes.items()))} if len(sizes) <= MAX_NAMED else {}
    return {"set": where, "files": len(sizes), "sum": f"{total:016x}", "classes": list(classes), **named}


def describe_change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """What differs between a set's fingerprints, in part of a line; None where nothing does."""
    old, new = ({k: v for k, v in found.items() if k not in ("set", "sizes")} for found in (before, now))
    if old == new:
        return None
    if "files" not in old or "files" not in new:
        field = next(k for k in [*old, *new] if old.get(k) != new.get(k))
        return f"{now.get('set')} has {field} {new.get(field)}, the run began with {old.get(field)}"
    said = f"{now['set']} has {new['files']} files, the run began with {old['files']}"
    was, is_now = before.get("sizes"), now.get("sizes")
    if was is None or is_now is None:
        return said + ("" if new["files"] != old["files"] else " of other names or sizes")
    kinds = {
        "missing": [name for name in was if name not in is_now],
        "new": [name for name in is_now if name not in was],
        "of another size": [name for name in was if name in is_now and was[name] != is_now[name]],
    }
    shown = [
        f"{names[0]} is {kind}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        for kind, names in kinds.items()
        if names
    ]
    return f"{said}: {', '.join(shown) or 'a class came or went'}"
