"""Loads pictures that people have: a folder, a zip of one, a list of paths, an array, a set of Hugging Face.

Pictures may lie at any depth here. A folder whose data.labels is not given is listed by `folders` instead, in the
strict layout that runs of 0.1.0 and published configs began with. Both make their ImageSet by
`pictures.make_image_set`.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from mi_contrast.core.errors import UserError
from mi_contrast.data import arrays
from mi_contrast.data.collect import TEST, TRAIN, collect_folder, collect_list
from mi_contrast.data.decoding import enable_heic
from mi_contrast.data.grouping import IMAGE, divide_names, group_names
from mi_contrast.data.imageset import ImageSet
from mi_contrast.data.pictures import Pictures, make_image_set
from mi_contrast.data.scan import Scan, scan_pictures

KINDS = ("folder", "list", "arrays", "hf")
KIND_OF_SUFFIX = {".txt": "list", ".npz": "arrays"}  # of a file; anything else is a folder or a zip of one
FILES = (".zip", ".txt", ".npz", ".parquet")  # suffixes that a run directory is not called after


def name_pictures(text: str) -> str:
    """Returns data.name of one's own pictures, 'kind:PATH'.

    Args:
      text: a folder or a zip of one; a list of paths (.txt) or an array (.npz); or a name such as 'hf:NAME'.
    """
    if text.partition(":")[0] in KINDS:
        return text
    return f"{KIND_OF_SUFFIX.get(PurePath(text).suffix.lower(), 'folder')}:{text.rstrip('/') or text}"


def shorten_name(name: str) -> str:
    """Returns the word for a run directory of the set `name`: the last part of its path, without a file's suffix."""
    place = Path(name.partition(":")[2] or name).expanduser().resolve()
    return place.stem if place.suffix in FILES else place.name


def collect(kind: str, path: str, labels: str | None) -> Pictures:
    """Returns the pictures that 'kind:PATH' names, before anything is divided.

    Args:
      kind: one of `KINDS`.
      labels: where labels are from (see `collect.collect_folder`).
    Raises UserError if there are no such pictures or labels.
    """
    if kind == "folder":
        pictures = collect_folder(Path(path), f"folder:{path}", labels)
    elif kind == "list":
        pictures = collect_list(Path(path), f"list:{path}", labels)
    elif kind == "arrays":
        pictures = arrays.collect_arrays(Path(path), f"arrays:{path}", labels)
    else:
        hub = importlib.import_module("mi_contrast.data.hub")  # imports `datasets`, which takes seconds
        pictures = hub.collect_hub(path, f"hf:{path}", labels)
    enable_heic(pictures.root, pictures.names)
    return pictures


def load(
    kind: str,
    path: str,
    split: str,
    *,
    size: int | None = None,
    options: Mapping[str, Any] | None = None,
    broken: float = 0.0,
    known_broken: Collection[str] | None = None,
    labels: str | None = None,
    group: str | None = None,
    test_share: float = 0.0,
) -> ImageSet:
    """Loads one split of the pictures that 'kind:PATH' names.

    Args:
      kind, path, labels: as for `collect`.
      split, size, options, broken: as for `pictures.make_image_set`.
      known_broken: pictures that an earlier scan found broken. If given, no others are left out.
      group, test_share: as for `arrange`.
    Raises UserError if there are no such pictures, labels, groups or split.
    """
    pictures = collect(kind, path, labels)
    scan = scan_pictures(pictures)
    pictures, groups = arrange(pictures, scan, group, test_share)
    reasons = scan.reasons if known_broken is None else dict.fromkeys(known_broken, "")
    return make_image_set(pictures, split, size=size, options=options, broken=broken, reasons=reasons, groups=groups)


def arrange(
    pictures: Pictures, scan: Scan, group: str | None, test_share: float
) -> tuple[Pictures, dict[str, str] | None]:
    """Returns the pictures with a test part, and the group of each picture.

    Args:
      group: 'image', 'folder' or a regular expression (see `grouping.group_names`). Equal files share a group. With
        None every picture is a group of its own, unless a part is set apart: then it stands for 'image'.
      test_share: the share of the split 'train' that becomes the split 'test', by the hash of the group's key
        (`grouping.divide_names`). With 0 the splits stay as they are.
    Raises:
      UserError: a word is no group or no share, there is a test part already, or each class is in one group.
    """
    if isinstance(test_share, bool) or not isinstance(test_share, (int, float)) or not 0 <= test_share < 1:
        raise UserError(f"data.test_share is {test_share!r}", fix="give the share to test on, such as 0.2")
    if group is None and test_share == 0:
        return pictures, None
    groups = group_names(pictures.names, group or IMAGE, scan.list_twins(), pictures.name)
    if test_share == 0:
        return pictures, groups
    if test := find_test_split(pictures):
        raise UserError(f"{pictures.name} has the split {test!r} already", fix="set data.test_share=0")
    split = find_train_split(pictures)
    names = pictures.splits[split]
    if group not in (None, IMAGE) and pictures.labels is not None:
        check_classes(pictures, groups, str(group))
    train, test_names = divide_names(names, groups, pictures.labels, test_share, pictures.name)
    splits = {**pictures.splits, split: tuple(train), "test": tuple(test_names)}
    return replace(pictures, splits=splits), groups


def find_train_split(pictures: Pictures) -> str:
    """Returns the name of the split to train on, which all pictures are where there are no folders for splits."""
    words = {split.lower(): split for split in pictures.splits}
    return next((words[word] for word in TRAIN if word in words), next(iter(pictures.splits)))


def find_test_split(pictures: Pictures) -> str | None:
    """Returns the name of the split to test on, 'test' before others, or None if there is none."""
    words = {split.lower(): split for split in pictures.splits}
    return next((words[word] for word in TEST if word in words), None)


def check_classes(pictures: Pictures, groups: Mapping[str, str], word: str) -> None:
    """Raises UserError if every class is in one group, so that no class could be both trained and tested on."""
    assert pictures.labels is not None
    of_class: dict[str, set[str]] = {}
    for name in pictures.names:
        of_class.setdefault(pictures.labels[name], set()).add(groups[name])
    if all(len(keys) == 1 for keys in of_class.values()):
        raise UserError(
            f"data.group={word!r} puts each of the {len(of_class)} classes of {pictures.name} on one side whole",
            fix="give groups that are smaller than a class, such as an expression for the start of a file's name",
        )
