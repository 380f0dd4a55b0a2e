"""The embedded set against drawings by hand: what is in a frame, where, over what, and who may see it."""

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath
from sklearn.datasets import load_digits

from mi_contrast.core.errors import UserError
from mi_contrast.data import moving_digits as md
from mi_contrast.data import sets
from tests.data.toys import TWO_FRAMES


@pytest.fixture(scope="module")
def default():
    return {split: list(md.make_clips(split, md.Options())) for split in ("train", "test")}


def test_the_pixels_are_pinned(default):
    for split, clips in default.items():
        pixels = hashlib.sha256()
        for clip in clips:
            pixels.update(clip.frames.tobytes())
        assert pixels.hexdigest() == md.PIXELS[split]
    clips[0].frames[0, 0, 0, 0] ^= 1  # control: one bit of one pixel
    assert hashlib.sha256(np.stack([c.frames for c in clips]).tobytes()).hexdigest() != md.PIXELS["test"]
    clips[0].frames[0, 0, 0, 0] ^= 1


@pytest.mark.slow
def test_the_disk_holds_the_clips(digits, digits_dir):
    drawn = list(md.make_clips("train", md.Options(length=2)))[:150]
    assert len(digits) == 300 and digits.image_shape == (32, 32, 3)
    assert np.array_equal(digits.images(np.arange(300)), np.concatenate([c.frames for c in drawn]))
    assert digits.labels["digit"].tolist() == [c.digit for c in drawn for _ in range(2)]
    assert digits.labels["position"].tolist() == [p for c in drawn for p in c.positions]
    assert digits.labels["background"].tolist() == [c.background for c in drawn for _ in range(2)]
    assert digits.factors["digit"].tolist() == [c.instance for c in drawn for _ in range(2)]
    assert digits.factors["clip"].tolist() == [i for i in range(150) for _ in range(2)]
    assert np.array_equal(digits.groups, digits.factors["digit"])
    assert next(iter(digits.labels)) == "digit" and [len(names) for names in digits.classes.values()] == [10, 9, 12]
    assert all(x.dtype == np.int32 for x in (*digits.labels.values(), *digits.factors.values()))
    rest = sets.load("moving_digits", "train[150:]", data_dir=digits_dir, options=TWO_FRAMES)
    assert (
        len(rest) == 2 * (2874 - 150)
        and rest.factors["digit"][0] == list(md.make_clips("train", md.Options(length=2)))[150].instance
    )


def test_sizes_of_splits_and_who_is_in_them(default):
    digits = load_digits().target
    seen = {split: [c.instance for c in clips] for split, clips in default.items()}
    assert (len(seen["train"]), len(seen["test"])) == (2 * 1437, 2 * 360)
    assert set(seen["train"]) | set(seen["test"]) == set(range(1797)) and not set(seen["train"]) & set(seen["test"])
    assert np.bincount(digits[seen["test"]]).tolist() == [72] * 10
    for split, clips in default.items():
        assert all(np.bincount(seen[split])[sorted(set(seen[split]))] == 2)
        assert all(c.digit == digits[c.instance] for c in clips)


def test_factors_are_even_and_know_nothing_of_each_other(default):
    clips = default["train"]
    position = np.stack([c.positions for c in clips])
    assert (abs(np.bincount(position.ravel()) / position.size * 9 - 1) < 0.15).all()
    assert 2.5 < np.mean([len(set(row)) for row in position]) < 5  # a clip visits several cells
    background = np.array([c.background for c in clips])
    assert np.ptp(np.bincount(background)) <= 1
    pairs = background.reshape(-1, 2)  # the two clips of each instance
    assert abs((pairs[:, 0] == pairs[:, 1]).mean() - 1 / 12) < 0.03
    digit = np.array([c.digit for c in clips])
    table = np.histogram2d(digit, background, (10, 12))[0]
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    assert ((table - expected) ** 2 / expected).sum() < 160  # chi-square of 99 degrees of freedom: 1 in 10,000


@pytest.mark.parametrize("size", md.SIZES)
def test_the_digit_is_where_its_label_says(size, monkeypatch):
    black = [[np.zeros((2 * size, 2 * size, 3), np.uint8)]] * 12
    monkeypatch.setattr(md, "cut_strips", lambda split, size: black)
    ink, half, found = md.draw_digits(size), size // 2, []
    for clip, _ in zip(md.make_clips("test", md.Options(size, 4)), range(40), strict=False):
        for frame, position in zip(clip.frames, clip.positions, strict=True):
            drawn = (255 * ink[clip.instance] + 128) // 256
            places = [
                (i, j)
                for i in range(half + 1)
                for j in range(half + 1)
                if np.array_equal(frame[i : i + half, j : j + half, 0], drawn)
            ]
            found += places
            assert len(places) == 1
            (i, j), reach = places[0], half + 1 - (half + 1) % 3
            corner = (half + 1 - reach) // 2
            assert position == 3 * ((i - corner) * 3 // reach) + (j - corner) * 3 // reach
            assert frame.sum() == 3 * drawn.sum()  # and nothing else is drawn
    assert {0 if i * 2 < half else 1 for i, _ in found} == {0, 1}


@pytest.mark.parametrize("size", md.SIZES)
def test_ink_is_linear_interpolation(size):
    drawn = load_digits().images[7].astype(float)
    for _ in range({32: 1, 64: 2}[size]):
        n = len(drawn)
        at, whole = (np.arange(2 * n) + 0.5) / 2 - 0.5, np.arange(-1, n + 1)
        rows = np.stack([np.interp(at, whole, np.pad(column, 1)) for column in drawn.T], 1)
        drawn = np.stack([np.interp(at, whole, np.pad(row, 1)) for row in rows])
    assert np.array_equal(md.draw_digits(size)[7], np.floor(drawn * 16))


@pytest.mark.parametrize("size", md.SIZES)
def test_no_pixel_of_a_photo_is_in_both_splits(size, monkeypatch):
    y, x = np.mgrid[:427, :640] // (64 // size)  # every pixel tells where it is
    photos = [np.stack([y % 256, x % 256, y // 256 * 8 + x // 256 + 64 * k], -1).astype(np.uint8) for k in (0, 1)]
    monkeypatch.setattr(md, "load_sample_images", lambda: SimpleNamespace(images=photos))
    monkeypatch.setattr(md, "BRIGHTNESS", (1, 1))
    seen = {
        split: [{tuple(p) for part in t for p in part.reshape(-1, 3)} for t in md.cut_strips(split, size)]
        for split in ("train", "test")
    }
    side = md.TILE * size // 32
    for k, (train, test) in enumerate(zip(seen["train"], seen["test"], strict=True)):
        assert not train & test and len(train) + len(test) == side * side  # and together they are the tile
        assert not any(train & other for other in seen["train"][k + 1 :])
    assert all(
        min(part.shape[:2]) >= size for split in ("train", "test") for t in md.cut_strips(split, size) for part in t
    )


def test_a_wrong_option_is_one_line(tmp_path):
    for options, said in (
        ({"sise": 32}, "did you mean 'size'"),
        ({"size": 48}, "no frames of size 48"),
        ({"length": 0}, "no clips of length 0"),
        ({"length": True}, "no clips of length True"),
        ({"length": 2.0}, "no clips of length 2.0"),
    ):
        with pytest.raises(UserError, match=said):
            sets.load("moving_digits", "train", data_dir=tmp_path, options=options)
    assert not list(tmp_path.iterdir())


def test_no_place_to_make_it():
    with pytest.raises(UserError, match=r"can't be made in /proc/nowhere"):
        sets.load("moving_digits", "train", data_dir="/proc/nowhere")


@pytest.fixture
def set_that_is_made_at_once(monkeypatch):
    """Makes the set an empty folder, which takes no time."""

    def make(builder, **_):
        Path(builder.data_dir).mkdir(parents=True)

    monkeypatch.setattr(md.MovingDigits, "download_and_prepare", make)
    return md.Options(length=2)


def test_a_lock_that_is_a_symbolic_link_leaves_its_target_alone(tmp_path, set_that_is_made_at_once):
    (tmp_path / "mine").write_text("precious")
    (tmp_path / ".moving_digits.lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="lock is a symbolic link; remove it"):
        md.prepare(epath.Path(tmp_path), set_that_is_made_at_once)
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_flock_is_said_and_used(tmp_path, monkeypatch, capsys, set_that_is_made_at_once, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = md.prepare(epath.Path(tmp_path), set_that_is_made_at_once)
    assert folder.is_dir()
    assert f"{tmp_path} can't be locked" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [OSError, RuntimeError])
def test_a_disk_that_is_full_while_it_is_made_is_one_line(tmp_path, monkeypatch, kind):
    said = os.strerror(errno.ENOSPC)
    error = OSError(errno.ENOSPC, said) if kind is OSError else RuntimeError(f"write failed: {said}")

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(md.MovingDigits, "download_and_prepare", fail)
    with pytest.raises(UserError, match=rf"can't write {tmp_path}.*\({said}\); free some space") as caught:
        md.prepare(epath.Path(tmp_path), md.Options(length=2))
    assert "\n" not in str(caught.value)
    error = ValueError("a mistake of ours")
    with pytest.raises(ValueError, match="a mistake of ours"):
        md.prepare(epath.Path(tmp_path), md.Options(length=2))  # control: another error is no disk's


@pytest.mark.slow
def test_resized_frames(digits_dir):
    small = sets.load("moving_digits", "test[:3]", data_dir=digits_dir, options=TWO_FRAMES, size=16)
    assert small.images([5, 0]).shape == (2, *small.image_shape) == (2, 16, 16, 3)


def test_splits_are_ranges_of_clips(digits_dir):
    for split, said in (("valid", "unknown split of moving_digits 'valid'"), ("train[:0]", "is empty")):
        with pytest.raises(UserError, match=said):
            sets.load("moving_digits", split, data_dir=digits_dir, options=TWO_FRAMES)


@pytest.mark.slow
def test_two_processes_make_it_once(tmp_path):
    make = (
        "import sys; from mi_contrast.data import sets;"
        f"images = sets.load('moving_digits', 'test', data_dir={str(tmp_path)!r}, options=dict(length=1));"
        "print(len(images), 'tensorflow' in sys.modules)"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", make], stdout=-1, stderr=-1, text=True) for _ in range(2)]
    ends = [job.communicate() for job in jobs]
    assert [out for out, _ in ends] == ["720 False\n"] * 2, ends
    assert sum("making moving_digits" in said for _, said in ends) == 1
    assert [p.name for p in (tmp_path / "moving_digits" / "32px_1frames").iterdir()] == ["1.0.0"]
