import copy
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mi_contrast.core.errors import UserError
from mi_contrast.evaluation.dense.coco import Files, decode_mask, read_set, to_corners
from tests.evaluation.dense.fake import HEIGHT, WIDTH, annotation, write

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"


def zipped(folder, path, top=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, top + str(file.relative_to(folder)))
    return path


def test_folder_and_zip_read_as_the_json_says(tmp_path):
    pytest.importorskip("pycocotools")
    trees = write(tmp_path / "set")
    outer = tmp_path / "outer"
    (outer / "set").parent.mkdir()
    (tmp_path / "set").rename(outer / "set")
    places = outer, outer / "set", zipped(outer, tmp_path / "a.zip"), zipped(outer / "set", tmp_path / "b.zip")
    for place in places:
        files = Files.open(place)
        found = read_set(files, "fit.json", "images", masks=True)
        assert found.classes == ("blue", "red") and found.label_by_category == {3: 1, 7: 2}
        assert [r["id"] for r in found.images] == sorted(r["id"] for r in trees["fit"]["images"])
        assert found.select_trainable().tolist() == [0, 1, 2, 3, 4, 5], (
            "a crowd alone and nothing at all are not fitted on"
        )
        for i, record in enumerate(found.images):
            own = [a for a in trees["fit"]["annotations"] if a["image_id"] == record["id"] and not a["iscrowd"]]
            targets = found.targets(i, masks=True)
            assert targets.boxes.shape == (len(own), 4) and targets.boxes.dtype == np.float32
            for box, label, mask, one in zip(targets.boxes, targets.labels, targets.masks, own, strict=True):
                x, y, w, h = one["bbox"]
                assert box.tolist() == [x, y, x + w, y + h]
                assert label == (1 if one["category_id"] == 3 else 2)
                plain = np.zeros((HEIGHT, WIDTH), np.uint8)
                plain[y : y + h, x : x + w] = 1
                assert np.array_equal(mask, plain)
            pixels = np.asarray(Image.open(outer / "set" / "images" / record["file_name"]))
            assert np.array_equal(found.image(i), pixels)


def test_boxes_end_at_the_edges_and_those_without_an_area_are_left_out(tmp_path):
    write(tmp_path)
    tree = json.loads((tmp_path / "fit.json").read_text())
    image_id = tree["images"][0]["id"]
    for box in ((50, 30, 20, 20), (5, 5, 0, 9), (60, 3, 4, 4)):
        tree["annotations"].append(annotation(99, image_id, 7, box))
    (tmp_path / "fit.json").write_text(json.dumps(tree))
    found = read_set(Files.open(tmp_path), "fit.json", "images")
    assert found.targets(0).boxes[1:].tolist() == [[50, 30, WIDTH, HEIGHT]]
    assert to_corners([], 5, 5).shape == (0, 4)


def test_masks_of_every_kind():
    mask = pytest.importorskip("pycocotools.mask")

    random = np.random.default_rng(0)
    plain = random.random((9, 7)) < 0.4
    flat, counts, now = plain.T.ravel(), [], False  # column by column, beginning with a run of zeros
    while len(flat):
        run = next((i for i, value in enumerate(flat) if value != now), len(flat))
        counts.append(run)
        flat, now = flat[run:], not now
    assert np.array_equal(decode_mask({"size": [9, 7], "counts": counts}, 9, 7), plain)
    assert np.array_equal(decode_mask(mask.encode(np.asfortranarray(plain, np.uint8)), 9, 7), plain)
    triangles = [[5, 5, 45, 10, 20, 40], [50, 50, 70, 50, 60, 70]]
    sheet = Image.new("1", (80, 80))
    for triangle in triangles:
        ImageDraw.Draw(sheet).polygon(triangle, fill=1)
    assert np.mean(decode_mask(triangles, 80, 80) != np.asarray(sheet)) < 0.02


def broken(tree, how):
    tree = copy.deepcopy(tree)
    how(tree)
    return tree


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda t: t.pop("categories"), "is not COCO's format"),
        (lambda t: t.update(categories=[]), "has no categories"),
        (lambda t: t["images"].clear(), "has no images"),
        (lambda t: t["images"][0].pop("width"), "no 'width'"),
        (lambda t: t["images"][0].update(file_name="fit_00.png"), "did you mean 'fit_0.png'"),
        (lambda t: t["annotations"][0].update(bbox=[1, 2, 3]), "no box of four numbers"),
        (lambda t: t["annotations"][0].update(bbox=[1, 2, float("nan"), 3]), "no box of four numbers"),
        (lambda t: t["annotations"][0].update(image_id=4), "refers to image 4, which the file does not contain"),
        (lambda t: t["annotations"][0].update(category_id=4), "refers to category 4, which the file does not contain"),
        (lambda t: t["annotations"][0].pop("segmentation"), "no 'segmentation'"),
    ],
)
def test_a_broken_json_is_said_in_a_line(tmp_path, how, says):
    tree = write(tmp_path)["fit"]
    (tmp_path / "fit.json").write_text(json.dumps(broken(tree, how)))
    with pytest.raises(UserError, match=says):
        read_set(Files.open(tmp_path), "fit.json", "images", masks=True)


def test_other_mistakes_are_said_in_a_line(tmp_path):
    write(tmp_path / "set")
    files = Files.open(tmp_path / "set")
    with pytest.raises(UserError, match=r"has no fits\.json; did you mean 'fit\.json'"):
        read_set(files, "fits.json", "images")
    with pytest.raises(UserError, match=r"has no fits\.json; did you mean 'fit\.json'"):
        read_set(Files.open(zipped(tmp_path / "set", tmp_path / "x.zip")), "fits.json", "images")
    with pytest.raises(UserError, match="has no categories with keypoints"):
        read_set(files, "fit.json", "images", keypoints=True)
    with pytest.raises(UserError, match="does not exist"):
        Files.open(tmp_path / "none.zip")
    with pytest.raises(UserError, match="neither a folder nor a zip"):
        Files.open(tmp_path / "set" / "fit.json")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(tmp_path / "set" / "images" / "fit_0.png")
    with pytest.raises(UserError, match=f"{WIDTH} x {HEIGHT + 1} pixels, fit.json says {WIDTH} x {HEIGHT}"):
        read_set(files, "fit.json", "images").image(0)


@pytest.mark.parametrize(
    ("name", "source", "folder", "needs", "images", "objects"),
    [
        ("bccd_cells", "annotations/instances_test.json", "images", {}, 72, 945),
        ("coco_mini", "annotations/instances_train2017.json", "train2017", {"masks": True}, 36, 389),
        ("coco_mini", "annotations/person_keypoints_val2017.json", "val2017", {"keypoints": True}, 60, 108),
    ],
)
def test_published_files_read_whole(name, source, folder, needs, images, objects):
    path = SHARED / f"{name}.zip"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    if needs.get("masks"):
        pytest.importorskip("pycocotools")
    found = read_set(Files.open(path), source, folder, **needs)
    assert (len(found), len(found.annotations)) == (images, objects)
    fit = set(found.select_trainable(**{k: v for k, v in needs.items() if k == "keypoints"}).tolist())
    counts = Counter()
    for i in range(len(found)):
        targets = found.targets(i, **needs)
        record = found.images[i]
        assert (targets.boxes[:, 2:] > targets.boxes[:, :2]).all()
        assert (targets.boxes[:, 2:] <= (record["width"], record["height"])).all()
        counts["objects"] += len(targets.labels)
        if needs.get("masks"):
            for mask, (x1, y1, x2, y2) in zip(targets.masks, targets.boxes, strict=True):
                ys, xs = np.nonzero(mask)
                inside = (xs >= x1 - 2) & (xs <= x2 + 2) & (ys >= y1 - 2) & (ys <= y2 + 2)
                assert inside.all()
        if needs.get("keypoints"):
            assert targets.keypoints.shape[1:] == (17, 3)
            assert (i in fit) == bool((targets.keypoints[..., 2] > 0).any())
    crowds = sum(a["iscrowd"] for a in found.annotations)
    assert counts["objects"] == objects - crowds


def test_a_file_name_cannot_lead_outside_the_folder(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    write(tmp_path / "set")
    files = Files.open(tmp_path / "set")
    for name in ("../secret.txt", "images/../../secret.txt", str(tmp_path / "secret.txt")):
        with pytest.raises(UserError, match="lies outside"):
            files.read(name)
    assert files.read("images/fit_0.png")


def test_a_missing_file_is_named_though_its_error_is_a_value_error_too(tmp_path, monkeypatch):
    class ValueMistakeError(UserError, ValueError):
        """A UserError that an `except ValueError` catches as well."""

    def read(self, name):
        raise ValueMistakeError(f"no {name}")

    monkeypatch.setattr(Files, "read", read)
    with pytest.raises(ValueMistakeError, match=r"^no fit\.json$"):
        read_set(Files.open(tmp_path), "fit.json", "images")
