"""The job `encode`: features of every kind of picture beside a separate loop, broken files, and files of others."""

import json

import numpy as np
import pytest
from PIL import Image

from mi_contrast import encode
from mi_contrast.core.errors import run_job
from mi_contrast.interchange import load, write_export
from mi_contrast.models.representation import Representation, make_spec
from tests.models import twins

SIZE, MODEL = 16, dict(backbone="tiny", width=8)
PIXELS = dict(mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), size=SIZE)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("backbone") / "export"
    ours = Representation(twins.random_variables(MODEL), make_spec(MODEL, **PIXELS))
    write_export(folder, ours, config={"model": MODEL, "seed": 0, "data": {"batch": 4}}, commit=None, step=7)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Nine pictures of many kinds, two broken ones, and what is no picture."""
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    (root / ".ipynb_checkpoints").mkdir()
    draw = np.random.default_rng(0)
    rgb = Image.fromarray(draw.integers(0, 256, (20, 31, 3), dtype=np.uint8))
    for name, mode in (("a.png", "RGB"), ("b.png", "RGBA"), ("c.JPG", "L"), ("d.jpg", "CMYK"), ("sub/é ü.webp", "RGB"),
                       ("sub/f.gif", "P"), ("sub/g.tif", "RGB"), ("h.bmp", "RGB")):  # fmt: skip
        rgb.convert(mode).save(root / name)
    Image.fromarray(draw.integers(0, 2**16, (18, 18)).astype(np.uint16)).save(root / "deep.png")
    (root / "broken.png").write_bytes((root / "a.png").read_bytes()[:60])
    (root / "sub" / "empty.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("no picture")
    (root / ".DS_Store").write_text("none")
    (root / ".ipynb_checkpoints" / "z.png").write_bytes((root / "a.png").read_bytes())
    return root


def pixels_of(file):
    """The central square of a picture, by Pillow alone."""
    with Image.open(file) as opened:
        deep = opened.mode.startswith("I")
        grey = (np.asarray(opened).astype(np.int64) >> 8).astype(np.uint8) if deep else None
        image = Image.fromarray(grey).convert("RGB") if deep else opened.convert("RGB")
    width, height = (SIZE * side // min(image.size) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    return np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))


def check_lines(lines, out):
    """Each array of the file has a line with its name, shape and dtype, and the line that opens the file runs."""
    with np.load(out) as file:
        for name, array in file.items():
            (line,) = [line for line in lines if line.split()[:1] == [name]]
            shape, kind = f"[{', '.join(map(str, array.shape))}]", "text" if array.dtype.kind == "U" else array.dtype
            assert f"{shape} " in line and f" {kind} " in line
        (code,) = [line.removeprefix("open it: ") for line in lines if line.startswith("open it: ")]
        opened = {}
        exec(code, opened)
        assert np.array_equal(opened["features"], file["features"]) and np.array_equal(opened["names"], file["names"])


def test_features_come_with_the_names_of_their_files(backbone, photos, tmp_path, capsys):
    out = tmp_path / "out" / "features.npz"
    assert run_job(encode.main, [f"--backbone={backbone}", f"--pictures={photos}", f"--out={out}"]) == 0
    printed = capsys.readouterr()
    assert "9 pictures are encoded" in printed.out and str(out) in printed.out
    check_lines(printed.out.splitlines(), out)
    line = next(line for line in printed.err.splitlines() if "can't be read" in line)
    assert line.startswith("2 files can't be read and left out: broken.png: ") and "sub/empty.jpg: " in line
    with np.load(out) as file:
        features, names, broken = file["features"], file["names"], file["broken"]
        about = json.loads(str(file["about"]))
    expected = ["a.png", "b.png", "c.JPG", "d.jpg", "deep.png", "h.bmp", "sub/f.gif", "sub/g.tif", "sub/é ü.webp"]
    assert names.tolist() == expected and broken.tolist() == ["broken.png", "sub/empty.jpg"]
    assert (about["step"], about["untrained"], about["layer"]) == (7, False, "pooled")
    representation = load(backbone)
    alone = [np.asarray(representation.encode(pixels_of(photos / name)[None]))[0] for name in expected]
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, alone, atol=1e-5 * np.abs(features).max())


def test_many_blocks_are_the_same_as_one(backbone, photos, tmp_path, monkeypatch):
    representation, (_, files) = load(backbone), encode.find_pictures(photos)
    whole, kept, broken = encode.encode_files(representation, files)
    monkeypatch.setattr(encode, "CHUNK", 2)
    parts, kept_of_parts, broken_of_parts = encode.encode_files(representation, files)
    assert (kept, broken) == (kept_of_parts, broken_of_parts) and list(broken) == [2, 7]
    np.testing.assert_allclose(parts, whole, atol=1e-5 * np.abs(whole).max())


def test_its_own_file_is_written_again_and_no_other(backbone, photos, tmp_path, capsys):
    out = tmp_path / "features.npz"
    command = [f"--backbone={backbone}", f"--pictures={photos / 'a.png'}", f"--out={out}"]
    assert run_job(encode.main, command) == 0
    assert run_job(encode.main, command) == 0
    np.savez(out, features=np.zeros(3))
    before = out.read_bytes()
    assert run_job(encode.main, command) == 2 and out.read_bytes() == before
    assert "holds no features of this command" in capsys.readouterr().err


def test_the_untrained_twin_has_other_features(backbone, photos, tmp_path):
    features = {}
    for flag in ([], ["--untrained"]):
        out = tmp_path / f"features{len(flag)}.npz"
        assert run_job(encode.main, [f"--backbone={backbone}", f"--pictures={photos}", f"--out={out}", *flag]) == 0
        with np.load(out) as file:
            features[len(flag)] = file["features"]
            assert json.loads(str(file["about"]))["step"] == (0 if flag else 7)
    assert features[0].shape == features[1].shape and not np.allclose(features[0], features[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--pictures={photos}"], "no --backbone"),
        (["--backbone={backbone}"], "no --pictures; give --pictures=photos/"),
        (["--backbone={backbone}", "--pictures={photos}s"], "did you mean 'photos'"),
        (["--backbone={backbone}", "--pictures={photos}/notes.txt"], "is not a picture"),
        (["--backbone={backbone}", "--pictures={photos}/none"], "contains no pictures"),
        (["--backbone={backbone}", "--pictures={photos}/sub/empty.jpg"], "none of 1 pictures can be read"),
        (["--backbone={backbone}x", "--pictures={photos}"], "did you mean 'export'"),
        (["--backbone={backbone}", "--pictures={photos}", "--layer=mop"], "did you mean 'map'"),
        (["--backbone={backbone}", "--pictures={photos}", "--out=features.csv"], "give the name of an .npz file"),
    ],
)
def test_mistakes_are_one_line(backbone, photos, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (photos / "none").mkdir()
    arguments = [argument.format(backbone=backbone, photos=photos) for argument in arguments]
    assert run_job(encode.main, arguments) == 2
    err = capsys.readouterr().err
    assert said in err and len([line for line in err.splitlines() if line.startswith("mi_contrast: error")]) == 1


def test_a_representation_describes_itself_in_a_line(backbone):
    assert repr(load(backbone)) == "Representation(tiny x 8, 8 features, 16 px)"
