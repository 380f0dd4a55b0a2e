"""What an evaluation waits for: features a second of `encode` beside torchvision's ResNet-18 in torch, and a linear
probe at ten learning rates in one run beside ten runs and beside scikit-learn's logistic regression.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mi_contrast.benchmarks.peers import import_torchvision, missing
from mi_contrast.benchmarks.timing import interleaved, ratio, spread
from mi_contrast.models import towers
from mi_contrast.models.representation import Representation, make_spec
from mi_contrast.readout import linear
from mi_contrast.readout.accuracy import top1

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCHES = {64: 128, 96: 64, 224: 16}  # pixels a side: images a call
FACTORS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """The figures of both, as plain data."""
    encode = {f"{size}px": encoding(size, 4 if small else batch, repeats) for size, batch in BATCHES.items()}
    count, width, epochs = (600, 16, 2) if small else (50_000, 512, 20)
    return {
        "what": "features/s of encode, ResNet-18 of width 64, ImageNet stem, float32; seconds of a linear probe",
        "encode": encode,
        "linear_probe": probing(count, width, epochs, min(repeats, 3)),
    }


def encoding(size: int, batch: int, repeats: int) -> dict[str, Any]:
    """Features/s of each, uint8 images in, and their ratio round by round, by wall and by CPU time."""
    model = {"backbone": "resnet18"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # at 64 pixels, of the stem, which is what is asked for
        made = towers.build(model).init(jax.random.key(0), (size, size, 3))
        backbone = {name: made[name]["backbone"] for name in towers.COLLECTIONS}
        ours = Representation(backbone, make_spec(model, mean=MEAN, std=STD, size=size))
        images = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3)).astype(np.uint8)
        jax.block_until_ready(ours.encode(images))
    contenders: dict[str, Callable[[], Any]] = {"ours": lambda: jax.block_until_ready(ours.encode(images))}
    if reason := missing():
        theirs: Any = reason
    else:
        contenders["torchvision"], theirs = torchvision_resnet18(images), None
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    seconds = interleaved({name: counted(call, cpu[name]) for name, call in contenders.items()}, repeats)
    work = {name: taken[1:] for name, taken in cpu.items()}  # the first warms up
    figures: dict[str, Any] = {"batch": batch}
    for name in contenders:
        figures[name] = spread([batch / s for s in seconds[name]])
        figures[f"{name}_per_cpu_second"] = spread([batch / s for s in work[name]])
    if theirs is not None:
        return figures | {"torchvision": theirs}
    figures["ours_over_torchvision"] = ratio(seconds["ours"], seconds["torchvision"])
    figures["ours_over_torchvision_per_cpu_second"] = ratio(work["ours"], work["torchvision"])
    return figures


def counted(call: Callable[[], Any], cpu: list[float]) -> Callable[[], None]:
    """The call, which adds the CPU seconds it took, in all its threads, to `cpu`."""

    def timed() -> None:
        began = time.process_time()
        call()
        cpu.append(time.process_time() - began)

    return timed


def torchvision_resnet18(images: np.ndarray) -> Callable[[], Any]:
    """A call that takes the same features in torch: float32, normalised there too, without gradients."""
    import torch

    net = import_torchvision().models.resnet18(weights=None).eval()
    net.fc = torch.nn.Identity()
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in (MEAN, STD))

    def features() -> Any:
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
            return net((x - mean) / std)

    return features


def probing(count: int, width: int, epochs: int, repeats: int) -> dict[str, Any]:
    """Seconds of ten learning rates in one run, of the same ten one after the other, and of scikit-learn's logistic
    regression (its defaults, up to 1,000 iterations); and the best top-1 of each on examples set apart.

    Features are Gaussian about ten class means, a few of which lie near each other.
    """
    from sklearn.linear_model import LogisticRegression

    draws = np.random.default_rng(0)
    centres = 0.12 * draws.normal(size=(10, width))
    labels, truth = draws.integers(0, 10, count), draws.integers(0, 10, count // 5)
    values, test = ((centres[y] + draws.normal(size=(len(y), width))).astype(np.float32) for y in (labels, truth))
    settings, key = linear.SGD(lr=0.01, epochs=epochs), jax.random.key(0)
    found: dict[str, float] = {}

    def together() -> None:
        models = jax.block_until_ready(linear.fit_each(values, labels, key, settings, FACTORS, classes=10))
        found["one_run"] = best(linear.scores_each(models, test), truth)

    def apart() -> None:
        models = [linear.fit_each(values, labels, key, settings, (factor,), classes=10) for factor in FACTORS]
        found["ten_runs"] = best([linear.scores(linear.one_of(model, 0), test) for model in models], truth)

    def peer() -> None:
        fitted = LogisticRegression(max_iter=1000).fit(values, labels)
        found["scikit_learn"] = float(fitted.score(test, truth))

    seconds = interleaved({"one_run": together, "ten_runs": apart, "scikit_learn": peer}, repeats)
    return {
        "features": f"{count:,} x {width}, 10 classes, 10 rates, {epochs} epochs in batches of 256",
        **{name: {"seconds": spread(taken), "top1": found[name]} for name, taken in seconds.items()},
        "ten_runs_over_one": ratio(seconds["one_run"], seconds["ten_runs"]),
        "scikit_learn_over_one": ratio(seconds["one_run"], seconds["scikit_learn"]),
    }


def best(scores: Any, truth: np.ndarray) -> float:
    """The largest finite top-1 of several classifiers."""
    return float(np.nanmax([float(top1(each, truth)) for each in scores]))


def words(figures: Mapping[str, Any]) -> str:
    """The figures as a reader wants them."""
    lines = [str(figures["what"])]
    for size, case in figures["encode"].items():
        lines.append(f"  encode {size:>5}: {case['ours']['median']:7.1f} features/s")
        if "ours_over_torchvision" in case:
            wall, cpu = (case[f"ours_over_torchvision{of}"] for of in ("", "_per_cpu_second"))
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
