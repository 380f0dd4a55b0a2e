"""Finds the pictures of a folder, of a zip of a folder, or of a list of paths, with their splits and classes."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from mi_contrast.core.errors import FileError, UserError, nearest
from mi_contrast.data.decoding import BrokenImageError, read_bytes
from mi_contrast.data.fingerprint import fingerprint_files
from mi_contrast.data.listing import find_images, is_hidden, is_image
from mi_contrast.data.pictures import Pictures

FOLDERS, NONE = "folders", "none"  # words of data.labels; any other is the path of a table of labels
TRAIN = ("train", "training")  # names of split folders, in small letters
TEST = ("test", "testing", "validation", "valid", "val", "dev", "eval")
OTHER = ("unlabelled", "unlabeled", "extra")
COLUMNS = ("file", "label")  # of a table of labels


def collect_folder(root: Path, name: str, labels: str | None) -> Pictures:
    """Returns the pictures below a folder, at any depth, or in a zip of such a folder. Hidden ones are skipped.

    A folder that holds all others is passed through. If the next folders are named as splits ('train', 'test', ..),
    they are the splits; else all pictures are the split 'train'.

    Args:
      root: the folder or zip.
      name: of the set, for messages.
      labels: 'folders' (the first folder below the split is the class), 'none', or the path of a table with the columns
        file and label. None takes 'folders' if every picture lies in one of at least two such folders, else 'none'.
    Raises:
      UserError: there is no such folder or zip, it has no pictures, or the labels can't be had.
    """
    if root.is_dir():
        pictures = _open_folder(root, name)
    elif root.is_file() and zipfile.is_zipfile(root):
        pictures = _open_zip(root, name)
    elif root.exists():
        raise FileError(f"{root} is neither a folder nor a zip", fix="give data.name='folder:PATH' of one of them")
    else:
        siblings = [path.name for path in root.parent.iterdir()] if root.parent.is_dir() else []
        raise FileError(f"{root} is not a folder", nearest=nearest(root.name, siblings), fix="give an existing one")
    names = list(pictures.splits["all"])
    if not names:
        raise FileError(f"{root} contains no images", fix=f"it has {_count_others(pictures.others)}")
    depth = find_common_folder(names)
    splits = divide_by_folder(names, depth)
    class_depth = depth if splits is None else depth + 1
    ordered = {split: sort_names(members) for split, members in (splits or {"train": names}).items()}
    return add_labels(replace(pictures, splits=ordered), labels, lambda name: find_folder(name, class_depth))


def collect_list(file: Path, name: str, labels: str | None) -> Pictures:
    """Returns the pictures whose paths a text file lists, one a line; relative paths start at the file's folder.

    Args:
      labels: as for `collect_folder`; 'folders' takes the name of each picture's own folder, None stands for 'none'.
    Raises:
      UserError: the file can't be read or names nothing, or a path is listed twice or is not a file.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise FileError(f"{file} can't be read ({why})", fix="give data.name='list:FILE', a path a line") from None
    names = [line for line in lines if line and not line.startswith("#")]
    if not names:
        raise FileError(f"{file} lists no pictures", fix="write one path a line")
    if len(set(names)) < len(names):
        raise FileError(f"{file} lists {Counter(names).most_common(1)[0][0]} twice", fix="list each picture once")
    paths = {each: file.parent / each for each in names}
    if missing := [each for each in names if not paths[each].is_file()]:
        raise FileError(
            f"{len(missing)} of the {len(names)} pictures that {file} lists are no files, such as {missing[0]}",
            fix=f"correct them; relative paths start at {file.parent}",
        )
    stats = {each: path.stat() for each, path in paths.items()}
    stamps = {each: (stat.st_size, stat.st_mtime_ns) for each, stat in stats.items()}
    pictures = Pictures(
        name, str(file), {"train": sort_names(names)}, lambda each: read_bytes(paths[each]), stamps, paths=paths
    )
    return add_labels(pictures, NONE if labels is None else labels, lambda each: Path(each).parent.name or None)


def _open_folder(root: Path, name: str) -> Pictures:
    paths = {path.relative_to(root).as_posix(): path for path in find_images(root)}
    stats = {each: path.stat() for each, path in paths.items()}
    stamps = {each: (stat.st_size, stat.st_mtime_ns) for each, stat in stats.items()}
    return Pictures(
        name,
        str(root),
        {"all": tuple(sorted(paths))},
        lambda each: read_bytes(paths[each]),
        stamps,
        paths=paths,
        others=count_others(root),
    )


def count_others(root: Path) -> dict[str, int]:
    """Returns the number of files below a folder that are no images, by suffix, without the hidden ones."""
    others: Counter[str] = Counter()
    for _, folders, files in os.walk(root):
        folders[:] = [folder for folder in folders if not is_hidden(folder)]
        others.update(Path(file).suffix.lower() for file in files if not is_hidden(file) and not is_image(Path(file)))
    return dict(others.most_common())


def _open_zip(file: Path, name: str) -> Pictures:
    """Opens a zip. Members are read from it one by one, by any number of threads; nothing is unpacked on disk."""
    archive = zipfile.ZipFile(file)
    members: dict[str, zipfile.ZipInfo] = {}
    others: Counter[str] = Counter()
    for member in archive.infolist():
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if member.is_dir() or any(is_hidden(part) for part in path.parts):
            continue
        if is_image(Path(path)):
            members[str(path)] = member
        else:
            others[path.suffix.lower()] += 1

    def read(each: str) -> bytes:
        try:
            return archive.read(members[each])
        except (OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError) as error:
            why = " ".join(str(error).split())[:80] or type(error).__name__
            raise BrokenImageError(f"{file}/{each}", why, f" can't be read ({why})") from None

    stamps = {each: (m.file_size, int(time.mktime((*m.date_time, 0, 0, -1)))) for each, m in members.items()}
    return Pictures(name, str(file), {"all": tuple(sorted(members))}, read, stamps, others=dict(others.most_common()))


def _count_others(others: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in list(others.items())[:6]) or "nothing"


def sort_names(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names in the order of their sha256, which mixes the classes."""
    return tuple(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest()))


def find_common_folder(names: Sequence[str]) -> int:
    """Returns how many leading folders all names share.

    >>> find_common_folder(["photos/cats/a.jpg", "photos/dogs/b.jpg"])
    1
    """
    parents = [PurePosixPath(name).parent.parts for name in names]
    shared = 0
    while all(len(parts) > shared and parts[shared] == parents[0][shared] for parts in parents):
        shared += 1
    is_split = shared and parents[0][shared - 1].lower() in (*TRAIN, *TEST, *OTHER)
    return shared - 1 if is_split else shared


def divide_by_folder(names: Sequence[str], depth: int) -> dict[str, list[str]] | None:
    """Returns the names by the folder at `depth` if all of these are named as splits, 'train' among them, else None."""
    tops = {name: find_folder(name, depth) or "" for name in names}
    words = {top.lower() for top in tops.values()}
    if not words <= {*TRAIN, *TEST, *OTHER} or not words & set(TRAIN):
        return None
    return {split: [name for name in names if tops[name] == split] for split in sorted(set(tops.values()))}


def find_folder(name: str, depth: int) -> str | None:
    """Returns the folder at `depth` of a path, or None if the picture lies above it.

    >>> find_folder("train/cats/a.jpg", 1), find_folder("train/a.jpg", 1)
    ('cats', None)
    """
    parts = PurePosixPath(name).parent.parts
    return parts[depth] if len(parts) > depth else None


def add_labels(pictures: Pictures, labels: str | None, find: Callable[[str], str | None]) -> Pictures:
    """Returns the pictures with the labels that `labels` asks for (see `collect_folder`).

    Args:
      find: returns the class of a name by its folders, or None if it has none.
    """
    if labels == NONE:
        return pictures
    if labels in (None, FOLDERS):
        found = {name: label for name in pictures.names if (label := find(name)) is not None}
        outside = [name for name in pictures.names if name not in found]
        if not outside and len(set(found.values())) > 1:
            return replace(pictures, labels=found)
        if labels is None:
            return pictures
        where = f"{outside[0]} lies in no class folder" if outside else f"all lie in one class, {found.popitem()[1]!r}"
        raise UserError(
            f"{pictures.name} has no class folders: {where}",
            fix="put each class in a folder of its own, or give data.labels='none' or a table labels.csv",
        )
    table, digest = read_labels(find_table(labels, pictures), pictures)
    return replace(pictures, labels=table, facts={**pictures.facts, "labels": digest})


def find_table(labels: str, pictures: Pictures) -> Path:
    """Returns the path of a table of labels, which is looked up in the working folder, then beside the pictures."""
    root = Path(pictures.root)
    beside = root if root.is_dir() else root.parent
    for path in (Path(labels).expanduser(), beside / labels):
        if path.is_file():
            return path
    hint = nearest(labels, (FOLDERS, NONE, *(path.name for path in beside.glob("*.csv"))))
    fix = f"give 'folders', 'none', or a table in the working folder or in {beside}"
    raise FileError(f"data.labels {labels!r} is no file", nearest=hint, fix=fix)


def read_labels(file: Path, pictures: Pictures) -> tuple[dict[str, str], str]:
    """Returns the label of every picture from a csv with a header that has `file` and `label`, and a checksum.

    Raises UserError if the table can't be read, has other columns, lacks a picture or names one twice.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise FileError(f"{file} can't be read ({why})", fix="save it as a csv in UTF-8") from None
    reader = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    header = [str(column).strip() for column in reader.fieldnames or ()]
    if missing := [column for column in COLUMNS if column not in header]:
        hint = nearest(missing[0], header)
        raise FileError(
            f"{file} has no column {missing[0]!r}, but {', '.join(header) or 'no header'}",
            nearest=hint,
            fix="its first line must name the columns, file,label",
        )
    reader.fieldnames = header
    table: dict[str, str] = {}
    for number, row in enumerate(reader, 2):
        name, label = (str(row[column] or "").strip() for column in COLUMNS)
        name = name.removeprefix("./")
        if not name or not label:
            raise FileError(
                f"line {number} of {file} has no {'label' if name else 'file'}", fix="complete or delete it"
            )
        if table.setdefault(name, label) != label:
            raise FileError(f"{file} names {name} twice, with different labels", fix="keep one of them")
    without = [name for name in pictures.names if name not in table]
    if without:
        hint = nearest(without[0], table)
        raise FileError(
            f"{len(without)} of {len(pictures.names)} pictures of {pictures.name} have no row in {file}, such as "
            f"{without[0]}",
            nearest=hint,
            fix="name each as it lies below the folder, such as cats/tom.jpg",
        )
    chosen = {name: table[name] for name in pictures.names}
    if len(set(chosen.values())) < 2:
        raise FileError(f"{file} gives all pictures one label", fix="give data.labels='none', or two labels or more")
    return chosen, fingerprint_files({f"{name} {label}": 0 for name, label in chosen.items()}, (), "")["sum"]
