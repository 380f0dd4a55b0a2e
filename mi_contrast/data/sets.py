"""Data sets by name: the embedded one, any TFDS set on disk, a folder of images, a set of patches and their twins."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from etils import epath

from mi_contrast.core.errors import UserError
from mi_contrast.data import folders, pair_sets
from mi_contrast.data.broken import check_share, replacing
from mi_contrast.data.imageset import ImageSet, in_memory

__all__ = ["ImageSet", "in_memory", "load"]


def load(
    name: str,
    split: str,
    *,
    data_dir: str | Path | None = None,
    size: int | None = None,
    options: Mapping[str, Any] | None = None,
    broken: float = 0.0,
    known: Collection[str] | None = None,
) -> ImageSet:
    """One split of a data set; no TensorFlow is used.

    Args:
      name: 'moving_digits' (made on first use); a TFDS set stored as ArrayRecord, 'name', 'name/config' or
        'name:version'; 'folder:PATH', class folders of images, or images without labels; or 'pairs:PATH', what
        `mi_contrast.pairs` made. PATH is below `data_dir` where that is given, unless it begins with / or ~.
      split: as TFDS has it: 'train', 'train[:90%]', 'train[100:200]', 'train+test'. A sub-split's index counts from 0.
        Ranges count records: of moving_digits, clips.
      data_dir: where TFDS sets are; by default TFDS's own, $TFDS_DATA_DIR or ~/tensorflow_datasets.
      size: if given, each image's short side is resized to it and the centre cropped; not cropped where tiles are cut.
      options: of moving_digits: size (32 or 64), length (frames a clip); of a folder: tile, stride, groups (`tiles`).
      broken: the share of the images that may be unreadable, of folders and TFDS sets: they get no index, and one that
        breaks later is replaced, `broken.replacing`. With 0, folders are looked through and all broken files listed;
        a broken record is named when it is read.
      known: what of the set gets no index, as its fingerprint's `broken` said before; it is not looked through again.
    Returns:
      ImageSet.
    Raises:
      UserError in one line for a set that is unknown, not on disk, not ArrayRecord, truncated, for a split that is
      unknown or empty, and for options that don't belong to the set.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise UserError(f"data.size is {size!r}", fix="give a number of pixels, or None")
    check_share(broken)
    if name.startswith("folder:"):
        images = folders.load(below(name, data_dir), split, size=size, options=options, broken=broken, known=known)
        return replacing(images, broken)
    if name.startswith("pairs:"):
        images = pair_sets.load(below(name, data_dir), split, size=size)
    else:
        from mi_contrast.data import moving_digits, records  # they need TFDS, which takes seconds to import

        where = records.default_data_dir() if data_dir is None else epath.Path(data_dir).expanduser()
        if name == "moving_digits":
            return moving_digits.load(split, data_dir=where, size=size, options=options)
        images = replacing(records.load(name, split, data_dir=where, size=size, broken=broken, known=known), broken)
    if options:  # after the name: a wrong name is the likelier mistake
        raise UserError(
            f"{name} takes no data.options, but has {', '.join(options)}", fix="moving_digits and folders have some"
        )
    return images


def lists_alike(name: str, split: str, data_dir: str | Path | None) -> bool:
    """Whether 0.1.0 would find the same examples in the same order."""
    return not name.startswith("folder:") or folders.lists_alike(below(name, data_dir), split)


def below(name: str, data_dir: str | Path | None) -> Path:
    """The folder of 'kind:PATH'."""
    path = Path(name.partition(":")[2]).expanduser()
    return path if data_dir is None else Path(data_dir).expanduser() / path
