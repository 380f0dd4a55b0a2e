"""Writes a trained backbone for other tools, from a run directory, an export or another trainer's checkpoint.

python -m mi_contrast.export --backbone=runs/x --format=torchvision --workdir=out
    [--format=torchvision,torch,timm,detectron2,onnx,stablehlo,native]
    [--mean=.485,.456,.406 --std=.229,.224,.225 --size=224]
"""

from __future__ import annotations

import sys
from pathlib import Path

from mi_contrast import tables
from mi_contrast.core.config import parse
from mi_contrast.core.errors import UserError, run_job, unknown
from mi_contrast.core.progress import ProgressBar
from mi_contrast.interchange import FORMATS, convert, open_source, pixels
from mi_contrast.interchange.parity import describe_parity

FLAGS = {
    "backbone=": "a run directory, an export, or a file of weights (.pth, .pt, .ckpt, .pth.tar, .safetensors)",
    "format=": f"one or more of {', '.join(FORMATS)}",
    "workdir=": "folder for the exports, one folder per format",
    "list[=]": f"print a table and stop: {', '.join(tables.TABLES)}; formats by default",
    **pixels.FLAGS,
}


def main(arguments: list[str]) -> None:
    """Writes one backbone in each of the formats. Raises UserError at the end if some of them can't hold it."""
    flags = parse(arguments, FLAGS, usage=__doc__ or "").flags
    if "list" in flags:
        print(tables.write_table(flags["list"] or "formats"))
        return
    for flag, example in (("backbone", "RUN_OR_EXPORT_OR_FILE"), ("format", "torchvision"), ("workdir", "out")):
        if flag not in flags:
            raise UserError(f"no --{flag}", fix=f"give --{flag}={example}")
    names = list(dict.fromkeys(name.strip() for name in flags["format"].split(",")))
    for name in names:
        if name not in FORMATS:
            raise unknown("format", name, FORMATS)
    folder = Path(flags["workdir"])
    loaded = open_source(flags["backbone"], preprocessing=pixels.read_preprocessing(flags))
    print(loaded)
    progress = ProgressBar("exporting", len(names), unit="format", seconds_between=5.0)
    refusals: dict[str, UserError] = {}
    try:
        for name in names:
            try:
                manifest = convert(loaded, name, folder / name)
            except UserError as error:  # the other formats are still written
                refusals[name] = error
            else:
                print(f"{name}: {folder / name / manifest['file']}, {describe_parity(manifest['parity'])}")
            progress.advance(note=name)
    finally:
        progress.close()
    if len(names) == 1 and refusals:
        raise refusals[name]
    if refusals:
        written = f"{len(names) - len(refusals)} of {len(names)} formats written"
        raise UserError(f"{written}; not written: {'; '.join(f'{name}: {error}' for name, error in refusals.items())}")


if __name__ == "__main__":
    sys.exit(run_job(main))
