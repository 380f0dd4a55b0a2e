"""Keeps pictures that belong together on one side of a split: equal files, bursts, patients, slides."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from mi_contrast.core.errors import UserError

IMAGE, FOLDER = "image", "folder"  # words of data.group; any other is a regular expression


def group_names(names: Sequence[str], word: str, twins: Iterable[Sequence[str]], where: str) -> dict[str, str]:
    """Returns the key of each picture's group.

    Args:
      names: paths with '/' between folders.
      word: 'image' (each picture alone), 'folder' (all pictures of one folder) or a regular expression, whose first
        group, or else whole match, in the name is the key.
      twins: pictures that must share a group in any case, because their files are equal. Groups that share a twin are
        one group, whose key is the first of theirs.
      where: the set's name, for messages.
    Raises:
      UserError: the expression can't be read, or does not match a name.
    """
    if word == IMAGE:
        keys = {name: name for name in names}
    elif word == FOLDER:
        keys = {name: str(PurePosixPath(name).parent) for name in names}
    else:
        keys = _match(names, word, where)
    parents: dict[str, str] = {}

    def find(key: str) -> str:
        while (parent := parents.get(key, key)) != key:
            key = parent
        return key

    for equal in twins:
        roots = sorted({find(keys[name]) for name in equal if name in keys})
        parents |= {root: roots[0] for root in roots[1:]}
    return {name: find(key) for name, key in keys.items()}


def _match(names: Sequence[str], pattern: str, where: str) -> dict[str, str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        fix = "give 'folder', 'image' or an expression such as 'patient(\\d+)'"
        raise UserError(f"data.group {pattern!r} is no regular expression ({error})", fix=fix) from None
    matches = {name: expression.search(name) for name in names}
    if missing := [name for name, match in matches.items() if match is None]:
        raise UserError(
            f"data.group {pattern!r} does not match {len(missing)} of {len(names)} pictures of {where}, such as "
            f"{missing[0]}",
            fix="give an expression that matches every name, or 'folder'",
        )
    return {name: match[1] if expression.groups and match[1] else match[0] for name, match in matches.items() if match}


def draw_share(key: str) -> float:
    """Returns a number in [0, 1) that depends on the key alone: the first 8 bytes of its sha256.

    >>> round(draw_share("cats/tom.jpg"), 4)
    0.758
    """
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def divide_names(
    names: Sequence[str], groups: Mapping[str, str], labels: Mapping[str, str] | None, share: float, where: str
) -> tuple[list[str], list[str]]:
    """Divides names into a training and a test part by whole groups, and returns both in the order of `names`.

    A group is tested on if the hash of its key is below `share`. New files therefore never move old ones to the other
    side. A class that would be on one side alone gives one of its groups to the other, if it has two: the one whose
    hash is nearest.

    Raises UserError if there is only one group.
    """
    of_class: dict[str, set[str]] = {}
    for name in names:
        of_class.setdefault("" if labels is None else labels[name], set()).add(groups[name])
    if len({key for keys in of_class.values() for key in keys}) < 2:
        raise UserError(f"{where} is one group, and has no test part", fix="give another data.group, or more pictures")
    tested = {key for keys in of_class.values() for key in keys if draw_share(key) < share}
    for keys in of_class.values():
        ordered = sorted(keys, key=draw_share)
        if len(keys) > 1 and not tested & keys:
            tested.add(ordered[0])
    for keys in of_class.values():
        ordered = sorted(keys, key=draw_share)
        if len(keys) > 1 and keys <= tested:
            tested.discard(ordered[-1])
    return [n for n in names if groups[n] not in tested], [n for n in names if groups[n] in tested]
