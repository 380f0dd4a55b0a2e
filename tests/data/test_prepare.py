"""Own pictures are written once as a set: what it holds, what was left out, and that a kill loses nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.data import prepare, sets
from mi_contrast.data.decoding import decode
from mi_contrast.data.pairing import split_held_out
from tests.data.own_pictures import BROKEN, SHARED, write_mixed

needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")


@pytest.fixture
def photos(tmp_path):
    if not SHARED.is_dir():
        pytest.skip("needs ../shared/data")
    write_mixed(tmp_path / "My photos", 60)
    return tmp_path / "My photos"


def run(photos, out, *flags):
    prepare.main([str(photos), f"--out={out}", *flags])


def test_the_set_has_the_pictures_splits_labels_and_groups_of_the_folder(photos, tmp_path, capsys):
    run(photos, tmp_path / "out", "--size=64")
    said = capsys.readouterr().out
    assert "55 pictures are in" in said and f"train simclr {tmp_path / 'out'}" in said
    skipped = (tmp_path / "out" / "skipped.txt").read_text().splitlines()
    assert len(skipped) == len(BROKEN) and all(any(name in line for line in skipped) for name in BROKEN)
    options = dict(labels="folders", group="image", test_share=0.2, broken=0.5)
    for split in ("train", "test"):
        ours = sets.load("my_photos", split, data_dir=tmp_path / "out", size=48)
        theirs = sets.load(f"folder:{photos}", split, size=48, **options)
        assert len(ours) == len(theirs) and ours.classes == theirs.classes
        assert np.array_equal(ours.labels["label"], theirs.labels["label"])
        small, large = (images.images(np.arange(len(images))).astype(int) for images in (ours, theirs))
        distances = np.abs(small[:, None] - large[None]).mean(axis=(2, 3, 4))
        assert np.array_equal(np.diagonal(distances), distances.min(axis=1))  # each is most like itself
        assert len(np.unique(distances.argmin(axis=1))) >= len(ours) - 1  # one file is there twice
        if split == "train":
            assert all(map(np.array_equal, split_held_out(ours), split_held_out(theirs)))


def test_pictures_are_made_smaller_upright_and_never_larger(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.effect_noise((90, 60), 90).convert("RGB")
    wide.save(tmp_path / "a.jpg", exif=exif)
    wide.save(tmp_path / "b.jpg")
    wide.convert("RGBA").save(tmp_path / "c.png")
    encoded = {name: (tmp_path / name).read_bytes() for name in ("a.jpg", "b.jpg", "c.png")}
    sides = {name: decode(prepare.shrink(data, name, 30), name).shape[:2] for name, data in encoded.items()}
    assert sides == {"a.jpg": (45, 30), "b.jpg": (30, 45), "c.png": (30, 45)}
    assert prepare.shrink(encoded["b.jpg"], "b.jpg", 100) == encoded["b.jpg"]
    turned = prepare.shrink(encoded["a.jpg"], "a.jpg", 100)
    assert turned != encoded["a.jpg"] and decode(turned, "a").shape[:2] == (90, 60)
    assert np.array_equal(decode(prepare.shrink(encoded["c.png"], "c", 100), "c"), decode(encoded["c.png"], "c"))


def test_a_second_start_writes_only_what_is_missing(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare, "SHARD", 10)
    run(photos, tmp_path / "out", "--size=64")
    folder = tmp_path / "out" / "my_photos" / "1.0.0"
    before = {path.name: path.read_bytes() for path in folder.glob("*array_record*")}
    assert len(before) == 7  # 60 pictures in a training and a test part
    lost = sorted(before)[2]
    (folder / lost).unlink()
    written = []
    write_shard = prepare.write_shard
    monkeypatch.setattr(
        prepare, "write_shard", lambda file, *rest: written.append(file.name) or write_shard(file, *rest)
    )
    run(photos, tmp_path / "out", "--size=64")
    assert written == [lost]
    assert {path.name: path.read_bytes() for path in folder.glob("*array_record*")}.keys() == before.keys()
    whole = sets.load("my_photos", "train", data_dir=tmp_path / "out", size=32)
    assert len(whole.images(np.arange(len(whole)))) == len(whole)
    with pytest.raises(UserError, match="begun with other pictures or settings; give another --out"):
        run(photos, tmp_path / "out", "--size=32")


@pytest.mark.slow
def test_a_kill_loses_nothing(photos, tmp_path):
    """The process is killed as soon as its first file is whole; the same command then ends the work."""
    code = (
        "import sys, time; from mi_contrast.data import prepare; prepare.SHARD = 5; inner = prepare.write_shard\n"
        "def slow(*a):\n    inner(*a); time.sleep(2)\n"
        "prepare.write_shard = slow; prepare.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, str(photos), f"--out={tmp_path / 'out'}", "--size=64"]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    child = subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    state, end = tmp_path / "out" / "my_photos" / "1.0.0" / ".prepare", time.monotonic() + 300
    try:
        while len(list(state.glob("*array_record*"))) < 2 and time.monotonic() < end and child.poll() is None:
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(60)
    done = {path.name for path in state.glob("*array_record*")}
    assert 2 <= len(done) < 12 and not (tmp_path / "out" / "prepared.json").exists()
    prepare.SHARD, shard = 5, prepare.SHARD
    try:
        run(photos, tmp_path / "out", "--size=64")
    finally:
        prepare.SHARD = shard
    parts = [sets.load("my_photos", split, data_dir=tmp_path / "out", size=16) for split in ("train", "test")]
    assert sum(map(len, parts)) == 55 and not list((state.parent).glob(".my_photos*"))


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "no --out is given"),
        (["--out=x", "--size=2"], "--size=2 is too small"),
        (["--out=x", "--sise=2"], "unknown flag"),
    ],
)
def test_mistakes_end_in_a_line(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        prepare.main([str(tmp_path), *flags])
