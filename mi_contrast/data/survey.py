"""Looks at the pictures of a set once, before its first training, and settles what the config leaves open about them.

The fields of `config.data` that may be open (None) are `labels`, `group`, `test_share`, `split`, `test_split` and
`broken`. `survey` fills them from what is there, says so in sentences, and counts what a config is fitted to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import check_mounted
from mi_contrast.data import own, sets
from mi_contrast.data.broken import MAX_NAMED, check_broken_share, drop_broken
from mi_contrast.data.collect import FOLDERS, NONE
from mi_contrast.data.grouping import IMAGE
from mi_contrast.data.pairing import split_held_out
from mi_contrast.data.pictures import Pictures
from mi_contrast.data.scan import Scan, scan_pictures

MOST_BROKEN = 0.2  # share of broken pictures above which nothing is trained without being told to
LABELLED, UNLABELLED = 0.2, 0.1  # share to test on, with and without labels
SMALL = 16  # pixels: pictures with a shorter side are pointed out
SHOWN = 8  # kinds, sizes or classes that a line names
TRAINED, HELD_OUT = 8, 2  # the least pictures to train on, and to hold out of training to measure it
# Where a twentieth is less, so many are held out, but no more than a fifth: with fewer the figures are mostly chance.
MEANINGFUL, LARGEST_SHARE = 20, 5


@dataclass(frozen=True)
class Survey:
    """What a config is fitted to.

    Attributes:
      data: the fields of config.data that were open, and their values.
      lines: what was seen, for the user.
      reasons: why each open field has its value, by field.
      train, held_out, test: number of examples that are trained on, held out to measure, and tested on. Pictures that
        can't be read count in none of them.
      broken: number of pictures that can't be read.
      unused: number of pictures that are in neither split.
      classes: number of classes; 0 without labels.
      short_side: median of the pictures' shorter sides in pixels.
      image_shape: (H, W) if all have one size, else None.
    """

    data: Mapping[str, Any]
    lines: tuple[str, ...]
    reasons: Mapping[str, str]
    train: int
    held_out: int
    test: int
    classes: int
    short_side: int
    image_shape: tuple[int, int] | None
    broken: int = 0
    unused: int = 0

    @property
    def uses(self) -> str:
        """What became of every picture that was found, in words."""
        parts = {"can't be read": self.broken, "to train on": self.train, "held out to measure training": self.held_out,
                 "to test on": self.test, "not used": self.unused}  # fmt: skip
        return ", ".join(f"{count:,} {what}" for what, count in parts.items() if count)


def survey(data: Mapping[str, Any], held_out: int | None = None) -> Survey:
    """Returns what there is in the set that `data` names, a section config.data whose fields may be None.

    Args:
      held_out: least number of examples that are held out to measure training; None for `choose_held_out`.
    Raises:
      UserError if there is no such set, or a field that is given can't be had.
    """
    name = data["name"]
    if not name:
        raise UserError("config.data.name is None", fix="name the pictures: --config.data.name=folder:PATH")
    kind = name.partition(":")[0]
    if kind in own.KINDS and ":" in name:
        return _survey_pictures(kind, data, held_out)
    given = {"labels", "group"} & {field for field, value in data.items() if value is not None}
    if given or data["test_share"]:
        raise UserError(f"{name} takes no data.{(*given, 'test_share')[0]}", fix="leave it out: the set has its own")
    fields = {"split": "train", "test_split": "test", "broken": 0.0, "test_share": 0.0}
    values = {field: value for field, value in fields.items() if data[field] is None}
    return _count({**data, **values}, values, [], {}, None, held_out)


def _survey_pictures(kind: str, data: Mapping[str, Any], held_out: int | None) -> Survey:
    check_mounted(data["name"].partition(":")[2], "--config.data.name")
    is_hub = kind == "hf" and data["dir"] is None
    path = data["name"].partition(":")[2] if is_hub else str(sets.resolve_path(data["name"], data["dir"]))
    pictures = own.collect(kind, path, data["labels"])
    scan = scan_pictures(pictures)
    check_enough(pictures, scan)
    values, reasons = dict[str, Any](), dict[str, str]()

    def settle(field: str, value: Any, why: str) -> None:
        if data[field] is None:
            values[field], reasons[field] = value, why

    has_labels, test = pictures.labels is not None, own.find_test_split(pictures)
    word = NONE if not has_labels else "labels" if kind == "arrays" else "label" if kind == "hf" else FOLDERS
    settle("labels", word, describe_labels(pictures))
    settle("group", IMAGE, "equal files stay on one side of every split; 'folder' or an expression keeps more together")
    settle("split", own.find_train_split(pictures), "pictures to train on")
    whose = "labels are there and no test pictures" if has_labels else "so that something is left to judge on"
    share = 0.0 if test else LABELLED if has_labels else UNLABELLED
    settle("test_share", share, f"the test pictures are the split {test!r}" if test else f"{whose}")
    chosen = {**data, **values}
    divided, groups = own.arrange(pictures, scan, chosen["group"], chosen["test_share"])
    settle("test_split", own.find_test_split(divided) or "test", "pictures to judge on; nothing is trained on them")
    if data["broken"] is None:
        drop_broken(pictures.names, scan.reasons, MOST_BROKEN, pictures.name, lambda line: None)
    least = max(_share(names, scan.reasons) for names in divided.splits.values())
    settle("broken", least, "the share of a split that may be left out, because it can't be read")
    chosen = {**data, **values}
    lines = describe(pictures, scan)
    for names in divided.splits.values():
        drop_broken(names, scan.reasons, check_broken_share(chosen["broken"]), pictures.name, lambda line: None)
    if scan.reasons:
        lines += describe_broken(scan.reasons)
    seen = _count(chosen, values, lines, reasons, scan.list_sides(pictures.names), held_out)
    broken = len(scan.reasons)
    left = len(pictures.names) - broken - seen.train - seen.held_out - seen.test
    seen = replace(seen, broken=broken, unused=0 if chosen["options"] else left)
    return replace(seen, lines=(*lines, describe_division(seen, chosen, groups or {})))


def _share(names: Sequence[str], broken: Mapping[str, str]) -> float:
    """Returns the share of broken names, rounded up to four digits, so that it allows them."""
    count = sum(name in broken for name in names)
    return float(np.ceil(1e4 * count / max(len(names), 1)) / 1e4)


def _count(
    data: Mapping[str, Any],
    values: Mapping[str, Any],
    lines: Sequence[str],
    reasons: Mapping[str, str],
    sides: np.ndarray | None,
    held_out: int | None,
) -> Survey:
    """Returns the survey of the set that `data` names. With sides None, the first image stands for all."""
    images = sets.load_section(data, size=None)
    train_ids, held_out_ids = split_held_out(images, least=held_out or choose_held_out(len(images)))
    shape: tuple[int, int] | None = images.image_shape[:2]
    if sides is not None and len(np.unique(sides, axis=0)) > 1 and not data["options"]:
        shape = None
    short = min(images.image_shape[:2]) if sides is None or shape else int(np.median(sides.min(axis=1)))
    label = data["label"] or next(iter(images.labels), None)
    try:
        test = len(sets.load_section(data, data["test_split"], size=None))
    except UserError:
        test = 0
    classes = len(images.classes.get(label, ())) if label else 0
    return Survey(values, tuple(lines), reasons, len(train_ids), len(held_out_ids), test, classes, short, shape)


def describe(pictures: Pictures, scan: Scan) -> list[str]:
    """Returns what there is in lines: how many of which kind and size, what was passed over, and equal files."""
    names = pictures.names
    kinds = [f"{count:,} {kind}" for kind, count in scan.count_kinds(names).items()]
    lines = [f"{pictures.name}: {len(names):,} pictures: {', '.join(kinds)}"]
    sides = scan.list_sides(names)
    if len(sides):
        short, long = sides.min(axis=1), sides.max(axis=1)
        lines.append(
            f"their shorter sides have {short.min():,} to {short.max():,} pixels, "
            f"half of them {int(np.median(short)):,} or more; the longest side has {long.max():,}"
        )
        if tiny := [n for n in names if 0 < min(scan.looks[n].width, scan.looks[n].height) < SMALL]:
            have = "picture has" if len(tiny) == 1 else "pictures have"
            lines.append(
                f"{len(tiny)} {have} a side of fewer than {SMALL} pixels, and may be trained on: {_list(tiny)}"
            )
    if pictures.others:
        others = [f"{count} {suffix or 'without suffix'}" for suffix, count in pictures.others.items()]
        lines.append(f"other files, which are passed over: {_list(others)}")
    if twins := scan.list_twins():
        count = "1 group" if len(twins) == 1 else f"{len(twins)} groups"
        lines.append(f"{count} of equal files, {sum(map(len, twins))} files, such as {' = '.join(twins[0][:3])}")
    lines += describe_leaks(pictures, twins)
    if pictures.labels is not None:
        counts = Counter(pictures.labels[name] for name in names)
        shown = [f"{label} {count:,}" for label, count in sorted(counts.items())]
        lines.append(f"{len(counts)} classes: {_list(shown)}")
    if len(pictures.splits) > 1:
        lines.append("splits: " + ", ".join(f"{split} {len(names):,}" for split, names in pictures.splits.items()))
    return lines


def describe_leaks(pictures: Pictures, twins: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line about equal files that the folders of two splits share, which nothing here can set apart."""
    split_of = {name: split for split, names in pictures.splits.items() for name in names}
    leaks = [names for names in twins if len({split_of[name] for name in names}) > 1]
    if not leaks:
        return []
    shown = " = ".join(leaks[0][:2])
    return [f"{len(leaks)} pictures lie in the folders of two splits, such as {shown}: remove one of them"]


def describe_labels(pictures: Pictures) -> str:
    """Returns where the labels of pictures are from, in words."""
    if pictures.labels is not None:
        return f"each picture has one of {len(pictures.classes)} classes; 'none' trains and judges without"
    return "there are no class folders; labels.csv with the columns file,label gives labels"


def describe_broken(reasons: Mapping[str, str]) -> list[str]:
    """Returns the broken pictures in lines, all of them if they are few."""
    lines = [f"  {Path(name)}: {why}" for name, why in list(sorted(reasons.items()))[:MAX_NAMED]]
    more = [f"  and {len(reasons) - MAX_NAMED} more"] if len(reasons) > MAX_NAMED else []
    return [f"{len(reasons)} can't be read and are left out:", *lines, *more]


def describe_division(seen: Survey, data: Mapping[str, Any], groups: Mapping[str, str]) -> str:
    """Returns how many pictures are trained on, measured on and tested on, and by which rule, in a line."""
    line = f"{'tiles' if data['options'] else 'pictures'}: {seen.uses}"
    if not data["test_share"]:
        return line
    count = len(set(groups.values()))
    of_groups = f"; {count:,} groups stay whole" if count < len(groups) else ""
    share = f"data.test_share={data['test_share']:g}"
    return f"{line} ({share}, by a hash of the names, so that new pictures never move old ones{of_groups})"


def choose_held_out(count: int) -> int:
    """Returns the least number of `count` pictures that are held out of training to measure it."""
    return max(HELD_OUT, min(MEANINGFUL, count // LARGEST_SHARE))


def check_enough(pictures: Pictures, scan: Scan) -> None:
    """Raises UserError if there are too few pictures to train on some and hold out others, whatever the division."""
    found, broken = len(pictures.names), len(scan.reasons)
    copies = sum(len(names) - 1 for names in scan.list_twins())
    if (usable := found - broken - copies) >= TRAINED + HELD_OUT:
        return
    reasons = [f"{broken} can't be read"] if broken else []
    reasons += [f"{copies} {'are copies' if copies > 1 else 'is a copy'} of others"] if copies else []
    why = f", of which {' and '.join(reasons)}: {usable} are too few" if reasons else ", too few"
    raise UserError(
        f"{pictures.name} has {found} picture{'s' if found > 1 else ''}{why} to train on and to measure",
        fix=f"give {TRAINED + HELD_OUT} different pictures or more",
    )


def _list(words: Sequence[str]) -> str:
    return ", ".join(words[:SHOWN]) + (f" and {len(words) - SHOWN} more" if len(words) > SHOWN else "")
