import jax
import numpy as np
import pytest

from mi_contrast.core.errors import UserError
from mi_contrast.evaluation.dense.coco import Files, read_set
from mi_contrast.evaluation.dense.settings import Detection, DetectionData
from mi_contrast.interchange.names import to_foreign
from tests.evaluation.dense.fake import SMALL, backbone, write

torch = pytest.importorskip("torch")
batches = pytest.importorskip("mi_contrast.evaluation.dense.batches")
building = pytest.importorskip("mi_contrast.evaluation.dense.detector")
fitting = pytest.importorskip("mi_contrast.evaluation.dense.fitting")


def made(representation, classes=2, points=0, **task):
    settings = Detection(**SMALL | task)
    return building.make_detector(representation, settings, classes, points), settings


@pytest.mark.parametrize(
    ("model", "task", "wide"),
    [
        ({}, {}, [8, 16, 32, 64]),
        ({"stem": "small"}, {"norm": "batch"}, [16, 32, 64]),
        ({"backbone": "resnet50", "width": 4}, {"levels": (1, 4), "head_norm": "group"}, [16, 128]),
    ],
)
def test_the_backbone_is_in_the_detector_tensor_by_tensor(tmp_path, model, task, wide):
    representation = backbone(tmp_path, **model).representation
    detector, _ = made(representation, **task)
    held = detector.backbone.body.state_dict()
    wanted = {n: t for n, t in to_foreign(representation.variables).items() if not n.endswith("batches_tracked")}
    assert set(wanted) == {n for n in held if not n.endswith("batches_tracked")}
    assert all(np.array_equal(held[n].numpy(), t) for n, t in wanted.items())
    assert building.count_loaded(detector, representation) == (len(wanted), len(wanted))
    assert [block[0].in_channels for block in detector.backbone.fpn.inner_blocks] == wide
    held["layer2.0.bn1.running_mean"][0] += 1.0
    assert building.count_loaded(detector, representation) == (len(wanted) - 1, len(wanted))


def test_maps_of_the_detector_are_those_of_the_network(tmp_path):
    representation = backbone(tmp_path, stem="small").representation
    detector, _ = made(representation, sizes=(32,), max_size=32)
    detector.eval()
    image = np.random.default_rng(0).random((32, 32, 3), np.float32)
    batch, _ = detector.transform([torch.from_numpy(image.transpose(2, 0, 1).copy())])
    mean, std = (np.array(representation.spec[n], np.float32) for n in ("mean", "std"))
    np.testing.assert_allclose(batch.tensors[0].numpy().transpose(1, 2, 0), (image - mean) / std, atol=1e-6)
    with torch.no_grad():
        last = list(detector.backbone.body(batch.tensors).values())[-1][0].numpy().transpose(1, 2, 0)
    ours = jax.device_get(representation.encode(image[None], layer="map"))[0].reshape(last.shape)
    np.testing.assert_allclose(last, ours, atol=1e-4 * np.abs(ours).max())


def test_anchors_follow_the_strides(tmp_path):
    for stem, strides in (("imagenet", [4, 8, 16, 32, 64]), ("small", [2, 4, 8, 16])):
        detector, _ = made(backbone(tmp_path, stem=stem).representation)
        batch, _ = detector.transform([torch.zeros(3, 64, 64)])
        maps = detector.backbone(batch.tensors)
        side = batch.tensors.shape[-1]
        assert [side / m.shape[-1] for m in maps.values()] == strides[: len(maps)]
        sides = [cell[:, 2:] - cell[:, :2] for cell in detector.rpn.anchor_generator.cell_anchors]
        np.testing.assert_allclose([s.prod(dim=1).sqrt().mean() for s in sides], [8 * s for s in strides], rtol=0.02)


def test_boxes_are_scaled_to_the_detector_and_back(tmp_path):
    detector, _ = made(backbone(tmp_path).representation, sizes=(80,), max_size=100)
    detector.eval()
    boxes = torch.tensor([[3.0, 4.0, 20.0, 30.0]])
    for height, width in ((40, 56), (160, 120)):
        target = {"boxes": boxes, "labels": torch.ones(1, dtype=torch.int64)}
        batch, scaled = detector.transform([torch.zeros(3, height, width)], [target])
        factor = min(80 / min(height, width), 100 / max(height, width))
        high, wide = batch.image_sizes[0]
        assert abs(high - factor * height) <= 1 and abs(wide - factor * width) <= 1
        ratio = torch.tensor([wide / width, high / height] * 2)
        torch.testing.assert_close(scaled[0]["boxes"], boxes * ratio)
        found = [{"boxes": scaled[0]["boxes"]}]
        back = detector.transform.postprocess(found, batch.image_sizes, [(height, width)])
        torch.testing.assert_close(back[0]["boxes"], boxes)


@pytest.mark.parametrize(("layers", "norm"), [(0, "batch"), (2, "frozen"), (2, "batch"), (5, "batch")])
def test_frozen_layers_stay_and_the_others_move(tmp_path, layers, norm):
    write(tmp_path)
    images = read_set(Files.open(tmp_path), "fit.json", "images")
    torch.manual_seed(0)
    detector, settings = made(backbone(tmp_path).representation, trainable_layers=layers, norm=norm, warmup=0)
    optimiser = fitting.make_optimiser(detector, settings)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    detector.train()
    batch = batches.make_batch(0, images, images.select_trainable(), settings, 0)
    fitting.take_step(detector, optimiser, batch, settings, 0, 0, torch.device("cpu"))
    tuned = ("layer4", "layer3", "layer2", "layer1", "conv1")[:layers] + (("bn1",) if layers == 5 else ())
    for name, value in detector.state_dict().items():
        moved, part = not torch.equal(value, before[name]), name.removeprefix("backbone.body.").split(".")[0]
        if not name.startswith("backbone.body."):
            continue
        of_norm = any(word.startswith("bn") for word in name.split(".")) or "downsample.1" in name
        assert moved == (part in tuned and (norm == "batch" or not of_norm)), name
    heads = [n for n, p in detector.named_parameters() if not n.startswith("backbone.body.")]
    assert all(
        not torch.equal(detector.state_dict()[n], before[n]) for n in heads if n.startswith("roi_heads.box_pred")
    )
    norms = [p for of_norm, p in fitting.trained_parameters(detector) if of_norm]
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    assert all(decays[id(p)] == 0 for p in norms) and len(norms) == (
        0 if norm == "frozen" else 2 * [0, 0, 10, 0, 0, 20][layers]
    )


def test_networks_without_a_detector_are_refused(tmp_path):
    with pytest.raises(UserError, match="two networks, each of which sees only some channels of lab"):
        made(backbone(tmp_path, split="lab").representation)
    with pytest.raises(UserError, match="no four stages"):
        made(backbone(tmp_path, backbone="tiny", stem="small").representation)
    with pytest.raises(UserError, match="the 'vit_tiny' network has no four stages"):
        made(backbone(tmp_path, backbone="vit_tiny", depth=1, patch=8, stem="small").representation)


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (dict(model="fast"), "did you mean 'faster'"),
        (dict(norm="frosen"), "did you mean 'frozen'"),
        (dict(trainable_layers=6), "give 0 to 5"),
        (dict(lr=-1), "task.lr is -1"),
        (dict(sizes=()), "sizes are"),
        (dict(steps=(5, 3)), "in order"),
        (dict(levels=(0, 1)), "stages of 1 to 4"),
        (dict(head_norm="group", channels=48), "48 channels in 32 groups"),
    ],
)
def test_settings_that_cannot_be(task, says):
    with pytest.raises(UserError, match=says):
        Detection(**task)


def test_places_that_cannot_be():
    given = dict(dir="x", fit="a.json", test="b.json", fit_images="i", test_images="i", sigmas=None)
    assert DetectionData.read(given).fit == "a.json"
    for change, says in (
        (dict(dir=None), "no data.dir"),
        (dict(test="a.json"), "both 'a.json'"),
        (dict(fits="a"), "did you mean 'fit'"),
    ):
        with pytest.raises(UserError, match=says):
            DetectionData.read(given | change)


def test_the_rate_warms_up_and_steps_down():
    settings = Detection(lr=0.1, warmup=10, warmup_factor=0.1, steps=(20, 30), gamma=0.5)
    rates = [settings.lr_at(i) for i in (0, 5, 10, 19, 20, 29, 30, 99)]
    np.testing.assert_allclose(rates, [0.01, 0.055, 0.1, 0.1, 0.05, 0.05, 0.025, 0.025])
    assert Detection(warmup=0).lr_at(0) == 0.02
