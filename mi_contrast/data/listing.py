"""Which files of a folder are images of a set: the rules of listing, and those of 0.1.0 for runs that began then."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from mi_contrast.core.errors import FileError, UserError

HEIC = (".heic", ".heif")
BEFORE = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")  # suffixes of 0.1.0
SUFFIXES = (*BEFORE, ".jfif", *HEIC)
MADE_BY_TOOLS = ("@eaDir", "__MACOSX")  # folders of thumbnails and attributes; others of the kind begin with a dot
NO_CLASS = ""  # of an image that lies in no class folder
LAYOUT = "PATH/<class>/<image> or PATH/<split>/<class>/<image>, or PATH/<image> without labels"

Listed = dict[str, list[tuple[str, Path]]]  # a split to its (class, file)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is none of the user's."""
    return name.startswith(".") or name in MADE_BY_TOOLS


def is_image(file: Path) -> bool:
    """Whether a file's name is an image's."""
    return file.suffix.lower() in SUFFIXES and not is_hidden(file.name)


def images_below(root: Path) -> list[Path]:
    """Every image below a folder, links followed, hidden folders left out; each real path once.

    A file or folder that is reached without a link counts under that name, however many links lead to it; of several
    links to one outside, the first by name counts. A link to a folder that was seen already, such as one above it,
    leads nowhere new.
    """
    seen: set[str] = set()
    found: list[Path] = []
    now, links = [root], list[Path]()
    while now or links:
        folder = now.pop() if now else links.pop(0)
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path = folder / entry.name
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else now).append(path)
            elif is_image(path):
                found.append(path)
        links.sort()
    once: dict[str, Path] = {}
    for path in sorted(found, key=lambda path: (os.path.islink(path), path)):
        once.setdefault(os.path.realpath(path), path)
    return list(once.values())


def list_images(root: Path) -> Listed:
    """The images of each split, in the order of the sha256 of their path below it.

    Images in root itself are the split 'train' without classes; in root/<class>/ they are 'train'; in
    root/<split>/<class>/, at any depth, those of that split. Folders without images count for nothing.

    Raises:
      UserError where there are none, or images lie at two of these depths: an example of each is named.
    """
    found = images_below(root)
    if not found:
        raise FileError(f"{root} holds no images in folders of classes", fix=f"lay them out as {LAYOUT}")
    at: dict[int, Path] = {}
    for path in sorted(found):
        at.setdefault(min(len(path.relative_to(root).parts), 3), path)
    if len(at) > 1:
        named = " and ".join(str(path.relative_to(root)) for _, path in sorted(at.items()))
        raise UserError(
            f"{root} holds images at two depths: {named}",
            fix=f"move or remove those that are not meant, so that all lie as {LAYOUT}",
        )
    depth, listed = next(iter(at)), dict[str, list[tuple[str, Path]]]()
    for path in found:
        parts = path.relative_to(root).parts
        split = parts[0] if depth == 3 else "train"
        listed.setdefault(split, []).append((parts[depth - 2] if depth > 1 else NO_CLASS, path))
    return {
        split: in_order(files, root / split if depth == 3 else root)
        for split, files in sorted(listed.items(), key=lambda item: item[0])
    }


def in_order(files: list[tuple[str, Path]], folder: Path) -> list[tuple[str, Path]]:
    """The files in the order of the sha256 of their path in the folder."""
    return sorted(files, key=lambda f: hashlib.sha256(f[1].relative_to(folder).as_posix().encode()).digest())


def list_as_before(root: Path) -> Listed:
    """The images of each split by the rules of 0.1.0, kept for runs that began under them and for nothing else."""

    def image(file: Path) -> bool:
        return file.suffix.lower() in BEFORE and not file.name.startswith(".")

    def below(folder: Path) -> Iterator[tuple[str, Path]]:
        labels = sorted(p for p in folder.iterdir() if p.is_dir())
        if not labels:
            yield from ((NO_CLASS, file) for file in folder.iterdir() if image(file))
        for label in labels:
            for where, _, names in os.walk(label, followlinks=True):
                yield from ((label.name, Path(where) / name) for name in names if image(Path(where) / name))

    folders = sorted(p for p in root.iterdir() if p.is_dir())
    whole = not folders or any(image(p) for folder in folders for p in folder.iterdir())
    splits = {"train": root} if whole else {folder.name: folder for folder in folders}
    listed = {name: in_order(list(below(folder)), folder) for name, folder in splits.items()}
    return {name: files for name, files in listed.items() if files}
