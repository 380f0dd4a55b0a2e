"""What a run keeps of its held-out images, made up for the tests."""

import io
import json

import numpy as np
from PIL import Image

BINS = 64
CLASSES = ("ant", "bee", "cat")


def measurement(step, queries=(300, 150, 12), *, ring=True, seed=0):
    """A line of measurements.jsonl: queries of three classes, more hits at later steps."""
    random = np.random.default_rng(seed + step)
    share = 0.3 + 0.5 * step / 3000
    hits = [round(share * n) for n in queries]
    counts = {
        "positive": random.multinomial(1024, weights(0.2 + 0.6 * step / 3000)),
        "same_class": random.multinomial(9000, weights(0.1)),
        "other_class": random.multinomial(90000, weights(0.0)),
    }
    return {
        "step": step,
        "similarities": {name: count.tolist() for name, count in counts.items()},
        "ring": {"lower": 0.5, "upper": 0.9, "from": 0.05, "to": 0.31} if ring else None,
        "queries": list(queries),
        "hits": {"knn_top1": hits, "probe_top1": hits},
        "independent": {"knn_top1": float(sum(queries)), "probe_top1": float(sum(queries))},
    }


def weights(mean):
    """Shares of the bins around a mean cosine."""
    centres = np.linspace(-1, 1, 2 * BINS + 1)[1::2]
    shares = np.exp(-(((centres - mean) / 0.2) ** 2))
    return shares / shares.sum()


def thumbnails(count, seed=0):
    """The fields 'pictures' and 'ends' of that many images of one colour."""
    random, files = np.random.default_rng(seed), []
    for colour in random.integers(0, 255, (count, 3), dtype=np.uint8):
        file = io.BytesIO()
        Image.fromarray(np.broadcast_to(colour, (8, 8, 3))).save(file, "WEBP")
        files.append(file.getvalue())
    return {"pictures": np.frombuffer(b"".join(files), np.uint8), "ends": np.cumsum([len(file) for file in files])}


def snapshot(step, count, queries=4, near=5, labels=True, seed=0):
    """The arrays of before.npz or after.npz."""
    random = np.random.default_rng(seed + step)
    arrays = {
        "components": random.normal(size=(count, 6)).astype(np.float16),
        "explained": np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1], np.float32),
        "neighbours": random.integers(0, 90, (queries, near)),
        "similarities": np.sort(random.uniform(0, 1, (queries, near)).astype(np.float32))[:, ::-1],
        "neighbour_index": random.integers(0, 900, (queries, near)),
        "step": np.array(step),
        **thumbnails(queries * near, seed + 1),
    }
    return arrays | ({"neighbour_labels": random.integers(0, 3, (queries, near))} if labels else {})


def make_held_out(root, *, count=30, held=30, labels=True, steps=(0, 1500, 3000), queries=(300, 150, 12), ring=True):
    """Writes held_out/ into a run directory."""
    folder, random = root / "held_out", np.random.default_rng(5)
    folder.mkdir()
    lines = [measurement(step, queries, ring=ring) for step in steps]
    if not labels:
        for line in lines:
            for name in ("queries", "hits", "independent"):
                del line[name]
            pairs = line["similarities"]
            pairs["negative"] = np.add(pairs.pop("same_class"), pairs.pop("other_class")).tolist()
    (folder / "measurements.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    examples = {
        "index": random.permutation(900)[:count],
        "held_out": np.arange(count) < held,
        "queries": np.array(4),
        "step": np.array(0),
        **thumbnails(count, 3),
    }
    if labels:
        examples |= {"labels": random.integers(0, 3, count), "classes": np.array(CLASSES)}
    np.savez(folder / "examples.npz", **examples)
    np.savez(folder / "before.npz", **snapshot(0, count, labels=labels))
    np.savez(folder / "after.npz", **snapshot(steps[-1], count, labels=labels))
    return root
