"""Which patches move together: what independent motions read, how often a twin of none is accepted, how well groups
are found, and how fast; all on motions whose truth is known.

Motions are of 64 patches in the plane unless said. An own step is normal of unit variance, each phi of the one before;
`raw` are positions, the published recipe's; shares are of anchors, 64 a scene, which are not quite independent.
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
from mi_contrast.benchmarks.timing import interleaved, ratio, spread
from mi_contrast.core.progress import Progress
from mi_contrast.data.tracks import TRACKED

REPEATS = 20  # scenes of each kind
PATCHES, FRAMES, PAIRS, ROUNDS, SHIFTS, LEVEL = 64, 40, 400, 5, 19, 0.05
TRIED = 400  # pairs that the loop over trees is timed on; all pairs' time is scaled from theirs

Table = dict[str, dict[str, float]]


def steps(draw: np.random.Generator, count: int, frames: int, phi: float = 0.0, size: int = 2) -> np.ndarray:
    """Steps [count, frames - 1, size] of unit variance, each phi of the one before; begun long ago."""
    noise = draw.normal(size=(count, frames + 199, size))
    for t in range(1, noise.shape[1]):
        noise[:, t] = phi * noise[:, t - 1] + np.sqrt(1 - phi**2) * noise[:, t]
    return noise[:, 200:]


def along(of_steps: np.ndarray) -> np.ndarray:
    """The positions [count, frames, size] that begin at 0 and make these steps."""
    return np.cumsum(np.pad(of_steps, ((0, 0), (1, 0), (0, 0))), axis=1)


def in_groups(draw: np.random.Generator, frames: int, phi: float, c: float, groups: int = 8) -> np.ndarray:
    """Steps of 64 patches, each sharing its group's so far that two of a group correlate by c along each axis."""
    shared = np.repeat(steps(draw, groups, frames, phi), PATCHES // groups, axis=0)
    return np.sqrt(c) * shared + np.sqrt(1 - c) * steps(draw, PATCHES, frames, phi)


def run(repeats: int, small: bool = False) -> dict[str, Any]:
    """Every table, and the speed, as plain data."""
    draw = np.random.default_rng(0)
    pairs, scenes = (40, 1) if small else (PAIRS, repeats)
    parts: dict[str, Callable[[], Any]] = {
        "independent_walks": lambda: walks(draw, pairs, (40,) if small else (20, 40, 80, 160)),
        "independent_motions": lambda: motions(draw, pairs, (40,) if small else (40, 80)),
        "largest_of_63": lambda: largest(draw, scenes, (40,) if small else (40, 80)),
        "camera_jitter": lambda: jitter(draw, scenes),
        "power": lambda: power(draw, scenes, (40,) if small else (40, 80)),
        "calibration": lambda: calibration(draw, scenes, (40,) if small else (40, 80)),
        "groups_auroc": lambda: groups(draw, scenes),
        "rendered_auroc": lambda: rendered(draw, scenes),
        "speed": lambda: speed(draw, 1 if small else ROUNDS),
    }
    progress, found = Progress("twins", len(parts), unit="table"), {}
    for name, part in parts.items():
        found[name] = part()
        progress.advance(note=name)
    progress.close()
    return {"what": f"{PATCHES} patches, {scenes} scenes, {pairs} pairs; nats unless said", **found}


def walks(draw: np.random.Generator, pairs: int, lengths: tuple[int, ...]) -> Table:
    """Of independent walks with steps without memory: mean, sd and 95 % quantile of both estimators."""
    table = {}
    for size in (1, 2, 3):
        for frames in lengths:
            x, y = (along(steps(draw, pairs, frames, size=size)) for _ in range(2))
            row: dict[str, float] = {}
            for word in ("raw", "displacement"):
                of_x, of_y = (mi.SERIES[word](z) for z in (x, y))
                for name, estimate in (("ksg", mi.ksg), ("three_kl", mi.three_kl)):
                    nats = np.asarray(estimate(of_x, of_y, errors=False).nats)
                    figures = {"mean": nats.mean(), "sd": nats.std(), "q95": np.quantile(nats, 0.95)}
                    row |= {f"{name}_{word}_{what}": float(value) for what, value in figures.items()}
            table[f"{size}-D, {frames} frames"] = row
    return table


def motions(draw: np.random.Generator, pairs: int, lengths: tuple[int, ...]) -> Table:
    """Of independent pairs whose steps have memory or drift: mean of KSG by series."""
    table = {}
    for frames in lengths:
        for phi, drift in ((0.0, 0.0), (0.5, 0.0), (0.9, 0.0), (0.99, 0.0), (0.0, 1.0)):
            x, y = (along(steps(draw, pairs, frames, phi) + drift) for _ in range(2))
            table[f"{frames} frames, phi {phi:g}" + (", drift 1" if drift else "")] = {
                word: float(mi.ksg(of(x), of(y), errors=False).nats.mean()) for word, of in mi.SERIES.items()
            }
    return table


def largest(draw: np.random.Generator, scenes: int, lengths: tuple[int, ...]) -> Table:
    """Independent motions: what the best of 63 partners reads, and how often a test of each pair, and of the largest,
    finds a twin.
    """
    table = {}
    for frames in lengths:
        for word in ("displacement", "raw"):
            most, hits, found = [], [], []
            for _ in range(scenes):
                series = mi.SERIES[word](along(steps(draw, PATCHES, frames)))
                twins = mi.twins(series)
                shifts = np.array([0, *mi.spread_shifts(series.shape[1], SHIFTS)])
                nats = np.asarray(mi.shifted_pairs(series, shifts))
                p = (1 + (nats[1:] >= nats[0]).sum(axis=0)) / (1 + SHIFTS)
                most.append(twins.nats)
                hits.append((p <= LEVEL).sum(axis=1))  # of 63: a series is no partner of its own, p 1
                found.append(twins.accepted)
            table[f"{frames} frames, {word}"] = {
                "largest_mean": float(np.mean(most)),
                "largest_q95": float(np.quantile(most, 0.95)),
                "pairs_at_.05": float(np.mean(hits)),
                "share_with_any_pair": float(np.mean(np.array(hits) > 0)),
                "share_accepted": float(np.mean(found)),
            }
    return table


def jitter(draw: np.random.Generator, scenes: int, frames: int = 80) -> Table:
    """Independent motions with a shared jitter of sd g, as a shaking camera's: the mean over pairs as they are and less
    each frame's median step, and the truth, -log(1 - (g^2 / (1 + g^2))^2).
    """
    table, upper = {}, np.triu_indices(PATCHES, 1)
    for g in (0.25, 0.5, 1.0, 2.0):
        read = []
        for _ in range(max(1, scenes // 4)):
            moved = steps(draw, PATCHES, frames) + g * steps(draw, 1, frames)
            both = moved, moved - np.median(moved, axis=0)
            read.append([float(np.mean(np.asarray(mi.all_pairs(series))[upper])) for series in both])
        shaken, steadied = np.mean(read, axis=0)
        true = -np.log(1 - (g**2 / (1 + g**2)) ** 2)
        table[f"jitter {g:g}"] = {"truth": float(true), "as_seen": float(shaken), "less_median": float(steadied)}
    return table


def power(draw: np.random.Generator, scenes: int, lengths: tuple[int, ...]) -> Table:
    """Patches in 32 pairs of correlation c along each axis: what the true partner reads, how often it is the twin, how
    often a twin is accepted, and both.
    """
    table = {}
    other = (np.arange(PATCHES) + PATCHES // 2) % PATCHES
    for frames in lengths:
        for c in (0.5, 0.7, 0.9, 0.98):
            nats, right, found = [], [], []
            for _ in range(max(1, scenes // 2)):
                series = steps(draw, PATCHES, frames)
                series[PATCHES // 2 :] = c * series[: PATCHES // 2] + np.sqrt(1 - c**2) * series[PATCHES // 2 :]
                twins = mi.twins(series)
                right.append(np.asarray(twins.partner) == other)
                found.append(twins.accepted)
                nats.append(np.asarray(mi.all_pairs(series))[np.arange(PATCHES), other])
            table[f"{frames} frames, c {c:g}"] = {
                "truth": float(-np.log(1 - c**2)),
                "true_partner": float(np.mean(nats)),
                "is_the_twin": float(np.mean(right)),
                "accepted": float(np.mean(found)),
                "both": float(np.mean(np.array(right) & np.array(found))),
            }
    return table


def calibration(draw: np.random.Generator, scenes: int, lengths: tuple[int, ...]) -> Table:
    """Independent motions with memory: the share of twins accepted at .05 by series, with twice the standard error of
    it over scenes, and what the largest of 63 reads and read when shifted.
    """
    table = {}
    for frames in lengths:
        for phi in (0.0, 0.5, 0.9):
            made = [along(steps(draw, PATCHES, frames, phi)) for _ in range(scenes)]
            for word, of in SERIES.items():
                found = [mi.twins(of(paths)) for paths in made]
                shares = [float(np.mean(twins.accepted)) for twins in found]
                table[f"{frames} frames, phi {phi:g}, {word}"] = {
                    "share_accepted": float(np.mean(shares)),
                    "twice_its_error": float(2 * np.std(shares) / np.sqrt(max(1, scenes - 1))),
                    "largest": float(np.mean([twins.nats for twins in found])),
                    "largest_shifted": float(np.mean([twins.null for twins in found])),
                }
    return table


SERIES: dict[str, Callable[[Any], Any]] = {
    "displacement": mi.displacements,
    "second_difference": mi.second_differences,
    "prewhitened": mi.prewhitened,
    "prewhitened_2": lambda paths: mi.prewhitened(paths, order=2),
}


def groups(draw: np.random.Generator, scenes: int, frames: int = FRAMES) -> Table:
    """Eight groups of eight: the area under the ROC curve of each score of a pair for being of one group, and the share
    of accepted twins (of prewhitened series) that are of their patch's group.
    """
    upper = np.triu_indices(PATCHES, 1)
    group = np.repeat(np.arange(8), PATCHES // 8)
    same = (group[:, None] == group)[upper]
    table = {}
    for name, phi, c, shake in CLIPS:
        areas: dict[str, list[float]] = {}
        for _ in range(max(1, scenes // 2)):
            moved = in_groups(draw, frames, phi, c) + shake * steps(draw, 1, frames)
            for score, nats in scores(along(moved), along(moved - np.median(moved, axis=0)), draw):
                areas.setdefault(score, []).append(float(roc_auc_score(same, np.asarray(nats)[upper])))
            twins = mi.twins(mi.prewhitened(along(moved - np.median(moved, axis=0))))
            right = np.asarray(twins.accepted), group[np.asarray(twins.partner)] == group
            areas.setdefault("accepted", []).append(float(right[0].mean()))
            areas.setdefault("accepted_right", []).append(float((right[0] & right[1]).sum() / max(1, right[0].sum())))
        table[name] = {score: float(np.mean(values)) for score, values in areas.items()}
    return table


# name, memory of steps, correlation within a group, sd of the camera's jitter
CLIPS = (
    ("white, c .7", 0.0, 0.7, 0.0),
    ("white, c .9", 0.0, 0.9, 0.0),
    ("phi .5, c .9", 0.5, 0.9, 0.0),
    ("phi .9, c .9", 0.9, 0.9, 0.0),
    ("phi .5, c .9, jitter 2", 0.5, 0.9, 2.0),
)


def rendered(draw: np.random.Generator, scenes: int, frames: int = FRAMES) -> Table:
    """The same groups and scores in clips that are drawn and tracked, with steps so small that 64 squares stay apart
    and a camera that shakes by half a pixel: areas over pairs of tracks that serve, their share, and the error of their
    steps in pixels (root mean square).
    """
    if find_spec("cv2") is None:
        return {"not run: OpenCV, the extra [video], is not installed": {}}
    group = np.repeat(np.arange(8), PATCHES // 8)
    table = {}
    for name, phi, c, _ in CLIPS[:-1]:
        areas: dict[str, list[float]] = {}
        for _ in range(max(1, scenes // 4)):
            paths = rendered_clips.fitted(along(in_groups(draw, frames, phi, c)))
            found = rendered_clips.tracked(draw, paths, 0.5 * draw.normal(size=(frames, 2)))
            serve = found.state == TRACKED
            upper = np.triu_indices(int(serve.sum()), 1)
            same = (group[serve][:, None] == group[serve])[upper]
            for score, nats in scores(found.positions[serve], found.steady[serve], draw):
                areas.setdefault(score, []).append(float(roc_auc_score(same, np.asarray(nats)[upper])))
            off = np.diff(found.steady[serve], axis=1) - np.diff(paths[serve], axis=1)
            areas.setdefault("tracked", []).append(float(serve.mean()))
            areas.setdefault("step_error", []).append(float(np.sqrt((off**2).sum(axis=-1).mean())))
        table[name] = {score: float(np.mean(values)) for score, values in areas.items()}
    return table


def scores(paths: np.ndarray, steady: np.ndarray, draw: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """Scores of every pair, of paths with the camera's motion taken out but for the raw ones, as published."""
    yield "displacement", mi.all_pairs(mi.displacements(steady))
    yield "second_difference", mi.all_pairs(mi.second_differences(steady))
    yield "prewhitened", mi.all_pairs(mi.prewhitened(steady))
    yield "three_kl_displacement", mi.all_pairs(mi.displacements(steady), estimator="three_kl")
    yield "raw", mi.all_pairs(paths)
    yield "three_kl_raw", mi.all_pairs(paths, estimator="three_kl")
    yield "random", draw.random((len(paths), len(paths)))


def speed(draw: np.random.Generator, rounds: int) -> dict[str, Any]:
    """Seconds of all twins of a clip, 64 patches by 40 frames with 19 shifts, beside a loop over SciPy's k-d trees,
    timed on a sample of pairs in the same rounds and scaled to the 80,640 pairs and shifts.
    """
    series = np.asarray(mi.displacements(along(steps(draw, PATCHES, FRAMES))))
    whole = PATCHES * (PATCHES - 1) * (1 + SHIFTS)
    asked = [tuple(draw.choice(PATCHES, 2, replace=False)) for _ in range(TRIED)]
    try:
        import scipy  # noqa: F401 - comes with scikit-learn, asked for by name all the same
    except ImportError:
        return {"scipy": "not installed"}
    seconds = interleaved(
        {
            "ours": lambda: jax.block_until_ready(mi.twins(series)),
            "trees": lambda: [tree_ksg(np.roll(series[a], 3, axis=0), series[b]) for a, b in asked],
        },
        rounds,
    )
    scaled = [taken * whole / TRIED for taken in seconds["trees"]]
    nats = np.asarray(mi.all_pairs(series))
    return {
        "pairs_and_shifts": whole,
        "ours_seconds": spread(seconds["ours"]),
        "trees_seconds_scaled": spread(scaled),
        "timed_pairs_of_trees": TRIED,
        "ours_over_trees": ratio(seconds["ours"], scaled),
        "largest_difference": max(abs(float(nats[a, b]) - tree_ksg(series[a], series[b])) for a, b in asked[:50]),
    }


def tree_ksg(x: np.ndarray, y: np.ndarray, k: int = 3) -> float:
    """KSG's first variant, one pair, from SciPy's k-d trees."""
    from scipy.spatial import cKDTree
    from scipy.special import digamma

    x, y = x.astype(np.float64), y.astype(np.float64)
    both = np.hstack([x, y])
    edge = np.nextafter(cKDTree(both).query(both, k + 1, p=np.inf)[0][:, -1], 0)
    within = (cKDTree(z).query_ball_point(z, edge, p=np.inf, return_length=True) for z in (x, y))  # itself: n + 1
    return float(digamma(k) + digamma(len(x)) - sum(digamma(number).mean() for number in within))


def words(found: dict[str, Any]) -> str:
    """The tables as text."""
    lines = [found["what"]]
    for name, table in found.items():
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
    return "\n".join([*lines, "", "speed", *(f"  {name}: {value}" for name, value in found["speed"].items())])
