"""python -m mi_contrast.data.prepare PHOTOS --size=256 --out=DIR: writes one's own pictures as an ArrayRecord set.

Every epoch then decodes small pictures instead of large ones. A picture whose shorter side has more pixels than --size
is made smaller and written as a JPEG of quality 95, upright; all others keep their files as they are. The set is
divided in splits as a training would divide it, and has the labels and groups that a training would see.

The set is written in files of 1,000 pictures. After a kill the same command goes on with the first that is missing.
skipped.txt lists the pictures that can't be read, and why.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from mi_contrast.core.config import convert, parse
from mi_contrast.core.errors import FileError, UserError, run_job
from mi_contrast.core.layout import read_json, write_json, write_text
from mi_contrast.core.progress import ProgressBar
from mi_contrast.data import own, sets
from mi_contrast.data.decoding import BrokenImageError, open_image, read_orientation, resize_short_side, to_rgb
from mi_contrast.data.imageset import map_in_threads
from mi_contrast.data.pictures import Pictures, number_groups
from mi_contrast.data.records import GROUP
from mi_contrast.data.scan import scan_pictures
from mi_contrast.data.survey import survey

FLAGS = {
    "pictures=": "a folder, a zip of one, or another name of one's own pictures, such as list:FILE.txt",
    "size=": "pixels of the shorter side of pictures that are made smaller, default 256",
    "out=": "the folder to write to; the set is --config.data.name=NAME --config.data.dir=OUT",
    "labels=": "where labels are from: folders, none, or a table labels.csv; by default what is there",
    "group=": "what stays on one side of a split: image, folder, or an expression; default image",
    "test_share=": "the share to test on; by default .2 with labels and .1 without, where there is no test folder",
}
SHARD = 1000  # pictures in a file
QUALITY = 95
FOREIGN = ("JPEG", "PNG", "WEBP")  # kinds whose files are kept as they are if they are small
VERSION = "1.0.0"
NOTE = "prepared.json"  # in the folder written to: the set's name
STATE = ".prepare"  # folder of the notes of finished files


class Shard(NamedTuple):
    """One file of the set: its split, its place among the split's files, and the pictures that it is made of."""

    split: str
    number: int
    names: tuple[str, ...]


def prepare(pictures: Pictures, groups: Mapping[str, str] | None, size: int, out: Path, name: str) -> dict[str, str]:
    """Writes the pictures as a set in `out`, and returns why each picture that was left out can't be read.

    Args:
      pictures: divided in splits.
      groups: the group of each picture, or None.
      size: pixels of the shorter side.
      name: of the set.
    Raises:
      UserError: `out` has another set, or can't be written; or no picture of a split can be read.
    """
    folder = out / name / VERSION
    scan = scan_pictures(pictures)
    plan = {"size": size, "name": name, "names": hash_names(pictures, groups), "version": 1}
    state = folder / STATE
    if (state / "plan.json").is_file():
        if read_json(state / "plan.json") != plan:
            raise FileError(
                f"{folder} was begun with other pictures or settings", fix="give another --out, or remove it"
            )
    elif folder.exists() and any(folder.iterdir()):
        raise FileError(f"{folder} is there already", fix="give another --out")
    else:
        state.mkdir(parents=True, exist_ok=True)
        write_json(state / "plan.json", plan)
    shards = [
        Shard(split, number, names[number * SHARD : (number + 1) * SHARD])
        for split, names in pictures.splits.items()
        for number in range(-(-len(names) // SHARD))
    ]
    features = make_features(pictures)
    numbers = None if groups is None else number_groups(pictures.names, groups)
    rows = dict(zip(pictures.names, range(len(pictures.names)) if numbers is None else numbers.tolist(), strict=True))
    progress = ProgressBar(f"preparing {name}", len(pictures.names), unit="picture")
    for shard in shards:
        count = sum(other.split == shard.split for other in shards)
        file = folder / f"{name}-{shard.split}.array_record-{shard.number:05d}-of-{count:05d}"
        if not (state / f"{file.name}.json").is_file() or not file.is_file():
            write_shard(file, state, pictures, shard, features, size, scan.reasons, rows)
        progress.advance(len(shard.names))
    progress.close()
    notes = {shard: read_json(state / f"{find_file(folder, name, shard).name}.json") for shard in shards}
    write_description(folder, name, features, notes)
    write_json(out / NOTE, {"name": name})
    skipped = {picture: why for note in notes.values() for picture, why in note["skipped"].items()}
    write_text(out / "skipped.txt", "".join(f"{picture}: {why}\n" for picture, why in sorted(skipped.items())))
    return skipped


def find_file(folder: Path, name: str, shard: Shard) -> Path:
    """Returns the file of a shard."""
    (file,) = folder.glob(f"{name}-{shard.split}.array_record-{shard.number:05d}-of-*")
    return file


def hash_names(pictures: Pictures, groups: Mapping[str, str] | None) -> str:
    """Returns a checksum of what the set is made of: names, sizes, splits, labels and groups."""
    labels = pictures.labels or {}
    rows = [
        (split, name, pictures.stamps[name], labels.get(name), (groups or {}).get(name))
        for split, names in pictures.splits.items()
        for name in names
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def make_features(pictures: Pictures) -> tfds.features.FeaturesDict:
    """Returns TFDS's description of a picture: its pixels, file name and group, and its label if there are labels."""
    features: dict[str, Any] = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "file_name": tfds.features.Text(),
        GROUP: tfds.features.Scalar(dtype=np.int64),
    }
    if pictures.labels is not None:
        features["label"] = tfds.features.ClassLabel(names=list(pictures.classes))
    return tfds.features.FeaturesDict(features)


def write_shard(
    file: Path,
    state: Path,
    pictures: Pictures,
    shard: Shard,
    features: tfds.features.FeaturesDict,
    size: int,
    reasons: Mapping[str, str],
    groups: Mapping[str, int],
) -> None:
    """Writes a file whole or not at all, and then its note: numbers of records and bytes, and what was left out."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    writer = ArrayRecordWriter(str(temporary), "group_size:1")
    count, total, skipped = 0, 0, dict[str, str]()
    names = [name for name in shard.names if name not in reasons]
    skipped |= {name: reasons[name] for name in shard.names if name in reasons}
    classes = {label: number for number, label in enumerate(pictures.classes)}
    try:
        for name, made in zip(
            names, map_in_threads(partial(_try_to_shrink, pictures, size), names, "decoding"), strict=True
        ):
            if isinstance(made, str):
                skipped[name] = made
                continue
            example: dict[str, Any] = {"image": io.BytesIO(made), "file_name": name, GROUP: groups[name]}
            if pictures.labels is not None:
                example["label"] = classes[pictures.labels[name]]
            record = features.serialize_example(features.encode_example(example))
            writer.write(record)
            count, total = count + 1, total + len(record)
        writer.close()
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    write_json(state / f"{file.name}.json", {"count": count, "bytes": total, "skipped": skipped})


def _try_to_shrink(pictures: Pictures, size: int, name: str) -> bytes | str:
    """Returns the bytes that are written for a picture, or why it can't be read."""
    try:
        return shrink(pictures.read(name), name, size)
    except BrokenImageError as error:
        return error.why


def shrink(encoded: bytes, name: str, size: int) -> bytes:
    """Returns a picture's file, or a JPEG of it with a shorter side of `size` pixels if it has more or is of no usual
    kind.
    """
    with open_image(io.BytesIO(encoded), name) as image:
        is_plain = image.format in FOREIGN and image.mode in ("RGB", "L") and read_orientation(image) == 1
        if is_plain and min(image.size) <= size:
            return encoded
        if min(image.size) > size:
            image.draft("RGB", (2 * size, 2 * size))  # decodes a JPEG at a size that is still twice as large
        rgb = to_rgb(image, name)
        small = resize_short_side(rgb, size) if min(rgb.size) > size else rgb
    stream = io.BytesIO()
    if min(rgb.size) <= size and image.format != "JPEG":
        small.save(stream, "PNG")  # nothing is lost where nothing is made smaller
    else:
        small.save(stream, "JPEG", quality=QUALITY, subsampling=0)
    return stream.getvalue()


def write_description(
    folder: Path, name: str, features: tfds.features.FeaturesDict, notes: Mapping[Shard, Mapping[str, Any]]
) -> None:
    """Writes dataset_info.json and features.json, with which the set is whole. Raises UserError for an empty split."""
    splits: dict[str, list[Mapping[str, Any]]] = {}
    for shard, note in notes.items():
        splits.setdefault(shard.split, []).append(note)
    template = tfds.core.ShardedFileTemplate(
        data_dir=str(folder), dataset_name=name, filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    )  # fmt: skip
    infos = []
    for split, parts in splits.items():
        lengths = [int(note["count"]) for note in parts]
        if sum(lengths) == 0:
            raise FileError(f"no picture of the split {split!r} can be read", fix=f"look at {folder / STATE}")
        infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=lengths,
                num_bytes=sum(note["bytes"] for note in parts),
                filename_template=template,
            )
        )
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=infos, filename_template=template,
        description="Pictures of one's own, prepared by mi_contrast.data.prepare.", check_data=False,
    )  # fmt: skip


def read_note(out: Path) -> str | None:
    """Returns the name of the set that was prepared in a folder, or None if none was."""
    return str(read_json(out / NOTE)["name"]) if (out / NOTE).is_file() else None


def name_set(pictures: str) -> str:
    """Returns the name of the set: the folder's or file's, in letters that TFDS allows.

    >>> name_set("folder:/home/me/Holiday photos 2024/")
    'holiday_photos_2024'
    """
    stem = Path(pictures.partition(":")[2]).expanduser().resolve().name.partition(".")[0]
    words = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    return words if re.match("[a-z]", words) else f"set_{words}".rstrip("_")


def read_command(flags: Mapping[str, str]) -> dict[str, Any]:
    """Returns the fields of config.data that the flags stand for."""
    given = flags["pictures"]
    is_name = given.partition(":")[0] in own.KINDS
    options = {field: flags.get(field) for field in ("labels", "group")}
    share = convert(0.0, flags["test_share"], "--test_share") if "test_share" in flags else None
    return {
        "name": given if is_name else f"folder:{given.rstrip('/') or given}", "dir": None, "options": {}, "label": None,
        "split": None, "test_split": None, "broken": None, "test_share": share, **options,
    }  # fmt: skip


def main(arguments: list[str]) -> None:
    """Writes the set that the command line asks for, and says how to train on it."""
    flags = parse(arguments, FLAGS, positional="pictures", usage=__doc__ or "").flags
    for flag, example in (("pictures", "photos/"), ("out", "--out=prepared")):
        if flag not in flags:
            raise UserError(f"no --{flag} is given", fix=f"give {example}")
    size = convert(256, flags.get("size", "256"), "--size")
    if size < 8:
        raise UserError(f"--size={size} is too small", fix="give 8 pixels or more, such as 256")
    data, out = read_command(flags), Path(flags["out"])
    seen = survey({**data, "broken": 0.9999})
    print("\n".join(seen.lines))
    data |= seen.data
    kind, _, path = data["name"].partition(":")
    path = path if kind == "hf" else str(sets.resolve_path(data["name"], None))
    pictures = own.collect(kind, path, data["labels"])
    pictures, groups = own.arrange(pictures, scan_pictures(pictures), data["group"], data["test_share"])
    name = name_set(data["name"])
    skipped = prepare(pictures, groups, size, out, name)
    print(f"{len(pictures.names) - len(skipped):,} pictures are in {out}, {len(skipped)} were skipped (skipped.txt)")
    print(f"train on them: python -m mi_contrast train simclr {out}")


if __name__ == "__main__":
    sys.exit(run_job(main))
