"""Tests the search for patches that move together, on motions whose truth is known.

The tables show the nats of independent motions, how often a twin is accepted where there is none, how well groups are
found, and the speed. Motions are those of 64 patches in the plane unless a table says otherwise. Steps are normal with
unit variance, and each correlates by phi with the one before. The series `raw` are positions, as in the published
recipe. Shares are over anchors, 64 in a scene, which are not quite independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from sklearn.metrics import roc_auc_score

from mi_contrast import estimators as mi
from mi_contrast.benchmarks import rendered_clips
from mi_contrast.benchmarks.timing import ratio, spread, time_interleaved
from mi_contrast.core.progress import ProgressBar
from mi_contrast.data.tracks import TRACKED

REPEATS = 20  # number of scenes of each kind
PATCHES, FRAMES, PAIRS, ROUNDS, SHIFTS, LEVEL = 64, 40, 400, 5, 19, 0.05
SAMPLED = 400  # pairs that the loop over trees is timed on, to predict its time for all pairs

Table = dict[str, dict[str, float]]


def make_steps(random: np.random.Generator, count: int, frames: int, phi: float = 0.0, size: int = 2) -> np.ndarray:
    """Returns steps [count, frames - 1, size] of a stationary process: unit variance, correlation phi with the last."""
    noise = random.normal(size=(count, frames + 199, size))
    for t in range(1, noise.shape[1]):
        noise[:, t] = phi * noise[:, t - 1] + np.sqrt(1 - phi**2) * noise[:, t]
    return noise[:, 200:]


def make_paths(steps: np.ndarray) -> np.ndarray:
    """Returns the positions [count, frames, size] that start at 0 and make these steps."""
    return np.cumsum(np.pad(steps, ((0, 0), (1, 0), (0, 0))), axis=1)


def make_group_steps(random: np.random.Generator, frames: int, phi: float, c: float, groups: int = 8) -> np.ndarray:
    """Returns steps of 64 patches in groups; two patches of one group correlate by c along each axis."""
    shared = np.repeat(make_steps(random, groups, frames, phi), PATCHES // groups, axis=0)
    return np.sqrt(c) * shared + np.sqrt(1 - c) * make_steps(random, PATCHES, frames, phi)


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Returns every table, and the speed, as plain data."""
    random = np.random.default_rng(0)
    pairs, scenes = (40, 1) if small else (PAIRS, repeats)
    parts: dict[str, Callable[[], Any]] = {
        "independent_walks": lambda: measure_walks(random, pairs, (40,) if small else (20, 40, 80, 160)),
        "independent_motions": lambda: measure_motions(random, pairs, (40,) if small else (40, 80)),
        "largest_of_63": lambda: measure_largest(random, scenes, (40,) if small else (40, 80)),
        "camera_jitter": lambda: measure_jitter(random, scenes),
        "power": lambda: measure_power(random, scenes, (40,) if small else (40, 80)),
        "calibration": lambda: measure_calibration(random, scenes, (40,) if small else (40, 80)),
        "groups_auroc": lambda: measure_groups(random, scenes),
        "rendered_auroc": lambda: measure_rendered(random, scenes),
        "speed": lambda: time_twins(random, 1 if small else ROUNDS),
    }
    progress, tables = ProgressBar("twins", len(parts), unit="table"), {}
    for name, part in parts.items():
        tables[name] = part()
        progress.advance(note=name)
    progress.close()
    return {"what": f"{PATCHES} patches, {scenes} scenes, {pairs} pairs; nats unless said", **tables}


def measure_walks(random: np.random.Generator, pairs: int, lengths: tuple[int, ...]) -> Table:
    """Returns mean, sd and 95 % quantile of both estimators on independent walks whose steps have no memory."""
    table = {}
    for size in (1, 2, 3):
        for frames in lengths:
            x, y = (make_paths(make_steps(random, pairs, frames, size=size)) for _ in range(2))
            row: dict[str, float] = {}
            for word in ("raw", "displacement"):
                series_x, series_y = (mi.SERIES[word](z) for z in (x, y))
                for name, estimate in (("ksg", mi.ksg), ("three_kl", mi.three_kl)):
                    nats = np.asarray(estimate(series_x, series_y, errors=False).nats)
                    figures = {"mean": nats.mean(), "sd": nats.std(), "q95": np.quantile(nats, 0.95)}
                    row |= {f"{name}_{word}_{what}": float(value) for what, value in figures.items()}
            table[f"{size}-D, {frames} frames"] = row
    return table


def measure_motions(random: np.random.Generator, pairs: int, lengths: tuple[int, ...]) -> Table:
    """Returns the mean of KSG, for each kind of series, on independent pairs whose steps have memory or drift."""
    table = {}
    for frames in lengths:
        for phi, drift in ((0.0, 0.0), (0.5, 0.0), (0.9, 0.0), (0.99, 0.0), (0.0, 1.0)):
            x, y = (make_paths(make_steps(random, pairs, frames, phi) + drift) for _ in range(2))
            table[f"{frames} frames, phi {phi:g}" + (", drift 1" if drift else "")] = {
                word: float(mi.ksg(make(x), make(y), errors=False).nats.mean()) for word, make in mi.SERIES.items()
            }
    return table


def measure_largest(random: np.random.Generator, scenes: int, lengths: tuple[int, ...]) -> Table:
    """Returns the nats of the best of 63 partners on independent motions, and how often two tests find a twin.

    One test is of each pair alone, the other of the largest value over all partners.
    """
    table = {}
    for frames in lengths:
        for word in ("displacement", "raw"):
            largest, hits, accepted = [], [], []
            for _ in range(scenes):
                series = mi.SERIES[word](make_paths(make_steps(random, PATCHES, frames)))
                twins = mi.twins(series)
                shifts = np.array([0, *mi.spread_shifts(series.shape[1], SHIFTS)])
                nats = np.asarray(mi.shifted_pairs(series, shifts))
                p = (1 + (nats[1:] >= nats[0]).sum(axis=0)) / (1 + SHIFTS)
                largest.append(twins.nats)
                hits.append((p <= LEVEL).sum(axis=1))  # of 63, because a series has p = 1 with itself
                accepted.append(twins.accepted)
            table[f"{frames} frames, {word}"] = {
                "largest_mean": float(np.mean(largest)),
                "largest_q95": float(np.quantile(largest, 0.95)),
                "pairs_at_.05": float(np.mean(hits)),
                "share_with_any_pair": float(np.mean(np.array(hits) > 0)),
                "share_accepted": float(np.mean(accepted)),
            }
    return table


def measure_jitter(random: np.random.Generator, scenes: int, frames: int = 80) -> Table:
    """Returns the mean nats of independent motions with a common jitter of sd g, like that of a shaking camera.

    They are given with and without the jitter, which is removed as the median step of each frame, next to the true
    value with it, -log(1 - (g^2 / (1 + g^2))^2).
    """
    table, upper = {}, np.triu_indices(PATCHES, 1)
    for g in (0.25, 0.5, 1.0, 2.0):
        means = []
        for _ in range(max(1, scenes // 4)):
            shaken = make_steps(random, PATCHES, frames) + g * make_steps(random, 1, frames)
            both = shaken, shaken - np.median(shaken, axis=0)
            means.append([float(np.mean(np.asarray(mi.all_pairs(series))[upper])) for series in both])
        with_jitter, without = np.mean(means, axis=0)
        truth = -np.log(1 - (g**2 / (1 + g**2)) ** 2)
        table[f"jitter {g:g}"] = {"truth": float(truth), "as_seen": float(with_jitter), "less_median": float(without)}
    return table


def measure_power(random: np.random.Generator, scenes: int, lengths: tuple[int, ...]) -> Table:
    """Returns figures for patches in 32 pairs of correlation c along each axis.

    They are the nats of the true partner, how often it is chosen as the twin, how often a twin is accepted, and both.
    """
    table = {}
    other = (np.arange(PATCHES) + PATCHES // 2) % PATCHES
    for frames in lengths:
        for c in (0.5, 0.7, 0.9, 0.98):
            nats, right, accepted = [], [], []
            for _ in range(max(1, scenes // 2)):
                series = make_steps(random, PATCHES, frames)
                series[PATCHES // 2 :] = c * series[: PATCHES // 2] + np.sqrt(1 - c**2) * series[PATCHES // 2 :]
                twins = mi.twins(series)
                right.append(np.asarray(twins.partner) == other)
                accepted.append(twins.accepted)
                nats.append(np.asarray(mi.all_pairs(series))[np.arange(PATCHES), other])
            table[f"{frames} frames, c {c:g}"] = {
                "truth": float(-np.log(1 - c**2)),
                "true_partner": float(np.mean(nats)),
                "is_the_twin": float(np.mean(right)),
                "accepted": float(np.mean(accepted)),
                "both": float(np.mean(np.array(right) & np.array(accepted))),
            }
    return table


def measure_calibration(random: np.random.Generator, scenes: int, lengths: tuple[int, ...]) -> Table:
    """Returns figures for independent motions with memory, by kind of series.

    They are the share of twins accepted at level .05, twice its standard error over scenes, and the mean nats of the
    largest of 63 partners, as they are and after circular shifts.
    """
    table = {}
    for frames in lengths:
        for phi in (0.0, 0.5, 0.9):
            all_paths = [make_paths(make_steps(random, PATCHES, frames, phi)) for _ in range(scenes)]
            for word, make in SERIES.items():
                results = [mi.twins(make(paths)) for paths in all_paths]
                shares = [float(np.mean(twins.accepted)) for twins in results]
                table[f"{frames} frames, phi {phi:g}, {word}"] = {
                    "share_accepted": float(np.mean(shares)),
                    "twice_its_error": float(2 * np.std(shares) / np.sqrt(max(1, scenes - 1))),
                    "largest": float(np.mean([twins.nats for twins in results])),
                    "largest_shifted": float(np.mean([twins.null for twins in results])),
                }
    return table


SERIES: dict[str, Callable[[Any], Any]] = {
    "displacement": mi.displacements,
    "second_difference": mi.second_differences,
    "prewhitened": mi.prewhitened,
    "prewhitened_2": lambda paths: mi.prewhitened(paths, order=2),
}


def measure_groups(random: np.random.Generator, scenes: int, frames: int = FRAMES) -> Table:
    """Returns how well scores of pairs find eight groups of eight patches.

    For each score it is the area under the ROC curve for pairs of one group. `accepted_right` is the share of accepted
    twins, of prewhitened series, that belong to the group of their patch.
    """
    upper = np.triu_indices(PATCHES, 1)
    group = np.repeat(np.arange(8), PATCHES // 8)
    same = (group[:, None] == group)[upper]
    table = {}
    for name, phi, c, shake in CLIPS:
        areas: dict[str, list[float]] = {}
        for _ in range(max(1, scenes // 2)):
            shaken = make_group_steps(random, frames, phi, c) + shake * make_steps(random, 1, frames)
            steady_paths = make_paths(shaken - np.median(shaken, axis=0))
            for score, nats in score_pairs(make_paths(shaken), steady_paths, random):
                areas.setdefault(score, []).append(float(roc_auc_score(same, np.asarray(nats)[upper])))
            twins = mi.twins(mi.prewhitened(steady_paths))
            accepted, right = np.asarray(twins.accepted), group[np.asarray(twins.partner)] == group
            areas.setdefault("accepted", []).append(float(accepted.mean()))
            areas.setdefault("accepted_right", []).append(float((accepted & right).sum() / max(1, accepted.sum())))
        table[name] = {score: float(np.mean(values)) for score, values in areas.items()}
    return table


# name, correlation of successive steps, correlation within a group, sd of the camera's jitter
CLIPS = (
    ("white, c .7", 0.0, 0.7, 0.0),
    ("white, c .9", 0.0, 0.9, 0.0),
    ("phi .5, c .9", 0.5, 0.9, 0.0),
    ("phi .9, c .9", 0.9, 0.9, 0.0),
    ("phi .5, c .9, jitter 2", 0.5, 0.9, 2.0),
)


def measure_rendered(random: np.random.Generator, scenes: int, frames: int = FRAMES) -> Table:
    """Returns the figures of `measure_groups` for clips that are rendered and tracked.

    The steps are so small that the 64 squares don't overlap, and the camera shakes by half a pixel. The areas are over
    pairs of usable tracks. `tracked` is the share of usable tracks, `step_error` the rms error of their steps in
    pixels.
    """
    if find_spec("cv2") is None:
        return {"not run: OpenCV, the extra [video], is not installed": {}}
    group = np.repeat(np.arange(8), PATCHES // 8)
    table = {}
    for name, phi, c, _ in CLIPS[:-1]:
        areas: dict[str, list[float]] = {}
        for _ in range(max(1, scenes // 4)):
            paths = rendered_clips.shrink_paths(make_paths(make_group_steps(random, frames, phi, c)))
            tracks = rendered_clips.render_and_track(random, paths, 0.5 * random.normal(size=(frames, 2)))
            usable = tracks.state == TRACKED
            upper = np.triu_indices(int(usable.sum()), 1)
            same = (group[usable][:, None] == group[usable])[upper]
            for score, nats in score_pairs(tracks.positions[usable], tracks.steady[usable], random):
                areas.setdefault(score, []).append(float(roc_auc_score(same, np.asarray(nats)[upper])))
            error = np.diff(tracks.steady[usable], axis=1) - np.diff(paths[usable], axis=1)
            areas.setdefault("tracked", []).append(float(usable.mean()))
            areas.setdefault("step_error", []).append(float(np.sqrt((error**2).sum(axis=-1).mean())))
        table[name] = {score: float(np.mean(values)) for score, values in areas.items()}
    return table


def score_pairs(paths: np.ndarray, steady: np.ndarray, random: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """Yields the name and the scores of all pairs; only the raw ones include the motion of the camera, as published."""
    yield "displacement", mi.all_pairs(mi.displacements(steady))
    yield "second_difference", mi.all_pairs(mi.second_differences(steady))
    yield "prewhitened", mi.all_pairs(mi.prewhitened(steady))
    yield "three_kl_displacement", mi.all_pairs(mi.displacements(steady), estimator="three_kl")
    yield "raw", mi.all_pairs(paths)
    yield "three_kl_raw", mi.all_pairs(paths, estimator="three_kl")
    yield "random", random.random((len(paths), len(paths)))


def time_twins(random: np.random.Generator, rounds: int) -> dict[str, Any]:
    """Returns the seconds for all twins of a clip, 64 patches by 40 frames with 19 shifts.

    They are compared with a loop over SciPy's k-d trees, which is timed on a sample of pairs in the same rounds and
    scaled to the 80,640 pairs and shifts.
    """
    series = np.asarray(mi.displacements(make_paths(make_steps(random, PATCHES, FRAMES))))
    whole = PATCHES * (PATCHES - 1) * (1 + SHIFTS)
    sample = [tuple(random.choice(PATCHES, 2, replace=False)) for _ in range(SAMPLED)]
    try:
        import scipy  # noqa: F401 - a dependency of scikit-learn
    except ImportError:
        return {"scipy": "not installed"}
    seconds = time_interleaved(
        {
            "ours": lambda: jax.block_until_ready(mi.twins(series)),
            "trees": lambda: [tree_ksg(np.roll(series[a], 3, axis=0), series[b]) for a, b in sample],
        },
        rounds,
    )
    scaled = [value * whole / SAMPLED for value in seconds["trees"]]
    nats = np.asarray(mi.all_pairs(series))
    return {
        "pairs_and_shifts": whole,
        "ours_seconds": spread(seconds["ours"]),
        "trees_seconds_scaled": spread(scaled),
        "timed_pairs_of_trees": SAMPLED,
        "ours_over_trees": ratio(seconds["ours"], scaled),
        "largest_difference": max(abs(float(nats[a, b]) - tree_ksg(series[a], series[b])) for a, b in sample[:50]),
    }


def tree_ksg(x: np.ndarray, y: np.ndarray, k: int = 3) -> float:
    """Returns KSG's first variant for one pair, computed with SciPy's k-d trees."""
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    x, y = x.astype(np.float64), y.astype(np.float64)
    both = np.hstack([x, y])
    edge = np.nextafter(cKDTree(both).query(both, k + 1, p=np.inf)[0][:, -1], 0)
    within = (cKDTree(z).query_ball_point(z, edge, p=np.inf, return_length=True) for z in (x, y))  # n + 1, with itself
    return float(digamma(k) + digamma(len(x)) - sum(digamma(number).mean() for number in within))


def format_figures(figures: dict[str, Any]) -> str:
    """Returns the tables as lines of text."""
    lines = [figures["what"]]
    for name, table in figures.items():
        if name in ("case", "device", "jax", "what", "speed"):
            continue
        columns = list(next(iter(table.values())))
        width = max(8, *(len(column) + 2 for column in columns)) if len(columns) < 8 else 12
        lines += ["", name.replace("_", " ")]
        if len(columns) < 8:
            lines.append(f"{'':<38}" + "".join(f"{column:>{width}}" for column in columns))
            lines += [f"{n:<38}" + "".join(f"{row[c]:>{width}.3f}" for c in columns) for n, row in table.items()]
        else:
            for row_name, row in table.items():
                lines.append(f"{row_name}: " + ", ".join(f"{column} {value:.3f}" for column, value in row.items()))
    return "\n".join([*lines, "", "speed", *(f"  {name}: {value}" for name, value in figures["speed"].items())])
