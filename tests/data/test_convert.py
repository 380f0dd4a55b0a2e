"""TFRecord to ArrayRecord, against frames written by hand and a file that TensorFlow wrote."""

import json
import shlex
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from mi_contrast.core.errors import UserError, run_job
from mi_contrast.data import convert, sets
from tests.data.toys import TWO_FRAMES

# tf.io.TFRecordWriter of TensorFlow 2.21: b"one", b"", b"three!".
BY_TENSORFLOW = bytes.fromhex(
    "0300000000000000b099490e6f6e6501405508000000000000000029039807d8ea82a206000000000000007369d5377468726565219bea0bf2"
)


def tfrecord(records):
    """The frames by hand; checksums are not read, so they are not written right."""
    return b"".join(struct.pack("<QI", len(r), 0) + r + struct.pack("<I", 0) for r in records)


@pytest.fixture
def stored(digits_dir, tmp_path):
    """moving_digits as if TFDS had stored it as TFRecord, 'train' in two files; returns (directory, its records)."""
    directory = tmp_path / "as_tfrecord" / "1.0.0"
    directory.mkdir(parents=True)
    (made,) = (digits_dir / "moving_digits").glob("*/1.0.0")
    written = json.loads((made / "dataset_info.json").read_text()) | {"fileFormat": "tfrecord", "name": "as_tfrecord"}
    records = ArrayRecordReader(str(next(made.glob("*-train.array_record-*")))).read(0, 30)
    written["splits"] = [written["splits"][0] | {"shardLengths": ["20", "10"]}]
    (directory / "dataset_info.json").write_text(json.dumps(written))
    for file in ("features.json", "background.labels.txt", "position.labels.txt"):
        (directory / file).write_text((made / file).read_text())
    for i, part in enumerate((records[:20], records[20:])):
        (directory / f"as_tfrecord-train.tfrecord-0000{i}-of-00002").write_bytes(tfrecord(part))
    return directory, records


def test_the_command_that_the_error_gives(stored, digits_dir):
    directory, records = stored
    with pytest.raises(
        UserError, match=r"as_tfrecord in .* is stored as tfrecord, not as ArrayRecord; convert it: "
    ) as caught:
        sets.load("as_tfrecord", "train", data_dir=directory.parents[1])
    python, *module, where = shlex.split(str(caught.value).partition("convert it: ")[2])
    assert [python, *module] == ["python", "-m", "mi_contrast.data.convert"] and convert.main([where]) is None
    images = sets.load("as_tfrecord", "train", data_dir=directory.parents[1])
    digits = sets.load("moving_digits", "train[:30]", data_dir=digits_dir, options=TWO_FRAMES)
    assert images.image_shape == (64, 32, 3) and len(images) == 30  # two frames a record
    assert np.array_equal(images.images(np.arange(30)).reshape(60, 32, 32, 3), digits.images(np.arange(60)))
    new = sorted(directory.glob("*.array_record-*"))
    assert [ArrayRecordReader(str(f)).num_records() for f in new] == [20, 10]
    assert ArrayRecordReader(str(new[1])).read_all() == records[20:]
    assert len(sorted(directory.glob("*.tfrecord-*"))) == 2  # what was there stays
    assert tfds.builder_from_directory(directory).info.file_format == convert.TFRECORD
    convert.main([where])  # and again does no harm
    assert json.loads((directory / "dataset_info.json").read_text())["alternativeFileFormats"] == ["array_record"]


def test_a_file_that_tensorflow_wrote(tmp_path):
    file = tmp_path / "x.tfrecord"
    file.write_bytes(BY_TENSORFLOW)
    assert list(convert.read_records(file)) == [b"one", b"", b"three!"]


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_truncated_file_changes_nothing(stored, cut):
    directory, _ = stored
    bad = directory / "as_tfrecord-train.tfrecord-00001-of-00002"
    bad.write_bytes(bad.read_bytes()[:-cut])
    before = (directory / "dataset_info.json").read_text()
    with pytest.raises(UserError, match=r"00001-of-00002 is truncated or no TFRecord file; prepare the set anew"):
        convert.convert(directory)
    assert (directory / "dataset_info.json").read_text() == before
    assert not [p for p in directory.iterdir() if p.name.startswith(".")]


def test_a_whole_record_less_is_seen(stored):
    directory, records = stored
    (directory / "as_tfrecord-train.tfrecord-00001-of-00002").write_bytes(tfrecord(records[20:29]))
    with pytest.raises(UserError, match=r"00001-of-00002 holds 9 records where its set should have 10"):
        convert.convert(directory)


def test_wrong_arguments_end_in_one_line(stored, capsys, digits_dir):
    directory, _ = stored
    (array_record,) = (digits_dir / "moving_digits").glob("*/1.0.0")
    (directory / "as_tfrecord-train.tfrecord-00000-of-00002").unlink()
    for arguments, said in (
        ([], "give one directory"),
        (["--help"], "give one directory"),
        ([str(directory / "nowhere")], "dataset_info.json does not exist"),
        ([str(array_record)], "is not stored as TFRecord but as array_record"),
        ([str(directory)], "00000-of-00002 can't be read (No such file or directory)"),
    ):
        assert run_job(convert.main, arguments) == 2
        assert said in capsys.readouterr().err
