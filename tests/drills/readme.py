"""Runs every command of the README, in order, in a clean clone with an environment of its own:

  python -m tests.drills.readme [--dry] [--only=WORD] [--folder=DIRECTORY]

The clone is made of the last commit here, not of the repository's address. Folders and files that the README supposes,
such as photos/, are made in it. Prints each command with its exit code and its seconds, and exits with 1 if one of them
failed. Takes about half an hour on two cores, most of it the tests. --dry lists the commands and runs nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("sh", "python")
LONGEST = 3600.0  # seconds that one block may take


class Step(NamedTuple):
    """A block of the README: its language, and its commands or its script."""

    language: str
    text: str


def list_steps(readme: str) -> list[Step]:
    """Returns the blocks of a README that are run: each line of a shell block, and each Python block as a whole."""
    steps = []
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", readme, re.M | re.S):
        if language == "sh":
            steps += [Step("sh", line) for line in text.splitlines() if line.strip() and not line.startswith("#")]
        elif language in LANGUAGES:
            steps.append(Step(language, text))
    return steps


def write_inputs(folder: Path, photos: int = 200, samples: int = 1000) -> None:
    """Writes the files that the README supposes: photos/, samples.npz, data.csv and plots.csv."""
    rng = np.random.default_rng(0)
    for i in range(photos):
        pixels = rng.integers(256, size=(6, 8, 3), dtype=np.uint8)
        file = folder / "photos" / f"{'ab'[i % 2]}" / f"{i:03d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).resize((320, 240), Image.Resampling.BICUBIC).save(file)
    x = rng.normal(size=samples)
    y = x + rng.normal(size=samples)
    np.savez(folder / "samples.npz", x=x, y=y)
    np.savetxt(folder / "data.csv", np.stack([x, y], axis=1), delimiter=",", header="x,y", comments="")
    slope, soil = x**2 + 0.5 * rng.normal(size=samples), rng.choice(["clay", "loam", "sand"], samples)
    lines = [",".join(map(str, line)) for line in zip(x, y, slope, soil, strict=True)]
    (folder / "plots.csv").write_text("\n".join(["rain,yield,slope,soil", *lines]) + "\n")


def run_step(step: Step, folder: Path) -> tuple[int, float]:
    """Runs a step in a folder, in its environment where it has one. Returns the exit code and the seconds."""
    activate = ". .venv/bin/activate && " if (folder / ".venv").is_dir() else ""
    if step.language == "python":
        (folder / "step.py").write_text(step.text)
    command = activate + ("python step.py" if step.language == "python" else step.text)
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    began = time.monotonic()
    process = subprocess.Popen(["bash", "-c", command], cwd=folder, env=environment, start_new_session=True)
    try:
        code = process.wait(LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        code = 137
    return code, time.monotonic() - began


def main(arguments: list[str] | None = None) -> int:
    """Runs the drill, and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="list the commands and run nothing")
    parser.add_argument("--only", default="", help="after the first two, run only steps that have this word")
    parser.add_argument("--folder", default=None, help="where the clone is made")
    options = parser.parse_args(arguments)
    steps = list_steps((ROOT / "README.md").read_text(encoding="utf-8"))
    if options.dry:
        print("\n".join(f"[{step.language}] {step.text.strip()}" for step in steps))
        return 0
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    work = Path(options.folder or tempfile.mkdtemp(prefix="readme-"))
    clone = work / ROOT.joinpath(address).name
    failures = 0
    for place, step in enumerate(steps):
        if place >= 2 and options.only not in step.text:
            continue
        text = step.text.replace(f"git clone {address}", f"git clone --quiet {ROOT} {clone.name}")
        code, seconds = run_step(step._replace(text=text), clone if clone.is_dir() else work)
        failures += code != 0
        print(f"== code {code}, {seconds:.0f} s: {step.text.strip().splitlines()[0]}", flush=True)
        if place == 0 and clone.is_dir():
            write_inputs(clone)
    print(f"{failures} failures in {work}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
