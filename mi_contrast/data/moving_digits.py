"""The data set `moving_digits`: a handwritten digit that moves over a moving crop of a photograph.

It is shipped with the package. A frame has three independent factors: the digit (an instance of scikit-learn's
handwritten digits), its position (nine cells) and the background (twelve tiles of scikit-learn's two photographs). It
is a small version of the Colourful Moving-MNIST of Tian et al. 2020: two frames may share any subset of the factors,
and a contrastive method can learn what they share.

All computation is integer arithmetic on stable random bits, so the pixels are equal on every machine. `PIXELS` has
their checksums.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath
from jaxtyping import Int, UInt8
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from mi_contrast.core.errors import FileError, UserError, cannot_write, find_disk_error, unknown
from mi_contrast.core.layout import open_lock, take_lock
from mi_contrast.core.progress import ProgressBar
from mi_contrast.data.decoding import crop_square, decode, stack_images
from mi_contrast.data.imageset import ImageSet, Ints
from mi_contrast.data.order import permutation, random_bits
from mi_contrast.data.records import open_records

SIZES = (32, 64)
CLIPS, TEST_OF_EACH = 2, 36  # clips of each digit instance; test instances of each digit
POSITIONS = tuple(f"{row} {column}" for row in ("top", "middle", "bottom") for column in ("left", "centre", "right"))
BACKGROUNDS = tuple(f"{photo} {p}" for photo in ("china", "flower") for p in POSITIONS if "middle" not in p)
TILE, STRIPS = 106, (0, 36, 70, 106)  # side of a tile at size 32; edges of its columns for train, test, train
BRIGHTNESS = 9, 16  # the photographs are dimmed to 9/16, so that white ink stands out against the sky
DIGIT_SPEED, PHOTO_SPEED = 2.0, 0.75  # pixels a frame at size 32
FINE = 64  # motion is computed in 64ths of a pixel
SEED = 2020

# sha256 of the pixels of all frames in order, for the default options.
PIXELS = {
    "train": "5505744e0ff07cfb9bf78f9860ebc591f83cad79c9383ee12a0230b1479b6e36",
    "test": "b4a3e3c3524222df1fb4f86cc4414d01414e84f781b3caabdbb9bbaae0a4ef02",
}


@dataclass(frozen=True)
class Options:
    """The options of the set: the side of a frame in pixels (32 or 64), and the number of frames in a clip."""

    size: int = 32
    length: int = 8

    @property
    def name(self) -> str:
        """The name of the folder of a set with these options."""
        return f"{self.size}px_{self.length}frames"


def make_options(fields: Mapping[str, Any] | None) -> Options:
    """Makes the options from plain data. Raises UserError if a field is unknown or out of range."""
    fields = dict(fields or {})
    for field in fields:
        if field not in ("size", "length"):
            raise unknown("option of moving_digits", field, ("size", "length"))
    size, length = fields.get("size", 32), fields.get("length", 8)
    if size not in SIZES:
        raise UserError(f"moving_digits has no frames of size {size!r}", fix=f"give one of {SIZES}")
    if isinstance(length, bool) or not isinstance(length, int) or not 1 <= length <= 64:
        raise UserError(f"moving_digits has no clips of length {length!r}", fix="give 1 to 64 frames")
    return Options(size, length)


@dataclass(frozen=True)
class Clip:
    """One clip: `length` frames of one digit instance over one tile.

    frames: uint8 [length, size, size, 3].
    positions: int [length], the cell of the digit's centre in each frame.
    """

    frames: UInt8[np.ndarray, "length size size 3"]
    digit: int
    instance: int
    background: int
    positions: Int[np.ndarray, " length"]


def split_instances(split: str) -> Int[np.ndarray, " instances"]:
    """Returns the digit instances of a split, as indices into scikit-learn's 1,797 digits, in the split's order.

    The test split has 36 fixed, randomly chosen instances of each digit. The other 1,437 are the train split.
    """
    digits = load_digits().target
    order = permutation(len(digits), SEED, 0)
    by_digit = order[np.argsort(digits[order], kind="stable")]
    rank = np.concatenate([np.arange(n) for n in np.bincount(digits)])
    members = by_digit[(rank < TEST_OF_EACH) == (split == "test")]
    return members[permutation(len(members), SEED, 1)]


def draw_digits(size: int) -> Int[np.ndarray, "1797 half half"]:
    """Draws every digit as opacity 0 .. 256 at half a frame's side: 8 x 8 pixels, enlarged linearly."""
    digits = load_digits().images.astype(np.int64)
    while digits.shape[1] < size // 2:
        digits = double_resolution(double_resolution(digits, 1), 2)
    return digits * 256 // (16 * 16 ** int(np.log2(size // 16)))


def double_resolution(values: Int[np.ndarray, "*shape"], axis: int) -> Int[np.ndarray, "*doubled"]:
    """Doubles the resolution along `axis` by linear interpolation, and multiplies the values by 4.

    Each half of a sample is 3 times the sample plus its neighbour on that side, which keeps the values integer.
    """
    values = np.moveaxis(values, axis, -1)
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 1)])
    pair = np.stack([3 * values + padded[..., :-2], 3 * values + padded[..., 2:]], axis=-1)
    return np.moveaxis(pair.reshape(*values.shape[:-1], -1), -1, axis)


def cut_strips(split: str, size: int) -> list[list[UInt8[np.ndarray, "height width 3"]]]:
    """Cuts the strips that a split may use out of each of the twelve tiles. A crop stays inside one strip.

    The train split uses the outer columns of a tile and the test split the middle ones, so they share no pixel.
    """
    step, side = 64 // size, TILE * size // 32
    edges = [edge * size // 32 for edge in STRIPS]
    strips = []
    for photo in load_sample_images().images:  # china.jpg and flower.jpg: uint8 [427, 640, 3]
        photo = photo[: 426 // step * step].astype(np.int64)
        photo = photo.reshape(-1, step, 640 // step, step, 3).sum((1, 3)) * BRIGHTNESS[0] // (BRIGHTNESS[1] * step**2)
        for row in range(2):
            for column in range(3):
                tile = photo[row * side : (row + 1) * side, column * side : (column + 1) * side].astype(np.uint8)
                left, middle, right = (tile[:, a:b] for a, b in pairwise(edges))
                strips.append([left, right] if split == "train" else [middle])
    return strips


def bounce_path(bits: Int[np.ndarray, ""], velocity: int, length: int, reach: int) -> Int[np.ndarray, " length"]:
    """Returns a coordinate that moves at constant speed in 0 .. reach - 1 and is reflected at both ends.

    The start and the direction are drawn uniformly by `bits`, so each value is equally likely in every frame.
    """
    swing = 2 * reach * FINE
    u = (int(bits % swing) + velocity * np.arange(length)) % swing
    return np.minimum(u, swing - 1 - u) // FINE


def make_clips(split: str, options: Options) -> Iterator[Clip]:
    """Yields all clips of a split in order, two consecutive ones of each digit instance.

    A clip's tile, the path of its digit and the path of its photo are drawn independently. Every tile is used equally
    often.
    """
    size, length = options.size, options.length
    clip_instances = np.repeat(split_instances(split), CLIPS)
    stream = ("train", "test").index(split)
    bits = random_bits(6 * len(clip_instances), SEED, 2, stream).reshape(-1, 6)
    background = permutation(len(clip_instances), SEED, 3, stream) % len(BACKGROUNDS)
    digits, photos, labels = draw_digits(size), cut_strips(split, size), load_digits().target
    reach = (size // 2 + 1) // 3 * 3  # values that the digit's corner can have: a multiple of 3 makes cells equal
    margin = (size // 2 + 1 - reach) // 2
    for (top, left, heading, photo_top, photo_left, drift), instance, tile in zip(
        bits, clip_instances, background, strict=True
    ):
        down, right = draw_velocity(heading, DIGIT_SPEED * size / 32)
        rows, columns = bounce_path(top, down, length, reach), bounce_path(left, right, length, reach)
        down, right = draw_velocity(drift, PHOTO_SPEED * size / 32)
        strip = photos[tile][int(photo_left >> 60) % len(photos[tile])]
        y = bounce_path(photo_top, down, length, strip.shape[0] - size + 1)
        x = bounce_path(photo_left, right, length, strip.shape[1] - size + 1)
        frames = np.stack([strip[i : i + size, j : j + size] for i, j in zip(y, x, strict=True)])
        for frame, i, j in zip(frames, rows + margin, columns + margin, strict=True):
            region = frame[i : i + size // 2, j : j + size // 2]
            opacity = digits[instance, :, :, None]
            region[:] = (255 * opacity + region * (256 - opacity) + 128) // 256
        positions = rows * 3 // reach * 3 + columns * 3 // reach
        yield Clip(frames, int(labels[instance]), int(instance), int(tile), positions)


def draw_velocity(bits: Int[np.ndarray, ""], speed: float) -> tuple[int, int]:
    """Draws one of 360 directions. Returns the motion down and right in 64ths of a pixel a frame."""
    angle = 2 * np.pi * int(bits % 360) / 360
    return round(FINE * speed * np.sin(angle)), round(FINE * speed * np.cos(angle))


@dataclass
class Config(tfds.core.BuilderConfig):
    """The options as a config of TFDS."""

    options: Options = Options()


class MovingDigits(tfds.core.GeneratorBasedBuilder):
    """The set on disk. A record is a clip of `make_clips`: one PNG with the frames stacked vertically, and labels."""

    name = "moving_digits"
    code_path = epath.Path(__file__)  # TFDS would look it up through a package that it installs on Python 3.8 only
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [Config(name=Options(size).name, options=Options(size)) for size in SIZES]  # noqa: RUF012 - TFDS asks for this

    def _info(self) -> tfds.core.DatasetInfo:
        size, length = self.builder_config.options.size, self.builder_config.options.length
        features = {
            "image": tfds.features.Image(shape=(length * size, size, 3), encoding_format="png"),
            "digit": tfds.features.ClassLabel(num_classes=10),
            "position": tfds.features.Sequence(tfds.features.ClassLabel(names=POSITIONS), length=length),
            "background": tfds.features.ClassLabel(names=BACKGROUNDS),
            "instance": np.int64,
        }
        description = "A handwritten digit drifting over a moving crop of a photograph, from what scikit-learn ships."
        return tfds.core.DatasetInfo(
            builder=self, description=description, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        options = self.builder_config.options
        progress = ProgressBar(
            f"moving_digits {split}", CLIPS * len(split_instances(split)), unit="clip", each=options.length
        )
        for number, clip in enumerate(make_clips(split, options)):
            png = io.BytesIO()
            Image.fromarray(clip.frames.reshape(-1, options.size, 3)).save(png, "PNG", compress_level=1)
            yield (
                number,
                {
                    "image": io.BytesIO(png.getvalue()),
                    "digit": clip.digit,
                    "position": clip.positions,
                    "background": clip.background,
                    "instance": clip.instance,
                },
            )
            progress.advance()
        progress.close()


def load(
    split: str, *, data_dir: epath.Path, size: int | None = None, options: Mapping[str, Any] | None = None
) -> ImageSet:
    """Loads the set as an ImageSet of frames, with index = clip * length + frame. Makes it on disk if it is not there.

    The labels are digit (the main one), position and background. The factors are digit (the instance, not its label),
    position, background and clip. A group is a digit instance. Ranges of a split count clips.
    """
    checked = make_options(options)
    side, length = checked.size, checked.length
    records = open_records(prepare(data_dir, checked), "moving_digits", split)
    columns = records.columns(("digit", "position", "background", "instance"))
    per_frame = {name: np.repeat(columns[name], length) for name in ("digit", "background", "instance")}
    labels = {
        "digit": per_frame["digit"],
        "position": columns["position"].reshape(-1),
        "background": per_frame["background"],
    }
    shape = (side, side, 3) if size is None else (size, size, 3)

    def read(indices: Ints) -> UInt8[np.ndarray, "n H W 3"]:
        clips, place = np.unique(np.asarray(indices) // length, return_inverse=True)
        names = [records.example(int(clip)) for clip in clips]
        examples = records.read([int(clip) for clip in clips])
        images = [decode(example["image"], name) for example, name in zip(examples, names, strict=True)]
        columns_of_frames = stack_images(images, names, (length * side, side, 3))
        frames = columns_of_frames.reshape(-1, length, side, side, 3)[place, np.asarray(indices) % length]
        if shape[0] == side:
            return frames
        return np.stack([np.asarray(crop_square(Image.fromarray(frame), shape[0])) for frame in frames])

    return ImageSet(
        name="moving_digits",
        split=split,
        count=len(records) * length,
        image_shape=shape,
        read=read,
        labels=labels,
        classes={"digit": tuple("0123456789"), "position": POSITIONS, "background": BACKGROUNDS},
        groups=per_frame["instance"],
        factors={
            "digit": per_frame["instance"],
            "position": labels["position"],
            "background": labels["background"],
            "clip": np.repeat(np.arange(len(records), dtype=np.int32), length),
        },
        fingerprint={"set": "moving_digits", "version": str(MovingDigits.VERSION), "size": side, "length": length},
    )


def prepare(data_dir: epath.Path, options: Options) -> epath.Path:
    """Returns the directory of the set on disk. Makes the set if it is not there, in one process at a time.

    Raises UserError if it is not there and `data_dir` can't be written, or is full.
    """
    config = MovingDigits.builder_configs.get(options.name) or Config(name=options.name, options=options)
    with silence_tfds():
        builder = MovingDigits(data_dir=data_dir, config=config, file_format="array_record")
    directory = epath.Path(builder.data_dir)
    if directory.exists():  # TFDS writes elsewhere and renames, so what exists is whole
        return directory
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = open_lock(Path(data_dir / ".moving_digits.lock"))
    except UserError:
        raise
    except OSError as error:
        raise FileError(
            f"moving_digits can't be made in {data_dir} ({error.strerror})", fix="give a data.dir you may write to"
        ) from None
    with lock:
        take_lock(lock, Path(data_dir), wait=True)
        if not directory.exists():
            print(f"making moving_digits in {directory}, this once", file=sys.stderr, flush=True)
            try:
                with tempfile.TemporaryDirectory() as empty_folder, silence_tfds():
                    builder.download_and_prepare(download_dir=empty_folder)
            except Exception as error:  # TFDS and ArrayRecord raise several kinds for a disk that refuses a write
                if (number := find_disk_error(error)) is None:
                    raise
                raise cannot_write(str(directory), number) from error
    return directory


@contextlib.contextmanager
def silence_tfds() -> Iterator[None]:
    """Hides TFDS's messages about downloads and custom configs, and its progress bars."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
        logging.set_verbosity(verbosity)
