"""Finds, checks and reads TFDS sets that are stored as ArrayRecord, without TensorFlow."""

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
from mi_contrast.data.broken import drop_broken
from mi_contrast.data.crops import WholeImage
from mi_contrast.data.decoding import BrokenImageError, decode, stack_images
from mi_contrast.data.imageset import CHUNK, ImageSet, Ints, Lazy, map_in_threads
from mi_contrast.data.kept import LARGE, keep_arrays, keep_reasons

ARRAY_RECORD, TFRECORD = tfds.core.FileFormat.ARRAY_RECORD, tfds.core.FileFormat.TFRECORD
GROUP = "picture_group"  # a feature of prepared sets: which pictures stay on one side of a split
TENSORFLOW_HINT = (
    "(where that asks for tensorflow, install it for this once)"  # TFDS encodes arrays, though not files, with it
)


@dataclass(frozen=True)
class Records:
    """One split of a set on disk. Its images are still encoded.

    Attributes:
      name, split: as in the config.
      image: name of the feature that holds the image.
      features: TFDS's description of each feature.
      source: a sequence of dicts, with the image as bytes.
      fingerprint: plain data from the set's dataset_info.
      places: int [N], the record of each index; None if index and record are the same.
      max_offset: number of records after a damaged one that may stand in for its labels.
    """

    name: str
    split: str
    image: str
    features: Mapping[str, Any]
    source: Any
    fingerprint: Mapping[str, Any] = field(default_factory=dict)
    places: Ints | None = None
    max_offset: int = 0

    def __len__(self) -> int:
        return len(self.source) if self.places is None else len(self.places)

    def place(self, index: int) -> int:
        """Returns the number of the record at an index."""
        return index if self.places is None else int(self.places[index])

    def example(self, index: int) -> str:
        """Returns the name of an example for error messages."""
        return f"example {self.place(index)} of {self.name} {self.split}"

    def read(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Reads the examples at `indices`. Raises UserError that names the first one that can't be read."""
        try:
            return list(self.source.__getitems__([self.place(index) for index in indices]))
        except RuntimeError:  # it does not say which example failed, so they are read one by one
            return [self._read_one(index) for index in indices]

    def _read_one(self, index: int) -> dict[str, Any]:
        try:
            return dict(self.source[self.place(index)])
        except RuntimeError as error:
            why = f"the record is damaged ({' '.join(str(error).split())[:80]})"
            raise BrokenImageError(self.example(index), why, f": {why}", "prepare the set anew") from None

    def read_past(self, index: int) -> dict[str, Any]:
        """Reads the example at `index`, or the first readable one of the `max_offset` examples after it."""
        for offset in range(self.max_offset):
            try:
                return self._read_one((index + offset) % len(self))
            except BrokenImageError:
                continue
        return self._read_one((index + self.max_offset) % len(self))

    def columns(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns the features `names` of every example, int32 [N, ...] each."""
        parts = [range(start, min(start + CHUNK, len(self))) for start in range(0, len(self), CHUNK)]

        def read(part: range) -> list[list[Any]]:
            return [[example[name] for name in names] for example in read_examples(part)]

        def read_examples(part: range) -> list[dict[str, Any]]:
            return [self.read_past(index) for index in part] if self.max_offset else self.read(part)

        rows = [row for part in map_in_threads(read, parts, f"labels of {self.name} {self.split}") for row in part]
        return {name: np.asarray(column, np.int32) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def load(
    name: str,
    split: str,
    *,
    data_dir: epath.Path,
    size: int | None = None,
    broken: float = 0.0,
    known_broken: Collection[str] | None = None,
) -> ImageSet:
    """Loads a TFDS set as an ImageSet. Its labels are the features of type ClassLabel.

    Args:
      name: 'name', 'name/config' or 'name:version'.
      split: as TFDS writes it.
      data_dir: the folder of TFDS sets.
      size: if given, images are resized and cropped to squares of this side.
      broken: the share of records that may be damaged. Above 0, every record is decoded once, and damaged ones get no
        index.
      known_broken: numbers of the records that an earlier scan found damaged. If given, nothing is scanned.
    """
    directory = find_directory(name, data_dir)
    records = open_records(directory, name, split)
    if broken > 0:
        numbers = [str(index) for index in range(len(records))]
        reasons = scan(records, str(directory)) if known_broken is None else dict.fromkeys(known_broken, "")
        places = np.array(drop_broken(numbers, reasons, broken, f"{name} {split}"), np.int64)
        dropped = sorted(set(numbers) - set(map(str, places)), key=int)
        facts, max_offset = {**records.fingerprint, "broken": dropped}, int(np.ceil(broken * len(places)))
        records = replace(records, places=places, fingerprint=facts, max_offset=max_offset)
    label_names, is_large = find_labels(records), len(records) >= LARGE

    def read(indices: Ints) -> np.ndarray:
        examples = records.read([int(i) for i in indices])
        names = [records.example(int(i)) for i in indices]
        images = [decode(e[records.image], where, size) for e, where in zip(examples, names, strict=True)]
        return stack_images(images, names, shape)

    shape = (
        (size, size, 3) if size is not None else decode(records.read_past(0)[records.image], records.example(0)).shape
    )

    def read_labels() -> dict[str, np.ndarray]:
        if not is_large:
            return records.columns(label_names)
        facts = {"split": split, "labels": label_names, **records.fingerprint}
        return keep_arrays(str(directory), "labels", facts, lambda: records.columns(label_names))

    labels = Lazy(label_names, read_labels)
    classes = {label: tuple(records.features[label].names) for label in label_names}

    def open_whole(index: int) -> WholeImage:
        return WholeImage(records.read([index])[0][records.image], records.example(index))

    groups = records.columns((GROUP,))[GROUP] if GROUP in records.features else None
    made = ImageSet(name, split, len(records), shape, read, labels, classes, groups, fingerprint=records.fingerprint)
    return replace(made, square=size, open=open_whole)


def scan(records: Records, directory: str) -> dict[str, str]:
    """Returns what `find_broken` does, and keeps it if the set is large."""
    facts = {"split": records.split, **records.fingerprint}
    return keep_reasons(directory, facts, lambda: find_broken(records), len(records))


def find_broken(records: Records) -> dict[str, str]:
    """Decodes every record, in threads. Returns the reason for each record that can't be decoded, by its number."""

    def find_reason(index: int) -> str:
        try:
            decode(records.read([index])[0][records.image], records.example(index))
        except BrokenImageError as error:
            return error.why
        return ""

    what = f"looking for broken records in {records.name} {records.split}"
    reasons = map_in_threads(find_reason, range(len(records)), what)
    return {str(index): reason for index, reason in enumerate(reasons) if reason}


def find_labels(records: Records) -> tuple[str, ...]:
    """Returns the names of the features that are class labels: 'label' first, the others sorted."""
    names = [n for n, feature in records.features.items() if isinstance(feature, tfds.features.ClassLabel)]
    return tuple(sorted(names, key=lambda n: (n != "label", n)))


def find_directory(name: str, data_dir: epath.Path) -> epath.Path:
    """Returns the directory of a set's newest version, or of the version in its name.

    Raises UserError if it is not on disk. The message has the command that prepares it, or the nearest name.
    """
    base, _, version = name.partition(":")
    folders = [data_dir / base, *(p for p in list_folders(data_dir / base) if list_versions(p))]
    directories = [p for folder in folders for p in list_versions(folder) if version in ("", p.name)]
    configs = sorted({p.parent.name for p in directories})
    if directories and len(configs) == 1:
        return directories[-1]
    if directories:
        raise UserError(
            f"{name} in {data_dir} has several configs", fix=f"one of: {', '.join(f'{base}/{c}' for c in configs)}"
        )
    raise missing_error(name, data_dir)


def list_folders(folder: epath.Path) -> list[epath.Path]:
    """Returns the folders in a folder, sorted by name. The list is empty if the folder does not exist."""
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def list_versions(folder: epath.Path) -> list[epath.Path]:
    """Returns the directories of the prepared versions in a folder, oldest first."""
    versions = [p for p in list_folders(folder) if re.fullmatch(r"\d+\.\d+\.\d+", p.name)]
    versions = [p for p in versions if (p / "dataset_info.json").exists()]
    return sorted(versions, key=lambda p: tuple(int(n) for n in p.name.split(".")))


def missing_error(name: str, data_dir: epath.Path) -> UserError:
    """Makes the error for a set that is not on disk."""
    set_and_config = name.partition(":")[0]
    here = [p.name for p in list_folders(data_dir) if any(list_versions(q) for q in (p, *list_folders(p)))]
    base, known = set_and_config.partition("/")[0], tfds.list_builders(with_community_datasets=False)
    if base in here:
        folder = data_dir / base
        names = [p.name for p in (*list_versions(folder), *(q for q in list_folders(folder) if list_versions(q)))]
        return FileError(f"{name} is not in {data_dir}", fix=f"{base} is there as {', '.join(names)}")
    if base in known:
        return FileError(
            f"{name} is not in {data_dir}", fix=f"prepare it: {prepare_command(name, data_dir)} {TENSORFLOW_HINT}"
        )
    hint = nearest(set_and_config, [*here, "moving_digits", *known])
    return UserError(f"unknown data set {name!r}", nearest=hint, fix=f"{data_dir} has {', '.join(here) or 'none'}")


def prepare_command(name: str, data_dir: epath.Path) -> str:
    """Returns the shell command that prepares a set as ArrayRecord."""
    builder = f"tfds.builder({name!r}, data_dir={str(data_dir)!r}, file_format='array_record')"
    return f'python -c "import tensorflow_datasets as tfds; {builder}.download_and_prepare()"'


def open_records(directory: epath.Path, name: str, split: str) -> Records:
    """Opens one split of the set in `directory`.

    Raises:
      UserError: the set is not stored as ArrayRecord, the split is unknown or empty, a file has another number of
        records than dataset_info.json says, or there is no image of 8 bits.
    """
    builder = tfds.builder_from_directory(directory)
    info = builder.info
    formats = info.available_file_formats()
    if ARRAY_RECORD not in formats:
        stored = ", ".join(f.value for f in formats) or "an unknown format"
        convert = f"convert it: python -m mi_contrast.data.convert {directory}"
        raise FileError(
            f"{name} in {directory} is stored as {stored}, not as ArrayRecord",
            fix=convert
            if TFRECORD in formats
            else f"prepare it elsewhere: {prepare_command(name, epath.Path('DATA_DIR'))}",
        )
    if info.file_format != ARRAY_RECORD:
        info.set_file_format(ARRAY_RECORD, override=True, override_if_initialized=True)
    check_split(info.splits, name, split)
    check_counts(info.splits[split].file_instructions, name)
    image = find_image_feature(info, name)
    encoded = {n: tfds.decode.SkipDecoding() for n, f in info.features.items() if isinstance(f, tfds.features.Image)}
    source = builder.as_data_source(split, decoders=encoded)
    return Records(name, split, image, info.features, source, make_fingerprint(info, split))


def make_fingerprint(info: tfds.core.DatasetInfo, split: str) -> dict[str, Any]:
    """Returns the set's name and version, and the shard lengths and bytes of the splits that `split` reads from."""
    bases = {part.partition("[")[0].strip() for part in split.split("+")}
    names = sorted(info.splits) if "all" in bases else sorted(bases)
    facts = {
        base: {"shards": list(info.splits[base].shard_lengths), "bytes": info.splits[base].num_bytes} for base in names
    }
    return {"set": info.full_name, "version": str(info.version), "splits": facts}


def check_split(splits: Mapping[str, Any], name: str, split: str) -> None:
    """Raises UserError if `split` is unknown, empty, or not in TFDS's notation: 'train', 'train[:90%]', 'a+b[:9]'."""
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


def resolve_ranges(sizes: Mapping[str, int], name: str, split: str) -> list[tuple[str, slice]]:
    """Resolves 'train[:50%]+val' to the base splits and the slices of each, in order.

    Args:
      sizes: number of examples in each base split.
      name: the set's name, for error messages.
      split: as TFDS writes it.

    Raises:
      UserError: as `check_split`.

    >>> resolve_ranges({"train": 10, "val": 4}, "mine", "train[:50%]+val")
    [('train', slice(None, 5, None)), ('val', slice(None, None, None))]
    """
    counts = {key: SimpleNamespace(num_examples=size, shard_lengths=[size]) for key, size in sizes.items()}
    check_split(counts, name, split)
    parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(counts)
    return [(part.splitname, slice(part.from_, part.to)) for part in parts]


def check_counts(files: Sequence[Any], name: str) -> None:
    """Raises UserError if a file has another number of records than the set's info says. Truncated files have 0."""
    for file in files:
        try:
            reader = ArrayRecordReader(str(file.filename))
            count, why = reader.num_records(), ""
            reader.close()
        except Exception as error:  # array_record raises several kinds for a file that is missing or not ArrayRecord
            count, why = 0, f" ({' '.join(str(error).split())[:80] or type(error).__name__})"
        if count != file.examples_in_shard:
            raise FileError(
                f"{file.filename} holds {count} of the {file.examples_in_shard} records of {name}{why}",
                fix="it is missing, truncated or damaged: copy or prepare it anew",
            )


def find_image_feature(info: tfds.core.DatasetInfo, name: str) -> str:
    """Returns the name of the feature that holds the image.

    Raises UserError if there is none, if there are several and none is called 'image', or if it does not have 8 bits.
    """
    images = [n for n, feature in info.features.items() if isinstance(feature, tfds.features.Image)]
    image = "image" if "image" in images else images[0] if len(images) == 1 else None
    if image is None:
        raise UserError(f"{name} has no feature 'image'", fix=f"its features: {', '.join(sorted(info.features))}")
    if np.dtype(info.features[image].np_dtype) != np.uint8:
        raise UserError(f"{name} has images of {np.dtype(info.features[image].np_dtype)}", fix="only uint8 is read")
    return image


def default_data_dir() -> epath.Path:
    """Returns TFDS's own default: $TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    return epath.Path(constants.DATA_DIR)
