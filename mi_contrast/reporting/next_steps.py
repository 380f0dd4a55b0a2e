"""What a run's page points to: the commands that usually come next, and the files of the run."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from mi_contrast.core.layout import RunDirectory
from mi_contrast.reporting.run import Run

EVALUATE = "mi-contrast evaluate {task} {root}"
FILES = {  # in the order of the page
    "config.json": "every setting of this run",
    "metrics.jsonl": "the numbers of the charts, a line for each step that was logged",
    "run.json": "when, where and with which versions the run was started",
    "data.json": "the fingerprint of the data",
    "held_out": "thumbnails, map and similarities of held-out images",
    "pictures": "pictures of the views",
    "export": "the backbone for other programs, with its manifest",
    "checkpoints": "the states from which training goes on",
    "results": "a file for each judgement",
    "tb": "curves for TensorBoard",
}


def list_commands(run: Run) -> Iterator[tuple[str, str]]:
    """Yields what may be done next, and the command for it. They are run from the folder where training was started."""
    root, variant = shlex.quote(str(run.root)), f":{run.variant}" if run.variant else ""
    is_finished = bool(run.total) and run.step is not None and run.step >= (run.total or 0)
    if not is_finished:
        yield (
            "Go on training: give the same command again. Without further flags it is",
            (f"mi-contrast train {run.name}{variant} --workdir={root}"),
        )
        return
    judged = {(result.get("task"), bool(result.get("untrained"))) for result in run.results}
    has_labels = run.held_out.labels is not None or "knn_top1" in run.curves
    if has_labels and ("linear", False) not in judged:
        yield "Judge the backbone on the test split, by a linear classifier", EVALUATE.format(task="linear", root=root)
    elif has_labels and ("linear", True) not in judged:
        yield (
            "Judge the untrained network in the same way, to see what training gained",
            (EVALUATE.format(task="linear", root=root) + " --untrained"),
        )
    yield "Take the backbone to PyTorch", f"mi-contrast export {root} torchvision --workdir={root}/exports"
    yield "Use it in Python", f'import mi_contrast; run = mi_contrast.open("{run.root}"); run.encode(images)'


def list_files(run: Run) -> Iterator[tuple[str, str]]:
    """Yields the files and folders of the run that exist, as links from its page, and what each is."""
    folder = RunDirectory(run.root)
    for name, what in FILES.items():
        if (path := folder.root / name).exists():
            yield f"{name}/" if path.is_dir() else name, what
