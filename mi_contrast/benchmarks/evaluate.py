"""Times the slow parts of an evaluation.

`encode` of a ResNet-18 is compared with torchvision's in torch. A linear probe at ten learning rates in one run is
compared with ten runs, and with scikit-learn's logistic regression.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mi_contrast.benchmarks.peers import find_missing, import_torchvision
from mi_contrast.benchmarks.timing import ratio, spread, time_interleaved
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, make_spec
from mi_contrast.readout import linear
from mi_contrast.readout.accuracy import top1

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCHES = {64: 128, 96: 64, 224: 16}  # side in pixels: images in a batch
FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Returns the figures of both comparisons, as plain data."""
    encode = {f"{size}px": time_encoding(size, 4 if small else batch, repeats) for size, batch in BATCHES.items()}
    count, width, epochs = (600, 16, 2) if small else (50_000, 512, 20)
    return {
        "what": "features/s of encode, ResNet-18 of width 64, ImageNet stem, float32; seconds of a linear probe",
        "encode": encode,
        "linear_probe": time_probes(count, width, epochs, min(repeats, 3)),
    }


def time_encoding(size: int, batch: int, repeats: int) -> dict[str, Any]:
    """Returns features/s of both networks on uint8 images and their ratio, by wall time and by CPU time."""
    model = {"backbone": "resnet18"}
    with warnings.catch_warnings():
        # The ImageNet stem warns at 64 pixels; we intend that here.
        warnings.simplefilter("ignore", UserWarning)
        variables = towers.build(model).init(jax.random.key(0), (size, size, 3))
        backbone = {name: variables[name]["backbone"] for name in towers.COLLECTIONS}
        ours = Representation(backbone, make_spec(model, mean=MEAN, std=STD, size=size))
        images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3)).astype(np.uint8)
        jax.block_until_ready(ours.encode(images))
    contenders: dict[str, Callable[[], Any]] = {"ours": lambda: jax.block_until_ready(ours.encode(images))}
    reason = find_missing()
    if not reason:
        contenders["torchvision"] = make_torchvision_encoder(images)
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    seconds = time_interleaved({name: record_cpu_time(call, cpu[name]) for name, call in contenders.items()}, repeats)
    cpu = {name: rounds[1:] for name, rounds in cpu.items()}  # the first round is a warm-up
    figures: dict[str, Any] = {"batch": batch}
    for name in contenders:
        figures[name] = spread([batch / s for s in seconds[name]])
        figures[f"{name}_per_cpu_second"] = spread([batch / s for s in cpu[name]])
    if reason:
        return figures | {"torchvision": reason}
    figures["ours_over_torchvision"] = ratio(seconds["ours"], seconds["torchvision"])
    figures["ours_over_torchvision_per_cpu_second"] = ratio(cpu["ours"], cpu["torchvision"])
    return figures


def record_cpu_time(call: Callable[[], Any], cpu: list[float]) -> Callable[[], None]:
    """Returns a function that makes the call and appends its CPU seconds, over all threads, to `cpu`."""

    def timed_call() -> None:
        start_time = time.process_time()
        call()
        cpu.append(time.process_time() - start_time)

    return timed_call


def make_torchvision_encoder(images: np.ndarray) -> Callable[[], Any]:
    """Returns a function that computes the features in torch: float32, normalisation included, without gradients."""
    import torch

    net = import_torchvision().models.resnet18(weights=None).eval()
    net.fc = torch.nn.Identity()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (MEAN, STD))

    def encode() -> Any:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            return net((x - mean) / std)

    return encode


def time_probes(count: int, width: int, epochs: int, repeats: int) -> dict[str, Any]:
    """Returns seconds and best top-1 of three ways to fit a linear probe.

    They are ten learning rates in one run, the same ten rates in ten runs, and scikit-learn's logistic regression with
    its defaults and at most 1,000 iterations. Features are Gaussian around ten class means, some of them near others;
    top-1 is on further examples.
    """
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(0)
    centres = 0.12 * random.normal(size=(10, width))
    labels, truth = random.integers(0, 10, count), random.integers(0, 10, count // 5)
    values, test = ((centres[y] + random.normal(size=(len(y), width))).astype(np.float32) for y in (labels, truth))
    settings, rng = linear.SGD(lr=0.01, epochs=epochs), jax.random.key(0)
    accuracies: dict[str, float] = {}

    def fit_in_one_run() -> None:
        models = jax.block_until_ready(linear.fit_each(values, labels, rng, settings, FACTORS, classes=10))
        accuracies["one_run"] = best_top1(linear.scores_each(models, test), truth)

    def fit_in_ten_runs() -> None:
        models = [linear.fit_each(values, labels, rng, settings, (factor,), classes=10) for factor in FACTORS]
        scores = [linear.scores(linear.select_model(model, 0), test) for model in models]
        accuracies["ten_runs"] = best_top1(scores, truth)

    def fit_scikit_learn() -> None:
        model = LogisticRegression(max_iter=1000).fit(values, labels)
        accuracies["scikit_learn"] = float(model.score(test, truth))

    seconds = time_interleaved(
        {"one_run": fit_in_one_run, "ten_runs": fit_in_ten_runs, "scikit_learn": fit_scikit_learn}, repeats
    )
    return {
        "features": f"{count:,} x {width}, 10 classes, 10 rates, {epochs} epochs in batches of 256",
        **{name: {"seconds": spread(rounds), "top1": accuracies[name]} for name, rounds in seconds.items()},
        "ten_runs_over_one": ratio(seconds["one_run"], seconds["ten_runs"]),
        "scikit_learn_over_one": ratio(seconds["one_run"], seconds["scikit_learn"]),
    }


def best_top1(scores: Any, truth: np.ndarray) -> float:
    """Returns the largest finite top-1 of several classifiers."""
    return float(np.nanmax([float(top1(each, truth)) for each in scores]))


def format_figures(figures: Mapping[str, Any]) -> str:
    """Returns the figures as lines of text."""
    lines = [str(figures["what"])]
    for size, case in figures["encode"].items():
        lines.append(f"  encode {size:>5}: {case['ours']['median']:7.1f} features/s")
        if "ours_over_torchvision" in case:
            wall, cpu = (case[f"ours_over_torchvision{suffix}"] for suffix in ("", "_per_cpu_second"))
            lines[-1] += (
                f", torchvision {case['torchvision']['median']:7.1f}: ratio {wall['median']:.2f} "
                f"({wall['min']:.2f} to {wall['max']:.2f}), by CPU time {cpu['median']:.2f}"
            )
    probe = figures["linear_probe"]
    lines.append(f"  linear probe, {probe['features']}")
    for name in ("one_run", "ten_runs", "scikit_learn"):
        case = probe[name]
        lines.append(f"    {name:13} {case['seconds']['median']:7.2f} s, top-1 {100 * case['top1']:.2f} %")
    return "\n".join(lines)
