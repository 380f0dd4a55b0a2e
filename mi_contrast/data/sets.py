"""Loads a data set by name: moving_digits, a TFDS set on disk, pictures of one's own, or a set of paired patches."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from mi_contrast.core.errors import UserError
from mi_contrast.core.layout import check_mounted
from mi_contrast.data import folders, own, pair_sets
from mi_contrast.data.broken import check_broken_share, substitute_broken
from mi_contrast.data.imageset import ImageSet, cache_in_memory, remember_in_memory

__all__ = ["OPTIONS", "ImageSet", "cache_in_memory", "load", "remember_in_memory"]

OPTIONS = ("size", "options", "broken", "labels", "group", "test_share")  # fields of config.data that `load` takes


def load(
    name: str,
    split: str,
    *,
    data_dir: str | Path | None = None,
    size: int | None = None,
    options: Mapping[str, Any] | None = None,
    broken: float = 0.0,
    known_broken: Collection[str] | None = None,
    labels: str | None = None,
    group: str | None = None,
    test_share: float = 0.0,
) -> ImageSet:
    """Loads one split of a data set, without TensorFlow.

    Args:
      name: one of
        - 'moving_digits', which is made at its first use;
        - a TFDS set stored as ArrayRecord: 'name', 'name/config' or 'name:version';
        - 'folder:PATH': images in folders by class, or images without labels; a folder or a zip of one;
        - 'list:FILE.txt': images whose paths the file lists, one a line;
        - 'arrays:FILE.npz': images uint8 [N, H, W, 3], and labels [N] if there are any;
        - 'hf:NAME_OR_PATH': a set of Hugging Face's `datasets`, from its hub or from a folder;
        - 'pairs:PATH': paired patches, made by `mi_contrast.pairs`.
        A relative PATH starts at `data_dir`, if that is given.
      split: as TFDS writes it: 'train', 'train[:90%]', 'train[100:200]', 'train+test'. Ranges count records, which for
        moving_digits are clips. The index of a sub-split counts from 0.
      data_dir: the folder of TFDS sets. The default is TFDS's own, $TFDS_DATA_DIR or ~/tensorflow_datasets.
      size: if given, each image's short side is resized to it and the centre cropped. Tiles are not cropped.
      options: for moving_digits size (32 or 64) and length (frames a clip); for a folder tile, stride and groups (see
        `tiles`).
      broken: for folders and TFDS sets, the share of images that may be unreadable. They get no index, and an image
        that breaks later is replaced (`broken.substitute_broken`). With 0, a folder is scanned and all its broken files
        are listed in the error; a broken record raises an error when it is read.
      known_broken: images that an earlier scan found broken: the fingerprint's `broken`. If given, nothing is scanned.
      labels: of one's own pictures, where their labels are from: 'folders', 'none', or a table labels.csv. By default a
        folder has to be laid out as `listing` says; with a word, pictures may lie at any depth (see `collect`).
      group: of one's own pictures, what stays on one side of a split: 'image', 'folder' or a regular expression (see
        `grouping`). By default every picture is apart, even from an equal file.
      test_share: of one's own pictures, the share of the training split that becomes the split 'test'.

    Raises:
      UserError: the set is unknown, not on disk, not stored as ArrayRecord, or truncated; the split is unknown or
        empty; or the set does not have these options.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise UserError(f"data.size is {size!r}", fix="give a number of pixels, or None")
    check_broken_share(broken)
    check_mounted("" if data_dir is None else str(data_dir), "--config.data.dir")
    kind, colon, path = name.partition(":")
    check_mounted(path if kind in (*own.KINDS, "pairs") else "", "--config.data.name")
    words = {"labels": labels, "group": group, "test_share": test_share or None}
    given = [word for word, value in words.items() if value is not None]
    is_own = colon and kind in own.KINDS
    if is_own and (kind != "folder" or given or resolve_path(name, data_dir).is_file()):
        path = path if kind == "hf" and data_dir is None else str(resolve_path(name, data_dir))
        images = own.load(
            kind, path, split, size=size, options=options, broken=broken, known_broken=known_broken,
            labels=labels, group=group, test_share=test_share,
        )  # fmt: skip
        return substitute_broken(images, broken)
    if given:
        fix = f"leave it out: only {', '.join(f'{word}:' for word in own.KINDS)} have it"
        raise UserError(f"{name} takes no data.{given[0]}", fix=fix)
    if name.startswith("folder:"):
        images = folders.load(
            resolve_path(name, data_dir), split, size=size, options=options, broken=broken, known_broken=known_broken
        )
        return substitute_broken(images, broken)
    if name.startswith("pairs:"):
        images = pair_sets.load(resolve_path(name, data_dir), split, size=size)
    else:
        from mi_contrast.data import moving_digits, records  # they import TFDS, which takes seconds

        where = records.default_data_dir() if data_dir is None else epath.Path(data_dir).expanduser()
        if name == "moving_digits":
            return moving_digits.load(split, data_dir=where, size=size, options=options)
        images = substitute_broken(
            records.load(name, split, data_dir=where, size=size, broken=broken, known_broken=known_broken), broken
        )
    if options:  # checked after the name, because a wrong name is the more likely mistake
        fix = "leave them out: only moving_digits and folders have options"
        raise UserError(f"{name} takes no data.options, but has {', '.join(options)}", fix=fix)
    return images


def load_section(data: Mapping[str, Any], split: str | None = None, **changes: Any) -> ImageSet:
    """Loads one split of the set that a config's section `data` names.

    Args:
      data: name, dir, split and, of `OPTIONS`, the fields that it has.
      split: by default that of the section.
      changes: keywords of `load` whose values differ from the section's.
    """
    options = {field: data[field] for field in OPTIONS if field in data} | changes
    return load(data["name"], data["split"] if split is None else split, data_dir=data["dir"], **options)


def has_same_listing(name: str, split: str, data_dir: str | Path | None) -> bool:
    """Whether version 0.1.0 would list the same examples in the same order."""
    return not name.startswith("folder:") or folders.has_same_listing(resolve_path(name, data_dir), split)


def resolve_path(name: str, data_dir: str | Path | None) -> Path:
    """Returns the folder that 'kind:PATH' names."""
    path = Path(name.partition(":")[2]).expanduser()
    return path if data_dir is None else Path(data_dir).expanduser() / path
