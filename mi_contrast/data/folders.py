"""Reads 'folder:PATH' where data.labels is not given: one folder a class, or images without labels.

This layout is stricter than that of `own`, which takes pictures at any depth: runs of 0.1.0 and published configs began
with the order and labels of this one, and a set in it has its splits by folders alone. The two differ only in which
files they list and how they find broken ones; both make their ImageSet by `pictures.make_image_set`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from mi_contrast.core.errors import FileError, UserError
from mi_contrast.data import fingerprint, tiles
from mi_contrast.data.broken import find_broken
from mi_contrast.data.decoding import enable_heic, read_bytes
from mi_contrast.data.imageset import ImageSet
from mi_contrast.data.kept import keep_reasons
from mi_contrast.data.listing import LAYOUT, NO_CLASS, Listing, list_images, list_images_as_0_1_0
from mi_contrast.data.pictures import FileStamps, Pictures, make_image_set, select_names


def load(
    root: Path,
    split: str,
    *,
    size: int | None = None,
    options: Mapping[str, Any] | None = None,
    broken: float = 0.0,
    known_broken: Collection[str] | None = None,
) -> ImageSet:
    """Loads a folder of images as an ImageSet with the label 'label'. Classes are the folders' names over all splits.

    Images in root/<class>/ are the split 'train'. Images in root/<split>/<class>/ or deeper are of that split. Images
    in root itself are the split 'train' and have no label. `listing` has the exact rules.

    Within a split, files are in the order of the sha256 of their paths. This mixes the classes and depends on the names
    alone. Every file of the split is decoded once here. Broken files get no index, but count in ranges such as
    'train[:90%]'.

    Args:
      root: the folder.
      split, size, options, broken: as for `pictures.make_image_set`. Ranges of a split count images, not tiles.
      known_broken: names of the files that an earlier scan found broken. If given, nothing is scanned.

    Raises:
      UserError: the folder is missing, has no images, has images at two depths, or lacks the split; the split is empty;
        more files are broken than allowed (the message names them); or an option is unknown or out of range.
    """
    tiles.read_options(options)  # a mistake is found before anything is read
    if not root.is_dir():
        raise FileError(f"{root} is not a folder", fix=f"give data.name='folder:PATH' with {LAYOUT}")
    pictures = make_pictures(root, list_images(root))
    names = select_names(pictures, split)
    enable_heic(root, names)
    if known_broken is None:
        written = {f"{name} {pictures.stamps[name][1]}": pictures.stamps[name][0] for name in names}
        checksum = fingerprint.fingerprint_files(written, (), split)["sum"]
        scan = partial(find_broken, root, names)
        reasons = keep_reasons(str(root.resolve()), {"sum": checksum}, scan, len(names))
    else:
        reasons = dict.fromkeys(known_broken, "")
    return make_image_set(pictures, split, size=size, options=options, broken=broken, reasons=reasons, groups=None)


def make_pictures(root: Path, listing: Listing) -> Pictures:
    """Returns the listed files as pictures. The system is asked for the size of a file when that is needed first."""
    classes = {file.relative_to(root).as_posix(): label for files in listing.values() for label, file in files}
    splits = {split: tuple(file.relative_to(root).as_posix() for _, file in files) for split, files in listing.items()}
    has_labels = set(classes.values()) != {NO_CLASS}
    return Pictures(
        f"folder:{root}",
        str(root),
        splits,
        lambda name: read_bytes(root / name),
        FileStamps(root),
        labels=classes if has_labels else None,
        paths={name: root / name for name in classes},
        facts={} if has_labels else {"classes": [NO_CLASS]},  # as fingerprints of earlier runs have it
    )


def has_same_listing(root: Path, split: str) -> bool:
    """Whether version 0.1.0 would list the same files of a split in the same order, with the same classes."""

    def list_files(listing: Listing) -> list[tuple[str, str | None]]:
        pictures = make_pictures(root, listing)
        labels = pictures.labels or {}
        return [(name, labels.get(name)) for name in select_names(pictures, split)]

    try:
        before = list_files(list_images_as_0_1_0(root))
    except UserError:
        return False
    return before == list_files(list_images(root))
