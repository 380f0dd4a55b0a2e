"""python -m mi_contrast.data.convert DIRECTORY: a TFDS set stored as TFRecord is stored as ArrayRecord as well.

No TensorFlow is needed: both formats hold the same bytes an example, in other frames. The TFRecord files stay.
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
from mi_contrast.core.progress import Progress

TFRECORD, ARRAY_RECORD = tfds.core.FileFormat.TFRECORD, tfds.core.FileFormat.ARRAY_RECORD


def convert(directory: Path) -> None:
    """Writes each TFRecord file of a set as ArrayRecord beside it, then names the new format in dataset_info.json.

    What is broken off begins anew; the set's description changes last.

    Args:
      directory: of one version, with dataset_info.json in it.
    Raises:
      UserError where that is no set stored as TFRecord, or a file is missing, truncated or of another count.
    """
    description = directory / "dataset_info.json"
    written = read_json(description)
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
    progress = Progress(f"converting {info.name}", len(old), unit="file")
    for (source, count), target in zip(old, new, strict=True):
        rewrite(source, target, count)
        progress.advance()
    progress.close()
    others = [f for f in written.get("alternativeFileFormats", []) if f != ARRAY_RECORD.value]
    write_json(description, written | {"alternativeFileFormats": [*others, ARRAY_RECORD.value]})


def rewrite(source: Path, target: Path, count: int) -> None:
    """Copies the `count` records of a TFRecord file into an ArrayRecord file, whole or not at all."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    writer, copied = ArrayRecordWriter(str(temporary), "group_size:1"), 0
    try:
        for record in records(source):
            writer.write(record)
            copied += 1
        writer.close()
        if copied != count:
            raise FileError(f"{source} holds {copied} records where its set should have {count}", fix="prepare it anew")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def records(file: Path) -> Iterator[bytes]:
    """The records of a TFRecord file: length (uint64), its checksum, the bytes, their checksum; UserError if cut off.

    Checksums are not compared.
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
    """Converts the one directory given."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise UserError("give one directory", fix="python -m mi_contrast.data.convert DATA_DIR/NAME/VERSION")
    convert(Path(arguments[0]).expanduser())
    print(json.dumps({"converted": arguments[0]}))


if __name__ == "__main__":
    sys.exit(run_job(main))
