"""python -m mi_contrast.data.convert DIRECTORY: adds ArrayRecord files to a TFDS set that is stored as TFRecord.

The TFRecord files stay. TensorFlow is not needed, because both formats hold the same bytes for each example.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from mi_contrast.core.errors import FileError, UserError, run_job
from mi_contrast.core.layout import read_json, write_json
from mi_contrast.core.progress import ProgressBar

TFRECORD, ARRAY_RECORD = tfds.core.FileFormat.TFRECORD, tfds.core.FileFormat.ARRAY_RECORD


def convert(directory: Path) -> None:
    """Converts each TFRecord file of a set, then adds the new format to dataset_info.json.

    If it is interrupted, the set is unchanged, and the conversion can be started again.

    Args:
      directory: the directory of one version of the set, with its dataset_info.json.

    Raises:
      UserError: the set is not stored as TFRecord, or a file is missing, truncated or has another number of records.
    """
    description = directory / "dataset_info.json"
    facts = read_json(description)
    info = tfds.builder_from_directory(directory).info
    if TFRECORD not in info.available_file_formats():
        raise FileError(f"{directory} is not stored as TFRecord but as {info.file_format.value}")
    info.set_file_format(TFRECORD, override=True, override_if_initialized=True)
    old = [
        (Path(path), count)
        for s in info.splits.values()
        for path, count in zip(s.filepaths, s.shard_lengths, strict=True)
    ]
    info.set_file_format(ARRAY_RECORD, override=True, override_if_initialized=True)
    new = [Path(path) for s in info.splits.values() for path in s.filepaths]
    progress = ProgressBar(f"converting {info.name}", len(old), unit="file")
    for (source, count), target in zip(old, new, strict=True):
        convert_file(source, target, count)
        progress.advance()
    progress.close()
    others = [f for f in facts.get("alternativeFileFormats", []) if f != ARRAY_RECORD.value]
    write_json(description, facts | {"alternativeFileFormats": [*others, ARRAY_RECORD.value]})


def convert_file(source: Path, target: Path, count: int) -> None:
    """Copies the `count` records of a TFRecord file into an ArrayRecord file, whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    writer, num_copied = ArrayRecordWriter(str(temporary), "group_size:1"), 0
    try:
        for record in read_records(source):
            writer.write(record)
            num_copied += 1
        writer.close()
        if num_copied != count:
            raise FileError(
                f"{source} holds {num_copied} records where its set should have {count}", fix="prepare it anew"
            )
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def read_records(file: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file. Raises UserError if the file is truncated.

    A record is its length (uint64), a checksum of the length, the bytes, and a checksum of the bytes. The checksums are
    not verified.
    """
    try:
        stream = open(file, "rb")  # noqa: SIM115 - closed by `with` below
    except OSError as error:
        raise FileError(f"{file} can't be read ({error.strerror})", fix="prepare the set anew") from None
    with stream:
        while head := stream.read(12):
            length = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else 0
            body = stream.read(length + 4) if length < file.stat().st_size else b""
            if len(head) < 12 or len(body) < length + 4:
                raise FileError(f"{file} is truncated or no TFRecord file", fix="prepare the set anew")
            yield body[:-4]


def main(arguments: list[str]) -> None:
    """Converts the directory that is the only argument."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise UserError("give one directory", fix="python -m mi_contrast.data.convert DATA_DIR/NAME/VERSION")
    convert(Path(arguments[0]).expanduser())
    print(json.dumps({"converted": arguments[0]}))


if __name__ == "__main__":
    sys.exit(run_job(main))
