import numpy as np
import pytest

from mi_contrast.evaluation.dense.coco import Files, Targets, read_set
from mi_contrast.evaluation.dense.settings import Detection
from tests.evaluation.dense.fake import SMALL, write

torch = pytest.importorskip("torch")
batches = pytest.importorskip("mi_contrast.evaluation.dense.batches")


def test_every_image_comes_once_an_epoch_whatever_the_batch():
    for count, batch in ((7, 3), (4, 4), (3, 8)):
        taken = np.concatenate([batches.select_members(i, batch, count, seed=5) for i in range(4 * count)])
        epochs = taken[: len(taken) // count * count].reshape(-1, count)
        assert (np.sort(epochs, axis=1) == np.arange(count)).all()
        assert len({tuple(epoch) for epoch in epochs}) > 1
    flips = np.concatenate([batches.select_mirrored(i, 16, seed=5) for i in range(100)])
    assert 0.45 < flips.mean() < 0.55
    assert not np.array_equal(batches.select_members(0, 8, 50, seed=1), batches.select_members(0, 8, 50, seed=2))


def test_a_mirrored_image_keeps_its_objects_under_their_pixels():
    random = np.random.default_rng(0)
    image = np.zeros((20, 30, 3), np.uint8)
    image[4:9, 3:11] = 200
    masks = (image[None, :, :, 0] > 0).astype(np.uint8)
    points = np.array([[[5, 6, 2], [9, 7, 1], [0, 0, 0]]], np.float32)
    for x, y, there in points[0]:
        if there:
            image[int(y), int(x)] = random.integers(1, 99, 3)
    found = Targets(np.array([[3, 4, 11, 9]], np.float32), np.array([1]), masks, points)
    names = ["nose", "left_eye", "right_eye"]
    other, there = batches.mirror(image, found, names)
    x1, y1, x2, y2 = there.boxes[0].astype(int)
    assert (other[y1:y2, x1:x2] > 0).all() and other[:, :x1].max() == 0 and other[:, x2:].max() == 0
    assert np.array_equal(there.masks[0] > 0, other[:, :, 0] > 0)
    (nose, left, right) = there.keypoints[0]
    assert np.array_equal(other[6, int(nose[0])], image[6, 5]), "the nose's pixel"
    assert left.tolist() == [0, 0, 0], "there was no right eye"
    assert np.array_equal(other[7, int(right[0])], image[7, 9]) and right[2] == 1
    twice_image, twice = batches.mirror(other, there, names)
    assert np.array_equal(twice_image, image)
    for name in ("boxes", "masks", "keypoints"):
        assert np.array_equal(getattr(twice, name), getattr(found, name))


def test_persons_keypoints_have_their_partners():
    sides = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    names = ["nose", *(f"{side}_{part}" for part in sides for side in ("left", "right"))]
    assert batches.swap_sides(names) == [0, *(i for n in range(1, 17, 2) for i in (n + 1, n))]
    assert batches.swap_sides(["left_fin", "tail"]) == [0, 1], "without a partner it stays"


def test_a_batch_is_of_its_seed_and_iteration_alone(tmp_path):
    pytest.importorskip("pycocotools")
    write(tmp_path, keypoints=True)
    images = read_set(Files.open(tmp_path), "fit.json", "images", masks=True, keypoints=True)
    members = images.select_trainable(keypoints=True)
    settings = Detection(**SMALL, model="mask")
    made = [batch for _, batch in batches.prefetch(lambda i: batches.make_batch(i, images, members, settings, 3), 0, 9)]
    for i in (8, 2, 5):
        pixels, targets = batches.make_batch(i, images, members, settings, 3)
        assert all(torch.equal(a, b) for a, b in zip(pixels, made[i][0], strict=True))
        for a, b in zip(targets, made[i][1], strict=True):
            assert a.keys() == b.keys() == {"boxes", "labels", "masks"}
            assert all(torch.equal(a[name], b[name]) for name in a)
    assert {tuple(p.shape) for p in made[0][0]} == {(3, 40, 56)}
    assert all(p.min() >= 0 and 0.3 < p.max() <= 1 for p in made[0][0])


def test_a_mistake_in_a_thread_reaches_the_caller():
    def make(i):
        if i == 3:
            raise ValueError("the fourth")
        return i

    seen = []
    with pytest.raises(ValueError, match="the fourth"):
        seen.extend(value for _, value in batches.prefetch(make, 0, 9))
    assert list(batches.prefetch(make, 5, 7)) == [(5, 5), (6, 6)] and list(batches.prefetch(make, 7, 7)) == []
