"""Makes folders of mixed photographs, as people have them, from the sets in ../shared/data."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

SHARED = Path(__file__).parents[3] / "shared" / "data"
BROKEN = {
    "empty.jpg": b"",
    "words.png": b"this is no picture",
    "cut.jpg": None,  # the first half of a JPEG
    "noise.gif": bytes(range(256)),
    "head.webp": b"RIFF\x00\x00\x00\x00WEBP",
}


def read_photos(count: int, name: str = "imagenette96", split: str = "train") -> list[tuple[str, Image.Image]]:
    """Returns photographs with the names of their classes, taken evenly from a set."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(next((SHARED / "tfds" / name).iterdir()))
    source, names = builder.as_data_source(split), builder.info.features["label"].names
    rows = np.linspace(0, len(source) - 1, count).astype(int)
    items = (source[int(row)] for row in rows)
    return [(names[item["label"]].split(",")[0].replace(" ", "_"), Image.fromarray(item["image"])) for item in items]


def write_mixed(root: Path, count: int = 200, *, labelled: bool = True, broken: bool = True) -> int:
    """Writes `count` photographs of every kind in nested folders, and what must not be trained on beside them.

    Returns the number of broken files among them.
    """
    photos = read_photos(count - (len(BROKEN) if broken else 0) - 3)
    for number, (label, photo) in enumerate(photos):
        folder = root / label / f"roll_{number % 3}" if labelled else root / f"roll_{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        save_as(photo, folder, number)
    first = sorted(path for path in root.rglob("*") if path.is_file())[0]
    (first.parent / f"copy of {first.name}").write_bytes(first.read_bytes())
    Image.new("RGB", (1, 1), (200, 10, 10)).save(first.parent / "dot.png")
    Image.effect_noise((400, 300), 60).convert("RGB").save(first.parent / "Ünïcødé 写真.JPG", "JPEG")
    for hidden in (root / ".ipynb_checkpoints", root / "__MACOSX", first.parent / ".ipynb_checkpoints"):
        hidden.mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (0, 255, 0)).save(hidden / "hidden.png")
    (root / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1")
    (first.parent / "._photo.jpg").write_bytes(b"\x00\x05\x16\x07")
    (root / "notes.txt").write_text("not a picture\n")
    if not broken:
        return 0
    stream = io.BytesIO()
    photos[0][1].save(stream, "JPEG")
    for name, content in BROKEN.items():
        (first.parent / name).write_bytes(
            stream.getvalue()[: len(stream.getvalue()) // 2] if content is None else content
        )
    return len(BROKEN)


def save_as(photo: Image.Image, folder: Path, number: int) -> None:
    """Writes a photograph in the kind that its number has."""
    kind, stem = number % 10, folder / f"img_{number:04d}"
    if kind == 0:
        clear = photo.copy()
        clear.putalpha(Image.linear_gradient("L").resize(photo.size))
        clear.save(f"{stem}.png")
    elif kind == 1:
        photo.convert("L").save(f"{stem}.jpg")
    elif kind == 2:
        photo.convert("CMYK").save(f"{stem}.jpeg")
    elif kind == 3:
        exif = Image.Exif()
        exif[0x0112] = 6
        photo.transpose(Image.Transpose.ROTATE_90).save(f"{stem}.jpg", exif=exif)
    elif kind == 4:
        Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257).save(f"{stem}.png")
    elif kind == 5:
        photo.resize((160, 120)).save(f"{stem}.webp")
    elif kind == 6:
        photo.quantize(64).save(f"{stem}.gif")
    elif kind == 7:
        photo.save(f"{stem}.tiff")
    elif kind == 8:
        photo.resize((128, 200)).save(f"{stem}.JPG", "JPEG")
    else:
        photo.save(f"{stem} été.bmp")
