"""A run from Python: its numbers, pictures and backbone. `mi_contrast.train` and `mi_contrast.open` return it."""

from __future__ import annotations

import html
import importlib
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, UInt8

from mi_contrast.core.errors import FileError, UserError, unknown
from mi_contrast.core.layout import RunDirectory, read_json
from mi_contrast.near import Bank, NearImages, read_images

if TYPE_CHECKING:
    import altair as alt

    from mi_contrast.evaluation.task_config import Judgement
    from mi_contrast.models.representation import Representation
    from mi_contrast.reporting.comparison import Comparison
    from mi_contrast.reporting.run import Run as Content

__all__ = ["Run", "open_run"]

Images = UInt8[np.ndarray, "*B H W 3"] | Float[np.ndarray, "*B H W 3"] | str | Path | Sequence[str | Path]
Value = bool | int | float | str | None | Sequence["Value"] | Mapping[str, "Value"]  # of a config's field
EMBEDDINGS = {"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}
SHOWN = ("mi_nats", "knn_top1")  # metrics that `plot` draws where none is named


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """A run directory, finished or not. It is taken wherever a path is: `run / "export"`, `open(run / "config.json")`.

    Everything is read from the directory when it is asked for, so that a run in progress shows its newest numbers.

    Attributes:
      path: the run directory.

    >>> run = mi_contrast.open("runs/simclr-digits")  # doctest: +SKIP
    >>> run.plot(), run.map(), run.evaluate("linear")  # doctest: +SKIP
    """

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str | os.PathLike[str]) -> Path:
        return self.path / name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, (Run, Path)) and self.path == Path(other)

    def __hash__(self) -> int:
        return hash(self.path)

    def __getattr__(self, name: str) -> Any:
        """Returns what a pathlib.Path has under this name: `train` returned one in 0.1.0."""
        if name.startswith("_") or not hasattr(Path, name):
            raise AttributeError(f"a run has no {name!r}")
        return getattr(self.path, name)

    @property
    def content(self) -> Content:
        """What the run directory holds, read now: config, starts, curves, results."""
        from mi_contrast.reporting.run import read_run

        return read_run(self.path)

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the run, plain data."""
        return self.content.config

    @property
    def history(self) -> Any:
        """The logged numbers, a row for each step: a pandas DataFrame, or where pandas is missing a dict of arrays.

        Columns are "step" (the index of the data frame) and the metrics, float64 [n]; NaN where one was not logged.
        """
        curves = self.content.curves
        steps = np.unique(np.concatenate([np.zeros(0, np.int64), *(curve.steps for curve in curves.values())]))
        columns = {name: np.full(len(steps), np.nan) for name in curves}
        for name, curve in curves.items():
            columns[name][np.searchsorted(steps, curve.steps)] = curve.values
        try:
            pandas = importlib.import_module("pandas")
        except ImportError:
            return {"step": steps, **columns}
        return pandas.DataFrame(columns, index=pandas.Index(steps, name="step"))

    def plot(self, *metrics: str) -> alt.TopLevelMixin:
        """Returns a chart of metrics over training; by default of the mutual information and the kNN accuracy.

        Raises:
          UserError: a metric that the run did not log.
        """
        from mi_contrast.reporting import charts, panels

        content = self.content
        names = metrics or tuple(name for name in SHOWN if name in content.curves) or tuple(content.curves)[:1]
        for name in names:
            if name not in content.curves:
                raise unknown(f"metric of {self}", name, content.curves)
        known = {name: panel for _, section in panels.SECTIONS for panel in section for name in panel.names}
        drawn = []
        for name in names:
            curve, panel = content.curves[name], known.get(name)
            rows = charts.curve_rows(name, curve.steps, curve.values)
            limit = content.curves.get((panel.ceiling if panel else None) or "")
            if limit is not None:
                rows += charts.curve_rows("ceiling", limit.steps, limit.values)
            unit = panel.unit if panel else ""
            chart = charts.draw_curves(rows, unit=unit, ceiling="ceiling" if limit is not None else None)
            drawn.append((name, panel.note if panel else "", chart))
        title = f"{content.name}:{content.variant}" if content.variant else content.name
        return charts.lay_out(drawn, title=title, note="", columns=min(len(drawn), 2))

    def map(self, method: str = "tsne", *, seed: int = 0) -> alt.TopLevelMixin:
        """Returns maps of held-out images, of the untrained and of the trained network; a picture shows on hover.

        Args:
          method: 'tsne', or 'umap' where umap-learn is installed, both of the first 32 principal components of the
            features; or 'pca', the first two.
          seed: of tsne and umap.
        Raises:
          UserError: the run keeps no features, the method is unknown, or umap-learn is missing.
        """
        from mi_contrast.reporting import charts, embeddings, exhibits, held_out_charts

        if method not in EMBEDDINGS:
            raise unknown("method", method, EMBEDDINGS)
        held_out = self.content.held_out
        shots = {"untrained": held_out.before, "trained": held_out.after}
        places = {
            name: embeddings.embed(shot.components, method, seed) for name, shot in shots.items() if shot is not None
        }
        if not places:
            problem = f"{self} keeps no features of held-out images"
            raise UserError(problem, fix="runs keep them since 0.2, from their first measurement on")
        rows, classes = held_out_charts.map_rows(held_out, places), exhibits.list_classes(held_out)
        panels = [(name, "", held_out_charts.draw_map(rows, name, classes)) for name in places]
        return charts.lay_out(
            panels, title=f"Held-out images by {EMBEDDINGS[method]}", note="", columns=2, one_legend=True
        )

    def neighbours(self, image: Images | int, k: int = 5) -> NearImages:
        """Returns the training images whose features are most similar to those of an image.

        Args:
          image: uint8 [H, W, 3], float [H, W, 3] in [0, 1], the path of a file, or the index of a training image.
          k: number of neighbours. They are looked for among up to 2,000 training images.
        Raises:
          UserError: the run's data are not on disk, or the image can't be read.
        """
        return self._bank.find(image, k)

    def compare(self, *others: str | os.PathLike[str]) -> Comparison:
        """Returns a comparison with other runs: a table, curves, and a page of them side by side."""
        from mi_contrast.reporting.comparison import Comparison

        return Comparison.of([self.path, *(Path(other) for other in others)])

    def encode(self, images: Images) -> Float[np.ndarray, "B F"]:
        """Returns the features of images by the newest weights of the run, float32.

        Args:
          images: [B, H, W, 3] or [H, W, 3], uint8, or float in [0, 1]; or a file, a folder, or a list of files, whose
            images are resized and cropped as in `evaluate`. Of a folder there is a row for each picture that can be
            read, in the order of their names; the others are named on stderr.
        Raises:
          UserError: a file is missing or broken, or a folder has no pictures that can be read.
        """
        from mi_contrast import encode
        from mi_contrast.data.decoding import enable_heic
        from mi_contrast.data.listing import find_images

        representation = self.representation
        if isinstance(images, (str, Path)) and (folder := Path(images).expanduser()).is_dir():
            if not (files := sorted(find_images(folder))):
                raise FileError(f"{folder} has no images", fix="give a folder of images")
            names = [file.relative_to(folder).as_posix() for file in files]
            enable_heic(folder, names)
            features, _, broken = encode.encode_files(representation, files)
            if broken:
                named = [(names[i], why) for i, why in broken.items()]
                print(encode.describe_broken(named, rest=""), file=sys.stderr)
            return features
        return np.asarray(representation.encode(read_images(images, representation.spec["size"])))

    @property
    def representation(self) -> Representation:
        """The backbone of the newest checkpoint, with its preprocessing."""
        from mi_contrast.interchange import load

        return load(self.path)

    def evaluate(self, task: str = "linear", *, untrained: bool = False, **fields: Value) -> Judgement:
        """Judges the backbone by a task, and writes the result into the run's results/.

        Args:
          task: a config of configs/evaluate, such as 'linear', 'knn' or 'fewshot', or the path of one.
          untrained: judge the untrained network instead.
          fields: changes of the config by name, such as `batch_size=64` or `data={'name': 'cifar10'}`.
        Returns:
          the judgement: `.result` has 'top1', 'interval95' and 'test', `.summary` is a line of text.
        Raises:
          UserError: the task or a field is unknown, or the data can't be read.
        """
        from mi_contrast.core.config import load_config
        from mi_contrast.evaluation.judge import judge
        from mi_contrast.fields import change_fields
        from mi_contrast.interchange import open_source

        config, _, _ = load_config(task, "evaluate")
        return judge(change_fields(config, fields), open_source(self.path), untrained=untrained)

    def export(self, format: str = "torchvision", folder: str | Path | None = None) -> Path:
        """Writes the backbone for another tool. Returns the folder, by default <run>/exports/<format>.

        Args:
          format: torchvision, torch, timm, detectron2, onnx, stablehlo or native.
          folder: where to write.
        Raises:
          UserError: the format is unknown or can't hold the backbone.
        """
        from mi_contrast.interchange import convert, open_source

        target = self.path / "exports" / format if folder is None else Path(folder)
        convert(open_source(self.path), format, target)
        return target

    @property
    def report(self) -> Path:
        """The page of the run, report.html. It is written now if it is missing or older than the newest numbers."""
        from mi_contrast.reporting.page import write_report

        folder = RunDirectory(self.path)
        sources = [folder.config, folder.metrics, *folder.results.glob("*.json")]
        newest = max((file.stat().st_mtime for file in sources if file.is_file()), default=math.inf)
        if not folder.report.is_file() or folder.report.stat().st_mtime < newest:
            write_report(self.path)
        return folder.report

    def __repr__(self) -> str:
        content = self.content
        parts = [f"{content.name}:{content.variant}" if content.variant else content.name]
        total = f" of {content.total:,}" if content.total else ""
        parts.append("nothing logged yet" if content.step is None else f"step {content.step:,}{total}")
        return f"Run({str(self.path)!r}: {', '.join([*parts, *self._describe_numbers(content)])})"

    def _describe_numbers(self, content: Content) -> list[str]:
        from mi_contrast.reporting import story, words

        curves, parts = content.curves, []
        few = [story.count_measured(content, name) for name in SHOWN if story.is_too_small(content, name)]
        if few:
            parts.append(f"{few[0]} held-out images, too few to tell what was learned")
        if story.find_measure(content, "mi_nats") is not None and "mi_ceiling" in curves:
            parts.append(f"mi {curves['mi_nats'].last:.2f} of {curves['mi_ceiling'].last:.2f} nats")
        if story.find_measure(content, "knn_top1") is not None:
            share = story.measure(content, "knn_top1", -1)
            n = "" if share.n is None else f" (n = {share.n:,})"
            parts.append(f"kNN {words.number(share.value, '%')}{n}".replace(words.THIN, " "))
        return parts

    def _repr_html_(self) -> str:
        """Shows the run in a notebook: a line, its headline numbers and a picture."""
        from mi_contrast.reporting.summary import write_summary

        return write_summary(self.content, html.escape(repr(self)))

    @cached_property
    def _bank(self) -> Bank:
        return Bank.read(self.content.config, self.representation)


def open_run(path: str | os.PathLike[str]) -> Run:
    """Returns a finished or stopped run, given its directory.

    Raises:
      UserError: the path is no run directory.
    """
    root = Path(path)
    config = RunDirectory(root).config
    if not config.is_file():
        what = "is not a run directory (it has no config.json)" if root.exists() else "does not exist"
        raise FileError(f"{root} {what}", fix="name the folder that train made, such as runs/simclr-digits")
    described = read_json(config)
    if not isinstance(described, Mapping) or not isinstance(described.get("config"), Mapping):
        raise FileError(f"{config} is not a run's config", fix="name the folder that train made")
    return Run(root)
