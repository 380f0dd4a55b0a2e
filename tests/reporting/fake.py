"""A run directory made up for the tests: the files a run leaves, with numbers of a plausible run."""

import json
import math
import struct
import zlib

import numpy as np

CONFIG = {
    "seed": 0,
    "steps": 3000,
    "data": {"name": "moving_digits", "split": "train", "test_split": "test", "shared": ["digit"], "batch": 256},
    "model": {
        "backbone": "tiny",
        "width": 32,
        "norm": {"kind": "batch", "groups": 1},
        "head": {"kind": "mlp", "dim": 128},
    },
    "method": {
        "target": "ema",
        "pools": {"queue": {"size": 4096}},
        "terms": [
            {
                "anchor": "query",
                "support": {"kind": "ring", "lower": {"kind": "linear", "a": 0.0, "b": 0.9, "start": 0.0, "end": 0.5}},
                "temperature": 0.1,
            }
        ],
    },
    "optim": {"kind": "sgd", "lr": {"kind": "cosine", "a": 0.12, "b": 0.0, "start": 0.0, "end": 1.0}, "clip": None},
}


def png(pixels):
    """The bytes of an 8-bit RGB PNG."""
    height, width, _ = pixels.shape
    raw = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def rows(steps=3000, every=20, judged=500):
    """Rows of metrics.jsonl of a ring run."""
    random = np.random.default_rng(0)
    out = []
    for step in range(0, steps + 1, every):
        t = step / steps
        seconds = 4 + step * 0.05
        if step:
            lower, upper = min(2 * t, 1) * 0.9, 0.9 + min(2 * t, 1) * 0.09
            size = 4096 * min(1, step * 256 / 4096) * (upper - lower)
            ceiling = math.log(size + 1)
            out.append(
                {
                    "step": step,
                    "seconds": seconds,
                    "objective": ceiling * (1 - math.exp(-3 * t)) * 0.75 + random.normal() * 0.05,
                    "objective_ceiling": ceiling,
                    "lower": lower,
                    "upper": upper,
                    "lr": 0.06 * (1 + math.cos(math.pi * t)),
                    "temperature": 0.1,
                    "queue_fill": min(1, step * 256 / 4096),
                    "bound_share": min(1, 2.2 * t) * 0.97 + random.normal() * 0.01,
                    "bound_gap": -1.2 + 2.4 * min(1, 1.6 * t) + random.normal() * 0.04,
                    "same_class": 0.1 + 0.25 * t + random.normal() * 0.01,
                    "same_instance": 0.004 * t,
                    "support_size": size,
                    "grad_norm": math.exp(1.5 * math.cos(5 * t) + random.normal() * 0.3) * (30 if step < 60 else 1),
                    "bad_steps": 0,
                    "images_per_second": 4200 + random.normal() * 90,
                }
            )
        if step % judged == 0:
            out.append(
                {
                    "step": step,
                    "seconds": seconds + 0.8,
                    "mi_nats": 0.35 + 3.9 * (1 - math.exp(-3.5 * t)),
                    "mi_ceiling": math.log(1024),
                    "knn_top1": 0.41 + 0.39 * (1 - math.exp(-4 * t)),
                    "probe_top1": 0.102 + 0.74 * (1 - math.exp(-5 * t)),
                    "alignment": 0.9 - 0.5 * t,
                    "uniformity": -1.5 - 1.9 * (1 - math.exp(-3 * t)),
                    "effective_rank": 12 + 44 * t,
                }
            )
    return out


def result(task, share, label="digit", *, twin=False, classes=10):
    """A result file's content."""
    return {
        "task": task,
        "dataset": "moving_digits",
        "label": label,
        "classes": classes,
        "fit": {"split": "train", "examples": 22992},
        "test": {"split": "test", "examples": 5760},
        "top1": share,
        "interval95": [share - 0.011, share + 0.01],
        "settings": {"kind": task, "k": 200, "temperature": 0.07, "seed": 0},
        "solved": {},
        "backbone": "runs/ring_moco-digits",
        "step": 0 if twin else 3000,
        "untrained": twin,
        "seconds": 9.1,
    }


def detection(end, *, twin=False):
    """A detection's result file: boxes and keypoints, AP50 risen from .01."""
    sizes = {"AP": 0.3, "AP75": 0.2, "APm": 0.25, "APl": 0.4}
    scores = {"start": {**sizes, "AP50": 0.01, "APs": 0.1}, "end": {**sizes, "AP50": end, "APs": 0.1}}
    points = {when: {name: s for name, s in of.items() if name != "APs"} for when, of in scores.items()}
    return {
        "task": "detection",
        "dataset": "bccd_cells",
        "ap": {"bbox": scores, "keypoints": points},
        "settings": {"model": "keypoint", "trainable_layers": 0, "iterations": 300},
        "step": 0 if twin else 3000,
        "untrained": twin,
    }


def start(step, time):
    """An entry of run.json."""
    return {
        "time": time,
        "from_step": step,
        "seed": 0,
        "commit": "65a2bb93f0c1d2e3f4a5b6c7d8e9f00112233445",
        "devices": ["cpu cpu"] * 8,
        "processes": 1,
        "python": "3.11.7",
        "versions": {"mi-contrast": "0.1.0", "jax": "0.10.2", "flax": "0.12.8", "wandb": None},
    }


def make_run(root, *, whole=True, metrics=None):
    """Writes a run directory: config.json alone, or with all the pieces."""
    root.mkdir(parents=True)
    (root / "config.json").write_text(json.dumps({"name": "ring_moco", "variant": "digits", "config": CONFIG}))
    metrics = rows() if metrics is None and whole else metrics
    if metrics is not None:
        (root / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    if not whole:
        return root
    starts = [start(0, "2026-11-22T06:01:00+0000"), start(1500, "2026-11-22T07:11:40+0000")]
    (root / "run.json").write_text(json.dumps({"starts": starts}))
    for folder in ("results", "pictures", "export", "held_out"):
        (root / folder).mkdir()
    counts = {"queries": [1437], "independent": {"knn_top1": 700.0, "probe_top1": 700.0}}
    measured = "".join(json.dumps({"step": step, **counts}) + "\n" for step in range(0, 3001, 500))
    (root / "held_out" / "measurements.jsonl").write_text(measured)
    judged = {
        "knn-moving_digits": result("knn", 0.802),
        "knn-moving_digits-untrained": result("knn", 0.437, twin=True),
        "linear-moving_digits": result("linear", 0.871),
        "linear-moving_digits-position": result("linear", 0.342, "position", classes=9),
        "detection-bccd_cells": detection(0.826),
        "detection-bccd_cells-untrained": detection(0.678, twin=True),
    }
    for name, content in judged.items():
        (root / "results" / f"{name}.json").write_text(json.dumps(content))
    random = np.random.default_rng(1)
    coarse = random.integers(0, 255, (8, 32, 3), dtype=np.uint8)
    (root / "pictures" / "augmented_pairs.png").write_bytes(png(coarse.repeat(16, 0).repeat(16, 1)))
    (root / "pictures" / "held_out_pairs.png").write_bytes(png(coarse.repeat(4, 0).repeat(4, 1)))
    (root / "results" / "detection-bccd_cells.png").write_bytes(png(coarse.repeat(8, 0).repeat(8, 1)))
    manifest = {
        "format": "mi_contrast backbone",
        "format_version": 1,
        "file": "backbone.safetensors",
        "sha256": "0f" * 32,
        "names": "torchvision",
        "features": 256,
        "step": 3000,
        "commit": None,
        "preprocessing": {"size": 32, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        "tensors": {f"layer{i}.weight": {"shape": [3, 3], "sha256": "ab" * 32} for i in range(30)},
        "config": CONFIG,
    }
    (root / "export" / "manifest.json").write_text(json.dumps(manifest))
    return root
