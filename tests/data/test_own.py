"""One's own pictures: what is found, how it is labelled and divided, and what is refused."""

import csv
import hashlib
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mi_contrast.core.errors import UserError
from mi_contrast.data import own, sets
from mi_contrast.data.collect import collect_folder
from mi_contrast.data.scan import Scan
from mi_contrast.data.survey import choose_held_out, survey
from tests.data.own_pictures import BROKEN, SHARED, write_mixed

OPEN = dict.fromkeys(("dir", "split", "test_split", "labels", "group", "test_share", "broken", "label"))


def write(path, colour=(0, 0, 0), size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def colours(count):
    return [(number * 7 % 256, number * 13 % 256, number % 256) for number in range(count)]


@pytest.fixture
def classes(tmp_path):
    """20 pictures of each of two classes, in bursts of four files."""
    for label in ("cats", "dogs"):
        for number, colour in enumerate(colours(20)):
            write(
                tmp_path / "pets" / label / f"burst{number // 4}" / f"{label}_{number:02d}.png",
                (*colour[:2], len(label) + ord(label[0])),
            )
    return tmp_path / "pets"


def look(name, **fields):
    return survey({**OPEN, "name": name, "options": {}, **fields})


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_a_mixed_folder_is_counted_as_it_was_written(tmp_path):
    assert write_mixed(tmp_path / "photos", 60) == len(BROKEN)
    seen = look(f"folder:{tmp_path}/photos")
    text = "\n".join(seen.lines)
    assert "60 pictures" in text and "10 classes" in text and "1 group of equal files, 2 files" in text
    assert all(name in text for name in BROKEN) and "hidden.png" not in text and "._photo" not in text
    assert "1 .txt" in text and "dot.png" in text
    assert seen.train + seen.held_out + seen.test == 60 - len(BROKEN) and seen.classes == 10
    assert seen.short_side == 96


def test_equal_files_stay_on_one_side_and_would_not_without(classes):
    copies = [
        path.with_name(f"copy_{number}_{path.name}")
        for number in range(8)
        for path in sorted(classes.rglob("cats_0*.png"))[:6]
    ]
    for path in copies:
        path.write_bytes((path.parent / path.name.split("_", 2)[2]).read_bytes())
    pictures = collect_folder(classes, "folder:pets", "folders")

    def count_leaks(group):
        scan = own.scan_pictures(pictures)
        if group is None:  # as it would be if every file were apart
            looks = {name: replace(seen, digest=number) for number, (name, seen) in enumerate(scan.looks.items())}
            scan = Scan(looks)
        divided, _ = own.arrange(pictures, scan, "image", 0.3)
        sides = [
            {hashlib.sha256((classes / name).read_bytes()).hexdigest() for name in divided.splits[s]}
            for s in ("train", "test")
        ]
        return len(sides[0] & sides[1])

    assert count_leaks("image") == 0
    assert count_leaks(None) > 0


def test_the_split_is_about_a_fifth_keeps_old_files_in_place_and_has_every_class(classes):
    options = dict(labels="folders", group="image", test_share=0.2)

    def names(split):
        pictures = own.collect("folder", str(classes), "folders")
        divided, _ = own.arrange(pictures, own.scan_pictures(pictures), "image", 0.2)
        return set(divided.splits[split])

    before = names("train"), names("test")
    assert len(before[0]) + len(before[1]) == 40 and 3 <= len(before[1]) <= 14
    for number in range(30):
        write(classes / "cats" / f"new_{number}.png", (number, 200, 9))
    assert before[0] <= names("train") and before[1] <= names("test")
    images = sets.load(f"folder:{classes}", "test", size=8, **options)
    assert set(images.labels["label"].tolist()) == {0, 1} and images.classes["label"] == ("cats", "dogs")


@pytest.mark.parametrize("group", ["folder", r"(burst\d+/[a-z]+)_", r"(?:cats|dogs)/burst\d"])
def test_groups_stay_on_one_side(classes, group):
    pictures = own.collect("folder", str(classes), "folders")
    divided, _ = own.arrange(pictures, own.scan_pictures(pictures), group, 0.4)
    folders = [{name.rpartition("/")[0] for name in divided.splits[split]} for split in ("train", "test")]
    assert not folders[0] & folders[1] and all(folders)
    images = sets.load(f"folder:{classes}", "train", size=8, labels="folders", group=group, test_share=0.4)
    assert len(set(images.groups.tolist())) == len(folders[0])


def test_a_group_that_is_a_class_is_refused(tmp_path):
    for label in "ab":
        for number in range(6):
            write(tmp_path / label / f"{number}.png", (number, ord(label), 0))
    with pytest.raises(UserError, match=r"puts each of the 2 classes .* on one side whole"):
        sets.load(f"folder:{tmp_path}", "train", size=8, labels="folders", group="folder", test_share=0.2)


@pytest.mark.parametrize("prefix", ["", "photos/", "a/b/"])
def test_a_zip_has_the_pictures_of_its_folder(classes, tmp_path, prefix):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for path in sorted(classes.rglob("*.png")):
            archive.write(path, f"{prefix}{path.relative_to(classes)}")
        archive.writestr("__MACOSX/._x.png", b"no picture")
    options = dict(size=8, labels="folders", group="image", test_share=0.2)
    ours, theirs = (
        sets.load(f"folder:{path}", "train", **{**options, "test_share": 0.0}) for path in (tmp_path / "x.zip", classes)
    )
    assert len(ours) == len(theirs) == 40 and ours.classes == theirs.classes

    def content(images):
        pixels = images.images(np.arange(len(images)))
        return sorted((pixels[i].tobytes(), int(images.labels["label"][i])) for i in range(len(images)))

    assert content(ours) == content(theirs)
    assert ours.open(3).height == 30
    assert len(sets.load(f"folder:{tmp_path / 'x.zip'}", "test", **options)) > 0


def test_a_damaged_member_of_a_zip_is_named(classes, tmp_path):
    file = tmp_path / "x.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(classes.rglob("*.png")):
            archive.write(path, str(path.relative_to(classes)))
        info = archive.infolist()[5]
    data = bytearray(file.read_bytes())
    data[info.header_offset + 30 + len(info.filename) + 20] ^= 0xFF
    file.write_bytes(bytes(data))
    with pytest.raises(UserError, match=f"1 of 40 images .*{info.filename}: Bad CRC-32"):
        sets.load(f"folder:{file}", "train", size=8, labels="folders")
    assert len(sets.load(f"folder:{file}", "train", size=8, labels="folders", broken=0.05)) == 39


def test_split_folders_are_splits(tmp_path):
    for split, count in (("Training", 6), ("test", 3)):
        for label in ("x", "y"):
            for number in range(count):
                write(tmp_path / split / label / f"{number}.png", (number, count, ord(label)))
    seen = look(f"folder:{tmp_path}")
    assert seen.data["split"] == "Training" and seen.data["test_split"] == "test" and seen.data["test_share"] == 0
    assert (seen.train + seen.held_out, seen.test, seen.classes) == (12, 6, 2)
    assert not any("two splits" in line for line in seen.lines)
    (tmp_path / "test" / "x" / "same.png").write_bytes((tmp_path / "Training" / "x" / "2.png").read_bytes())
    assert any("1 pictures lie in the folders of two splits" in line for line in look(f"folder:{tmp_path}").lines)
    with pytest.raises(UserError, match="has the split 'test' already"):
        look(f"folder:{tmp_path}", test_share=0.2)


def test_pictures_at_several_depths_have_no_labels(tmp_path):
    for name in ("a.png", "x/b.png", "x/y/c.png", *(f"z/{i}.png" for i in range(20))):
        write(tmp_path / name, (len(name), ord(name[-5]), 7))
    seen = look(f"folder:{tmp_path}")
    assert seen.data["labels"] == "none" and seen.classes == 0 and seen.train + seen.held_out + seen.test == 23
    with pytest.raises(UserError, match=r"a\.png lies in no class folder"):
        look(f"folder:{tmp_path}", labels="folders")


def write_table(path, rows, header=("file", "label")):
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def test_a_table_gives_labels(classes):
    names = [path.relative_to(classes).as_posix() for path in sorted(classes.rglob("*.png"))]
    write_table(classes / "labels.csv", [(name, "even" if int(name[-5]) % 2 == 0 else "odd") for name in names])
    pictures = own.collect("folder", str(classes), "labels.csv")
    assert pictures.classes == ("even", "odd")
    assert all((pictures.labels[name] == "even") == (int(name[-5]) % 2 == 0) for name in names)
    options = dict(labels="labels.csv", group="image", test_share=0.2)
    before = sets.load(f"folder:{classes}", "train", size=8, **options).fingerprint
    write_table(classes / "labels.csv", [(name, "even" if name == names[0] else "odd") for name in names])
    assert sets.load(f"folder:{classes}", "train", size=8, **options).fingerprint["labels"] != before["labels"]


@pytest.mark.parametrize(
    "rows, header, message",
    [
        (None, ("image", "label"), "no column 'file', but image, label"),
        (None, ("file", "lable"), "no column 'label', but file, lable; did you mean 'lable'"),
        (slice(1, None), ("file", "label"), "1 of 40 pictures .* have no row"),
        ("", ("file", "label"), "line 2 of .* has no label"),
        ("same", ("file", "label"), "gives all pictures one label"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(classes, rows, header, message):
    names = [path.relative_to(classes).as_posix() for path in sorted(classes.rglob("*.png"))]
    labels = {"": "", "same": "one"}.get(rows) if isinstance(rows, str) else None
    table = [(name, labels if labels is not None else name[-5]) for name in names]
    write_table(classes / "labels.csv", table[rows] if isinstance(rows, slice) else table, header)
    with pytest.raises(UserError, match=message):
        own.collect("folder", str(classes), "labels.csv")


def test_a_list_of_paths(classes, tmp_path):
    files = sorted(classes.rglob("*.png"))[:30]
    (tmp_path / "list.txt").write_text(
        "".join(f"{path if number % 2 else path.relative_to(tmp_path)}\n" for number, path in enumerate(files))
    )
    images = sets.load(f"list:{tmp_path}/list.txt", "train", size=8, group="image")
    assert len(images) == 30 and not images.labels
    assert sets.load(f"list:{tmp_path}/list.txt", "train", size=8, labels="folders").classes["label"][:2] == (
        "burst0",
        "burst1",
    )
    (tmp_path / "list.txt").write_text(f"{files[0]}\nabsent.png\n")
    with pytest.raises(UserError, match=r"1 of the 2 pictures .* are no files, such as absent\.png"):
        sets.load(f"list:{tmp_path}/list.txt", "train", size=8)


def test_an_array_gives_back_its_pixels_and_labels(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 20, 24, 3), dtype=np.uint8)
    labels = np.arange(40) % 11
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    loaded = sets.load(f"arrays:{tmp_path}/a.npz", "train")
    assert np.array_equal(loaded.images(np.arange(40)), images)
    assert np.array_equal(loaded.labels["label"], labels) and loaded.classes["label"][2] == "02"
    seen = look(f"arrays:{tmp_path}/a.npz")
    assert seen.classes == 11 and seen.image_shape == (20, 24) and seen.data["labels"] == "labels"
    parts = [
        sets.load(f"arrays:{tmp_path}/a.npz", split, **{k: seen.data[k] for k in ("labels", "group", "test_share")})
        for split in ("train", "test")
    ]
    assert sum(map(len, parts)) == 40
    np.savez(tmp_path / "b.npz", images=images)
    assert look(f"arrays:{tmp_path}/b.npz").data["labels"] == "none"


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(pictures=np.zeros((2, 4, 4, 3), np.uint8)), "has no array 'images', but pictures"),
        (dict(images=np.zeros((2, 4, 4, 3))), r"images float64\[2, 4, 4, 3\]"),
        (dict(images=np.zeros((2, 3, 4, 4), np.uint8)), r"images uint8\[2, 3, 4, 4\]"),
        (dict(images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.zeros(3, int)), r"labels int64\[3\] for 2 images"),
        (dict(images=np.zeros((2, 4, 4, 3), np.uint8), labels=np.array([0, -1])), "a label below 0"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        sets.load(f"arrays:{tmp_path}/a.npz", "train")


@pytest.mark.parametrize(
    "fields, message",
    [
        (dict(test_share=1.5), "data.test_share is 1.5"),
        (dict(group="(", test_share=0.2), "is no regular expression"),
        (dict(group="patient", test_share=0.2), "does not match 40 of 40 pictures"),
        (dict(labels="lables.csv"), "is no file"),
    ],
)
def test_fields_that_do_not_fit_are_refused(classes, fields, message):
    with pytest.raises(UserError, match=message):
        sets.load(f"folder:{classes}", "train", size=8, **fields)


def test_other_sets_take_none_of_these_fields():
    with pytest.raises(UserError, match=r"moving_digits takes no data\.group; leave it out"):
        sets.load("moving_digits", "train", group="folder")


def test_a_folder_without_these_fields_is_listed_as_before(classes):
    with pytest.raises(UserError, match="unknown split"):
        sets.load(f"folder:{classes.parent}", "train", size=8)  # pets is a split, as 0.1.0 reads it


def test_many_broken_files_are_listed_and_refused(classes):
    for path in sorted(classes.rglob("*.png"))[:12]:
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"12 of 40 images .*data\.broken=0\.3 or more") as error:
        look(f"folder:{classes}")
    assert all(f"cats_{number:02d}.png" in str(error.value) for number in range(12))
    assert look(f"folder:{classes}", broken=0.5).train == 20


@pytest.mark.parametrize("broken, copies, found", [(0, 0, 9), (1, 0, 10), (0, 1, 10), (2, 3, 14)])
def test_too_few_pictures_are_counted_with_what_does_not_count(tmp_path, broken, copies, found):
    for number, colour in enumerate(colours(9)):
        write(tmp_path / "few" / f"{number}.png", colour)
    for number in range(copies):
        (tmp_path / "few" / f"copy{number}.png").write_bytes((tmp_path / "few" / "0.png").read_bytes())
    for number in range(broken):
        (tmp_path / "few" / f"broken{number}.png").write_bytes(b"no picture")
    why = "" if not broken + copies else ".*: 9 are"
    with pytest.raises(UserError, match=f"few has {found} pictures,?{why}.*too few .*; give 10 different") as caught:
        look(f"folder:{tmp_path}/few")
    text = str(caught.value)
    assert (f"{broken} can't be read" in text) == bool(broken)
    assert (f"{copies} {'is a copy' if copies == 1 else 'are copies'} of others" in text) == bool(copies)
    write(tmp_path / "few" / "tenth.png", (9, 9, 9))
    seen = look(f"folder:{tmp_path}/few")  # control: ten different ones are looked at, whatever else there is
    assert seen.train + seen.held_out + seen.test + seen.broken == found + 1


def test_every_picture_is_in_one_part_that_the_lines_name(classes):
    (classes / "cats" / "bad.png").write_bytes(b"no picture")
    seen = look(f"folder:{classes}")
    images = {split: sets.load(f"folder:{classes}", split, size=8, **{
        field: seen.data[field] for field in ("labels", "group", "test_share", "broken")
    }) for split in ("train", "test")}  # fmt: skip
    assert (seen.train + seen.held_out, seen.test, seen.broken) == (len(images["train"]), len(images["test"]), 1)
    line = f"pictures: 1 can't be read, {seen.train} to train on, {seen.held_out} held out to measure training"
    assert any(text.startswith(line) and f"{seen.test} to test on (data" in text for text in seen.lines)
    half = look(f"folder:{classes}", split="train[:50%]")
    assert half.train + half.held_out + half.test + half.broken + half.unused == 41 and half.unused > 10
    assert f"{half.unused} not used (data" in half.lines[-1]


def test_so_many_are_held_out_that_their_figures_mean_something():
    chosen = [choose_held_out(count) for count in (5, 9, 30, 80, 100, 163, 10_000)]
    assert chosen == [2, 2, 6, 16, 20, 20, 20]


def test_a_given_number_is_held_out(classes):
    options = {**OPEN, "name": f"folder:{classes}", "options": {}}
    seen, given = survey(options), survey(options, held_out=9)
    assert seen.held_out == seen.train // 4 > 40 // 20 and given.held_out == 9
    assert seen.train + seen.held_out == given.train + given.held_out


def test_too_few_readable_pictures_are_too_few_first(tmp_path):
    for number in range(5):
        Image.new("RGB", (30, 30), (number * 40, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"has 5 pictures, of which 1 can't be read: 4 are too few"):
        look(f"folder:{tmp_path}")
