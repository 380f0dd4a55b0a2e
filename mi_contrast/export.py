"""Writes a trained backbone for other tools, from a run directory, an export or another trainer's checkpoint.

python -m mi_contrast.export --backbone=runs/x --format=torchvision --workdir=out
    [--format=torchvision,torch,timm,detectron2,onnx,stablehlo,native]
    [--mean=.485,.456,.406 --std=.229,.224,.225 --size=224]
"""

from __future__ import annotations

import sys
from pathlib import Path

from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, run_job, unknown
from mi_contrast.core.progress import Progress
from mi_contrast.interchange import FORMATS, convert, open_source, pixels
from mi_contrast.interchange.formats import can_hold
from mi_contrast.interchange.parity import said

FLAGS = {
    "backbone=": "a run directory, an export, or a file of weights (.pth, .pt, .ckpt, .pth.tar, .safetensors)",
    "format=": f"one or several of {', '.join(FORMATS)}",
    "workdir=": "where the folders go, one a format",
    **pixels.FLAGS,
}


def main(arguments: list[str]) -> None:
    """The job: one backbone, a folder a format."""
    flags = parse(arguments, FLAGS, usage=__doc__ or "").flags
    for name, example in (("backbone", "RUN_OR_EXPORT_OR_FILE"), ("format", "torchvision"), ("workdir", "out")):
        if name not in flags:
            raise UserError(f"no --{name}", fix=f"give --{name}={example}")
    words = list(dict.fromkeys(word.strip() for word in flags["format"].split(",")))
    for word in words:
        if word not in FORMATS:
            raise unknown("format", word, FORMATS)
    folder = Path(flags["workdir"])
    loaded = open_source(flags["backbone"], preprocessing=pixels.preprocessing(flags))
    print(loaded)
    for word in words:
        can_hold(loaded, word)  # all of them before the first is written
    progress = Progress("exporting", len(words), unit="format", seconds_between=5.0)
    try:
        for word in words:
            manifest = convert(loaded, word, folder / word)
            progress.advance(note=word)
            print(f"{word}: {folder / word / manifest['file']}, {said(manifest['parity'])}")
    finally:
        progress.close()


if __name__ == "__main__":
    sys.exit(run_job(main))
