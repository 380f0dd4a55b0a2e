"""The last lines of a training: what was learned against the untrained network, where things are, what to type next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator
from pathlib import Path

from mi_contrast.core.layout import RunDirectory
from mi_contrast.reporting import story
from mi_contrast.reporting.run import Curve, Run, read_run
from mi_contrast.reporting.shares import describe_gain
from mi_contrast.reporting.words import number


def describe_end(root: Path, judge: str) -> Iterator[str]:
    """Yields the lines of a finished run.

    Args:
      judge: the command that judges the run.
    """
    run, folder = read_run(root), RunDirectory(root)
    yield from describe_learning(run)
    yield f"look at {folder.report}"
    yield f"backbone, numbers and settings: {folder.export}, {folder.metrics.name}, {folder.config.name}"
    yield f"judge it: {judge}"
    yield f"use it: mi-contrast encode {shlex.quote(str(root))} FOLDER_OF_PICTURES --out=features.npz"


def describe_learning(run: Run) -> Iterator[str]:
    """Yields a line for the accuracy of nearest neighbours, where there are labels, and one for mutual information.

    The accuracy comes with the number of images that it was taken on, its 95 % interval, and whether it tells a gain.
    Where too few images were held out, a line says so in place of the numbers.
    """
    neighbours, information = (story.find_measure(run, name) for name in ("knn_top1", "mi_nats"))
    ceiling, few = run.curves.get("mi_ceiling"), story.explain_few(run)
    if few is not None:
        yield few
    if neighbours is not None:
        last = story.measure(run, "knn_top1", -1)
        gain = ""
        if _knows_untrained(neighbours):
            gain = f": {describe_gain(story.measure(run, 'knn_top1', 0), last)}"
        sure = last.describe() if last.n is not None else "n unknown"
        yield f"kNN accuracy on held-out images: {_compare(neighbours, '%')} ({sure}){gain if last.n else ''}"
    if information is not None:
        most = f", of at most {number(ceiling.last, 'nats')}" if ceiling is not None else ""
        below = "; below 0 nothing was shown, for the estimate is a lower bound" if information.last < 0 else ""
        yield f"mutual information of held-out views: {_compare(information, 'nats')}{most}{below}"


def _compare(curve: Curve, unit: str) -> str:
    """Returns the value of the untrained network, if it is known, and the last one."""
    first = f"{number(curve.first, unit)} untrained, " if _knows_untrained(curve) else ""
    return f"{first}{number(curve.last, unit)} trained"


def _knows_untrained(curve: Curve) -> bool:
    return curve.steps[0] == 0 and len(curve.values) > 1 and math.isfinite(curve.first)
