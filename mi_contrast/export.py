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
from mi_contrast.interchange.parity import said

FLAGS = {
    "backbone=": "a run directory, an export, or a file of weights (.pth, .pt, .ckpt, .pth.tar, .safetensors)",
    "format=": f"one or several of {', '.join(FORMATS)}",
    "workdir=": "where the folders go, one a format",
    **pixels.FLAGS,
}


def main(arguments: list[str]) -> None:
    """Writes one backbone in each format that can hold it. UserError, at the end, names the formats that cannot."""
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
    progress = Progress("exporting", len(words), unit="format", seconds_between=5.0)
    refusals: dict[str, UserError] = {}
    try:
        for word in words:
            try:
                manifest = convert(loaded, word, folder / word)
            except UserError as error:  # one format's refusal must not cost the others
                refusals[word] = error
            else:
                print(f"{word}: {folder / word / manifest['file']}, {said(manifest['parity'])}")
            progress.advance(note=word)
    finally:
        progress.close()
    if len(words) == 1 and refusals:
        raise refusals[word]
    if refusals:
        written = f"{len(words) - len(refusals)} of {len(words)} formats written"
        raise UserError(f"{written}; not written: {'; '.join(f'{word}: {error}' for word, error in refusals.items())}")


if __name__ == "__main__":
    sys.exit(run_job(main))
