"""Lists the images of a folder, by today's rules and by those of version 0.1.0 for runs that were started with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from mi_contrast.core.errors import FileError, UserError

HEIC = (".heic", ".heif")
SUFFIXES_0_1_0 = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".tif",
    ".tiff",
)  # suffixes of 0.1.0
SUFFIXES = (*SUFFIXES_0_1_0, ".jfif", *HEIC)
TOOL_FOLDERS = ("@eaDir", "__MACOSX")  # thumbnails and attributes that other programs write; most such begin with a dot
NO_CLASS = ""  # the class of an image that lies in no class folder
LAYOUT = "PATH/<class>/<image> or PATH/<split>/<class>/<image>, or PATH/<image> without labels"

Listing = dict[str, list[tuple[str, Path]]]  # (class, file) of every image, by split


def is_hidden(name: str) -> bool:
    """Whether a name marks a hidden file or one that a tool made."""
    return name.startswith(".") or name in TOOL_FOLDERS


def is_image(file: Path) -> bool:
    """Whether a file's name is that of an image."""
    return file.suffix.lower() in SUFFIXES and not is_hidden(file.name)


def find_images(root: Path) -> list[Path]:
    """Returns every image below a folder. Follows links, skips hidden folders, and lists each real file once.

    A file that can be reached without a link is listed under that path, even if links lead to it too. A file that only
    links lead to is listed under the link whose path sorts first. A link to a folder that was already visited, such as
    a parent, is skipped.
    """
    visited: set[str] = set()
    images: list[Path] = []
    folders, links = [root], list[Path]()
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        if (real := os.path.realpath(folder)) in visited:
            continue
        visited.add(real)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = folder / entry.name
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else folders).append(path)
            elif is_image(path):
                images.append(path)
        links.sort()
    unique: dict[str, Path] = {}
    for path in sorted(images, key=lambda path: (os.path.islink(path), path)):
        unique.setdefault(os.path.realpath(path), path)
    return list(unique.values())


def list_images(root: Path) -> Listing:
    """Returns the (class, file) of every image, by split, in the order of the sha256 of the paths within the split.

    Images in root itself are the split 'train', without classes. Images in root/<class>/ are the split 'train'. Images
    in root/<split>/<class>/ or deeper are of that split. Folders without images are ignored.

    Raises:
      UserError: there are no images, or images lie at two of these depths. The message names one at each depth.
    """
    images = find_images(root)
    if not images:
        raise FileError(f"{root} contains no images", fix=f"lay them out as {LAYOUT}")
    by_depth: dict[int, Path] = {}
    for path in sorted(images):
        by_depth.setdefault(min(len(path.relative_to(root).parts), 3), path)
    if len(by_depth) > 1:
        names = " and ".join(str(path.relative_to(root)) for _, path in sorted(by_depth.items()))
        raise UserError(
            f"{root} holds images at two depths: {names}",
            fix=f"move or remove images until all are laid out as {LAYOUT}",
        )
    depth, splits = next(iter(by_depth)), dict[str, list[tuple[str, Path]]]()
    for path in images:
        parts = path.relative_to(root).parts
        split = parts[0] if depth == 3 else "train"
        splits.setdefault(split, []).append((parts[depth - 2] if depth > 1 else NO_CLASS, path))
    return {
        split: sort_by_hash(files, root / split if depth == 3 else root)
        for split, files in sorted(splits.items(), key=lambda item: item[0])
    }


def sort_by_hash(files: list[tuple[str, Path]], folder: Path) -> list[tuple[str, Path]]:
    """Sorts files by the sha256 of their path relative to `folder`, which mixes the classes."""
    return sorted(files, key=lambda f: hashlib.sha256(f[1].relative_to(folder).as_posix().encode()).digest())


def list_images_as_0_1_0(root: Path) -> Listing:
    """Returns what version 0.1.0 would list. Used only to check whether a run of 0.1.0 can be resumed."""

    def was_image(file: Path) -> bool:
        return file.suffix.lower() in SUFFIXES_0_1_0 and not file.name.startswith(".")

    def walk(folder: Path) -> Iterator[tuple[str, Path]]:
        labels = sorted(p for p in folder.iterdir() if p.is_dir())
        if not labels:
            yield from ((NO_CLASS, file) for file in folder.iterdir() if was_image(file))
        for label in labels:
            for parent, _, names in os.walk(label, followlinks=True):
                yield from ((label.name, Path(parent) / name) for name in names if was_image(Path(parent) / name))

    folders = sorted(p for p in root.iterdir() if p.is_dir())
    has_one_split = not folders or any(was_image(p) for folder in folders for p in folder.iterdir())
    splits = {"train": root} if has_one_split else {folder.name: folder for folder in folders}
    listing = {name: sort_by_hash(list(walk(folder)), folder) for name, folder in splits.items()}
    return {name: files for name, files in listing.items() if files}
