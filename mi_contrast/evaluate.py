"""Judges a trained backbone, given only a run directory, an export or another trainer's checkpoint.

python -m mi_contrast.evaluate --config=configs/evaluate/linear.py --backbone=runs/x [--workdir=out]
    [--labels=labels.csv] [--config.data.name=cifar10 --config.data.dir=/data/tfds ...] [--untrained]
    [--mean=.485,.456,.406 --std=.229,.224,.225 --size=224]
"""

from __future__ import annotations

import sys
from pathlib import Path

from mi_contrast import tables
from mi_contrast.core import processes
from mi_contrast.core.config import package_configs, parse, set_short_flags
from mi_contrast.core.errors import UserError, run_job
from mi_contrast.core.layout import check_mounted
from mi_contrast.evaluation.judge import judge
from mi_contrast.interchange import open_source, pixels
from mi_contrast.reporting.transfer import write_tables

FLAGS = {
    "config=": "config of a task, such as configs/evaluate/linear.py[:variant]; --config.a.b=v changes a field",
    "backbone=": "a run directory, an export, or a file of weights (.pth, .pt, .ckpt, .pth.tar, .safetensors)",
    "workdir=": "folder for results/; the run directory by default; an export or a file needs it",
    "list[=]": f"print a table and stop: {', '.join(tables.TABLES)}; tasks by default",
    "labels=": "of one's own pictures: a table labels.csv with the columns file,label; or folders; short for "
    "--config.data.labels",
    "group=": "of one's own pictures: folder, or an expression, for what stays on one side of a split",
    "untrained": "judge the untrained twin, the same network before training, to see what training gained",
    **pixels.FLAGS,
    **processes.FLAGS,
}


def main(arguments: list[str]) -> None:
    """Runs the command line of this job."""
    processes.start(arguments)
    call = parse(arguments, FLAGS, usage=__doc__ or "", folder="evaluate")
    if "list" in call.flags:
        print(tables.write_table(call.flags["list"] or "tasks"))
        return
    config = set_short_flags(call)
    if config is None:
        known = ", ".join(f"configs/evaluate/{p.name}" for p in sorted((package_configs() / "evaluate").glob("*.py")))
        raise UserError("no --config", fix=f"give --config=FILE, one of {known}")
    if "backbone" not in call.flags:
        raise UserError("no --backbone", fix="give --backbone=RUN_OR_EXPORT_OR_FILE")
    workdir = Path(call.flags["workdir"]) if "workdir" in call.flags else None
    backbone = open_source(call.flags["backbone"], preprocessing=pixels.read_preprocessing(call.flags))
    print(backbone)
    check_mounted(call.flags.get("workdir", ""), "--workdir")
    if config["task"].get("kind") == "detection" and not processes.is_first():
        return  # PyTorch trains it on one device: the others wait for the first at the end of the job
    judgement = judge(config, backbone, workdir, untrained="untrained" in call.flags)
    print(judgement)
    if "untrained" not in call.flags and "top1" in judgement.result and "model" in backbone.config:
        chance = f"; chance is about {1 / classes:.1%}" if (classes := judgement.result.get("classes")) else ""
        print(f"to see what training gained, judge the untrained network by the same command with --untrained{chance}")
    if judgement.result["task"] == "transfer":
        for path in write_tables(judgement.result, judgement.path):
            print(f"written to {path}")


if __name__ == "__main__":
    sys.exit(run_job(main))
