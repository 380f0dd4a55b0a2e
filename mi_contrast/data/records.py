"""TFDS sets on disk as ArrayRecord: found, checked and read without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from etils import epath
from tensorflow_datasets.core import constants

from mi_contrast.core.errors import FileError, UserError, nearest, unknown
from mi_contrast.data.broken import keep_good
from mi_contrast.data.decoding import BrokenImageError, decode, stack
from mi_contrast.data.imageset import CHUNK, ImageSet, Ints, Lazy, in_threads

ARRAY_RECORD, TFRECORD = tfds.core.FileFormat.ARRAY_RECORD, tfds.core.FileFormat.TFRECORD
ASKS = "(where that asks for tensorflow, install it for this once)"  # TFDS encodes arrays, though not files, with it


@dataclass(frozen=True)
class Records:
    """One split of a set on disk: its examples with their images still encoded.

    source: index to a dict with `image` (bytes) and the other wanted features. features: what each holds.
    fingerprint: plain data of its dataset_info. places: which records the indices stand for, None for all.
    passed: how many records after a damaged one may stand in for its labels.
    """

    name: str
    split: str
    image: str
    features: Mapping[str, Any]
    source: Any
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    places: Ints | None = None
    passed: int = 0

    def __len__(self) -> int:
        return len(self.source) if self.places is None else len(self.places)

    def place(self, index: int) -> int:
        """The record that an index stands for."""
        return index if self.places is None else int(self.places[index])

    def example(self, index: int) -> str:
        """How an error names an example."""
        return f"example {self.place(index)} of {self.name} {self.split}"

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The examples at `indices`. UserError naming the first that can't be read."""
        try:
            return list(self.source.__getitems__([self.place(index) for index in indices]))
        except RuntimeError:  # the reader doesn't say which example
            return [self._read_one(index) for index in indices]

    def _read_one(self, index: int) -> dict[str, Any]:
        try:
            return dict(self.source[self.place(index)])
        except RuntimeError as error:
            what = " ".join(str(error).split())[:80]
            said = f"the record is damaged ({what})"
            raise BrokenImageError(self.example(index), said, f": {said}", "prepare the set anew") from None

    def read_past(self, index: int) -> dict[str, Any]:
        """The example at `index`, or of the `passed` after it the first that can be read."""
        for after in range(self.passed):
            try:
                return self._read_one((index + after) % len(self))
            except BrokenImageError:
                continue
        return self._read_one((index + self.passed) % len(self))

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Features of every example, int32 [N, ...] each."""
        parts = [range(start, min(start + CHUNK, len(self))) for start in range(0, len(self), CHUNK)]

        def read(part: range) -> list[list[Any]]:
            return [[example[name] for name in names] for example in examples(part)]

        def examples(part: range) -> list[dict[str, Any]]:
            return [self.read_past(index) for index in part] if self.passed else self.read(part)

        rows = [row for part in in_threads(read, parts, f"labels of {self.name} {self.split}") for row in part]
        return {name: np.asarray(column, np.int32) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def load(
    name: str,
    split: str,
    *,
    data_dir: epath.Path,
    size: int | None = None,
    broken: float = 0.0,
    known: Collection[str] | None = None,
) -> ImageSet:
    """A TFDS set, 'name', 'name/config' or 'name:version', as an ImageSet; labels are its ClassLabel features.

    Args:
      broken: the share of records that may be damaged; above 0 every record is decoded once, and these get no index.
      known: the records that get none, as an earlier scan found them; nothing is scanned then.
    """
    records = open_records(find(name, data_dir), name, split)
    if broken > 0:
        every = [str(index) for index in range(len(records))]
        bad = scan(records) if known is None else dict.fromkeys(known, "")
        places = np.array(keep_good(every, bad, broken, f"{name} {split}"), np.int64)
        marked = {**records.fingerprint, "broken": sorted(set(every) - set(map(str, places)), key=int)}
        most = int(np.ceil(broken * len(places)))
        records = replace(records, places=places, fingerprint=marked, passed=most)
    names = class_labels(records)

    def read(indices: Ints) -> np.ndarray:
        found = records.read([int(i) for i in indices])
        examples = [records.example(int(i)) for i in indices]
        images = [decode(e[records.image], where, size) for e, where in zip(found, examples, strict=True)]
        return stack(images, examples, shape)

    shape = (
        (size, size, 3) if size is not None else decode(records.read_past(0)[records.image], records.example(0)).shape
    )
    labels = Lazy(names, lambda: records.columns(names))
    classes = {label: tuple(records.features[label].names) for label in names}
    return ImageSet(name, split, len(records), shape, read, labels, classes, fingerprint=records.fingerprint)


def scan(records: Records) -> dict[str, str]:
    """The numbers of the records that can't be read or decoded, and why; in threads, with progress past 5 s."""

    def why(index: int) -> str:
        try:
            decode(records.read([index])[0][records.image], records.example(index))
        except BrokenImageError as error:
            return error.why
        return ""

    found = in_threads(why, range(len(records)), f"looking for broken records in {records.name} {records.split}")
    return {str(index): said for index, said in enumerate(found) if said}


def class_labels(records: Records) -> tuple[str, ...]:
    """The features that are class labels: 'label' first, then by name."""
    names = [n for n, feature in records.features.items() if isinstance(feature, tfds.features.ClassLabel)]
    return tuple(sorted(names, key=lambda n: (n != "label", n)))


def find(name: str, data_dir: epath.Path) -> epath.Path:
    """The directory of a set: the newest version, or the one named.

    Raises UserError where it is not there: with the command that prepares it, or the nearest name.
    """
    asked, _, version = name.partition(":")
    folders = [data_dir / asked, *(p for p in subfolders(data_dir / asked) if versions(p))]
    found = [p for folder in folders for p in versions(folder) if version in ("", p.name)]
    configs = sorted({p.parent.name for p in found})
    if found and len(configs) == 1:
        return found[-1]
    if found:
        raise UserError(
            f"{name} in {data_dir} has several configs", fix=f"one of: {', '.join(f'{asked}/{c}' for c in configs)}"
        )
    raise absent(name, data_dir)


def subfolders(folder: epath.Path) -> list[epath.Path]:
    """The folders in a folder, by name; none where it doesn't exist."""
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def versions(folder: epath.Path) -> list[epath.Path]:
    """The prepared versions in a folder, oldest first."""
    found = [p for p in subfolders(folder) if re.fullmatch(r"\d+\.\d+\.\d+", p.name)]
    found = [p for p in found if (p / "dataset_info.json").exists()]
    return sorted(found, key=lambda p: tuple(int(n) for n in p.name.split(".")))


def absent(name: str, data_dir: epath.Path) -> UserError:
    """The error for a set that is not on disk."""
    asked = name.partition(":")[0]
    here = [p.name for p in subfolders(data_dir) if versions(p) or any(versions(q) for q in subfolders(p))]
    base, known = asked.partition("/")[0], tfds.list_builders(with_community_datasets=False)
    if base in here:
        folder = data_dir / base
        held = [p.name for p in versions(folder)] + [f"{q.name}" for q in subfolders(folder) if versions(q)]
        return FileError(f"{name} is not in {data_dir}", fix=f"{base} is there as {', '.join(held)}")
    if base in known:
        return FileError(f"{name} is not in {data_dir}", fix=f"prepare it: {command(name, data_dir)} {ASKS}")
    hint = nearest(asked, [*here, "moving_digits", *known])
    return UserError(f"unknown data set {name!r}", nearest=hint, fix=f"{data_dir} has {', '.join(here) or 'none'}")


def command(name: str, data_dir: epath.Path) -> str:
    """What prepares a set as ArrayRecord."""
    builder = f"tfds.builder({name!r}, data_dir={str(data_dir)!r}, file_format='array_record')"
    return f'python -c "import tensorflow_datasets as tfds; {builder}.download_and_prepare()"'


def open_records(directory: epath.Path, name: str, split: str) -> Records:
    """One split of the set in `directory`.

    Raises UserError where it is not stored as ArrayRecord, has no such split or an empty one, holds fewer records than
    it says, or has no 8-bit image.
    """
    builder = tfds.builder_from_directory(directory)
    info = builder.info
    formats = info.available_file_formats()
    if ARRAY_RECORD not in formats:
        stored = ", ".join(f.value for f in formats) or "an unknown format"
        convert = f"convert it: python -m mi_contrast.data.convert {directory}"
        raise FileError(
            f"{name} in {directory} is stored as {stored}, not as ArrayRecord",
            fix=convert if TFRECORD in formats else f"prepare it elsewhere: {command(name, epath.Path('DATA_DIR'))}",
        )
    if info.file_format != ARRAY_RECORD:
        info.set_file_format(ARRAY_RECORD, override=True, override_if_initialized=True)
    check_split(info.splits, name, split)
    check_counts(info.splits[split].file_instructions, name)
    image = image_feature(info, name)
    encoded = {n: tfds.decode.SkipDecoding() for n, f in info.features.items() if isinstance(f, tfds.features.Image)}
    source = builder.as_data_source(split, decoders=encoded)
    return Records(name, split, image, info.features, source, fingerprint_of(info, split))


def fingerprint_of(info: tfds.core.DatasetInfo, split: str) -> dict[str, Any]:
    """What dataset_info says of the splits that `split` takes from: shards' lengths and bytes; name and version too."""
    bases = {part.partition("[")[0].strip() for part in split.split("+")}
    taken = sorted(info.splits) if "all" in bases else sorted(bases)
    facts = {
        base: {"shards": list(info.splits[base].shard_lengths), "bytes": info.splits[base].num_bytes} for base in taken
    }
    return {"set": info.full_name, "version": str(info.version), "splits": facts}


def check_split(splits: Mapping[str, Any], name: str, split: str) -> None:
    """UserError where `split` is unknown, badly written (TFDS's way: 'train', 'train[:90%]', 'a+b[:9]') or empty."""
    for part in split.split("+"):
        base = part.partition("[")[0].strip()
        if base not in (*splits, "all"):
            raise unknown(f"split of {name}", base, splits)
    try:
        examples = sum(
            (i.to if i.to is not None else splits[i.splitname].num_examples) - (i.from_ or 0)
            for i in tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
        )
    except (ValueError, AssertionError, NotImplementedError) as error:
        what = str(error).strip().splitlines()[-1]
        raise UserError(
            f"split {split!r} of {name}: {what}", fix="write it as 'train[:90%]' or 'train[100:200]'"
        ) from None
    if examples <= 0:
        raise UserError(f"split {split!r} of {name} is empty", fix="give a range with examples in it")


def ranges(sizes: Mapping[str, int], name: str, split: str) -> list[tuple[str, slice]]:
    """Which examples of which split a split of a set is made of, in order, given how many each split has.

    Raises:
      UserError: as `check_split`.

    >>> ranges({"train": 10, "val": 4}, "mine", "train[:50%]+val")
    [('train', slice(None, 5, None)), ('val', slice(None, None, None))]
    """
    counts = {key: SimpleNamespace(num_examples=size, shard_lengths=[size]) for key, size in sizes.items()}
    check_split(counts, name, split)
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(counts)
    return [(part.splitname, slice(part.from_, part.to)) for part in parts]


def check_counts(files: Sequence[Any], name: str) -> None:
    """UserError where a file holds other than the records that the set's info counts: a truncated one reads as 0."""
    for file in files:
        try:
            reader = ArrayRecordReader(str(file.filename))
            held, why = reader.num_records(), ""
            reader.close()
        except Exception as error:  # of whatever kind array_record raises for a file that is missing or no ArrayRecord
            held, why = 0, f" ({' '.join(str(error).split())[:80] or type(error).__name__})"
        if held != file.examples_in_shard:
            raise FileError(
                f"{file.filename} holds {held} of the {file.examples_in_shard} records of {name}{why}",
                fix="it is missing, truncated or damaged: copy or prepare it anew",
            )


def image_feature(info: tfds.core.DatasetInfo, name: str) -> str:
    """The feature that holds the image. UserError where there is none, or more than one, or it has not 8 bits."""
    images = [n for n, feature in info.features.items() if isinstance(feature, tfds.features.Image)]
    chosen = "image" if "image" in images else images[0] if len(images) == 1 else None
    if chosen is None:
        raise UserError(f"{name} has no feature 'image'", fix=f"its features: {', '.join(sorted(info.features))}")
    if np.dtype(info.features[chosen].np_dtype) != np.uint8:
        raise UserError(f"{name} has images of {np.dtype(info.features[chosen].np_dtype)}", fix="only uint8 is read")
    return chosen


def default_data_dir() -> epath.Path:
    """TFDS's own: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return epath.Path(constants.DATA_DIR)
