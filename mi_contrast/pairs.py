"""Makes a set of pairs of patches that move together, to train on as 'pairs:FOLDER'.

The first frame of each clip is cut into patches, which are tracked through the clip. The twin of a patch is the patch
whose motion shares the most information with its own, in nats.

  python -m mi_contrast.pairs --clips=PATH|moving_digits --workdir=runs/pairs/x [--masks=FOLDER] [--patch=32 ...]

PATH has folders of frames, or video files. Given masks of objects, the job reports how often twins lie on one object,
compared with other patches at the same distance. FOLDER/pictures has a picture of each clip.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mi_contrast import estimators as mi
from mi_contrast.core import processes
from mi_contrast.core.config import convert, differences, parse
from mi_contrast.core.errors import UserError, add_place, run_job, unknown
from mi_contrast.core.layout import read_json
from mi_contrast.core.progress import ProgressBar
from mi_contrast.data import pair_sets, partners, tracks
from mi_contrast.data.clips import Clip, import_opencv, open_clips
from mi_contrast.reporting import drawing, twins_figure

SOURCES = ("motion", "colour")
DITHER = 1e-3  # pixels or levels: noise below the resolution of a tracker, so that no two steps are equal

# name: (default, meaning). A value on the command line is converted to the type of the default.
TRACKING: dict[str, tuple[Any, str]] = {
    "patch": (16, "side of a patch in pixels"),
    "stride": (None, "pixels between neighbouring patches; the patch's side by default"),
    "point": ("corner", f"point of a patch that is tracked: {' or '.join(tracks.POINTS)}"),
    "window": (15, "side, in pixels, of the window that the tracker compares"),
    "levels": (3, "how often the frame is halved for the tracker's first search"),
    "tolerance": (1.0, "pixels within which a point must return when it is tracked forwards and backwards"),
    "lost": (0.2, "share of frames that may fail before a track is lost"),
    "still": (0.1, "standard deviation of steps, in pixels or colour levels of 255, below which a track is still"),
    "camera": ("homography", f"model of the camera's motion, which is subtracted: {', '.join(tracks.CAMERAS)}"),
}
READING: dict[str, tuple[Any, str]] = {
    "frames": (40, "largest number of frames of a clip"),
    "size": (None, "short side of a frame in pixels; of moving_digits 32 or 64"),
    "limit": (None, "largest number of clips"),
    "apart": (
        None,
        "smallest distance of partners in pixels, at least a window; by default the patch's side, so that none overlap",
    ),
    "of": ("motion", "what the series are made of: motion or colour"),
    "series": ("prewhitened", f"how a series is made from a track: {', '.join(mi.SERIES)}"),
    "order": (1, "number of earlier steps that prewhitening uses"),
    "estimator": ("ksg", "ksg or three_kl"),
    "k": (3, "number of neighbours of the estimator"),
    "shifts": (19, "number of circular shifts in the significance test"),
    "level": (0.05, "largest p-value of an accepted twin"),
    "cover": (0.5, "share of a patch that an object must cover for the patch to lie on it"),
    "seed": (0, "seed of the random partners and the noise"),
    "pictures": (40, "largest number of clips to draw"),
}
FLAGS = {
    "clips=": "a folder of clips (folders of frames or video files), a video file, or moving_digits",
    "workdir=": "folder to write the pair set to",
    "masks=": "a folder of masks of objects, <clip>/<frame>.png",
    **{
        f"{name}=": meaning if default is None else f"{meaning} [{default}]"
        for name, (default, meaning) in (TRACKING | READING).items()
    },
    **processes.FLAGS,
}


class ClipPairs(NamedTuple):
    """The patches of one clip and their partners.

    patches: uint8 [M, patch, patch, 3].
    columns: of the pair set, with indices of partners counted within the clip.
    same: for each kind of partner, whether it lies on the patch's own object; None without masks.
    picture: a PNG, or None.
    """

    patches: np.ndarray
    columns: dict[str, np.ndarray]
    same: dict[str, np.ndarray] | None
    picture: bytes | None


def read_options(flags: dict[str, str]) -> dict[str, Any]:
    """Returns all options, converted from the flags. Raises UserError on an invalid value."""
    options: dict[str, Any] = {"clips": flags["clips"], "masks": flags.get("masks")}
    for name, (default, _) in (TRACKING | READING).items():
        options[name] = convert(default, flags[name], f"--{name}") if name in flags else default
    for name, least in (
        ("frames", 2),
        ("size", 8),
        ("limit", 1),
        ("apart", 0),
        ("order", 1),
        ("k", 1),
        ("pictures", 0),
    ):
        value = options[name]
        if value is not None and (not isinstance(value, int) or value < least):
            raise UserError(f"--{name}={value}", fix=f"give a whole number from {least} up")
    for name, words in (("of", SOURCES), ("series", tuple(mi.SERIES))):
        if options[name] not in words:
            raise unknown(name, options[name], words)
    return options


def find_pairs(clip: Clip, number: int, options: dict[str, Any], *, draw: bool) -> ClipPairs:
    """Tracks the patches of a clip and finds their twins and their other partners.

    Args:
      number: of the clip in the set.
      draw: whether to draw a picture.
    Raises UserError, with the clip's name, if the clip can't be used.
    """
    settings = tracks.Tracking(**{field.name: options[field.name] for field in fields(tracks.Tracking)})
    random = np.random.default_rng([options["seed"], number])
    try:
        tracked = tracks.follow(clip.frames, settings)
        paths, state = tracked.steady, tracked.state
        if options["of"] == "colour":
            paths, state = tracked.colours, tracks.classify_colours(tracked, settings)
        usable = state == tracks.TRACKED
        distance = settings.patch if options["apart"] is None else options["apart"]
        eligible = partners.find_eligible(tracked.centres, usable, distance)
        # Points within one window share pixels, so the tracker's errors there would look like common motion.
        eligible &= partners.find_eligible(tracked.positions[:, 0], usable, settings.window)
        paths = paths + DITHER * random.standard_normal(paths.shape)
        order = {"order": options["order"]} if options["series"] == "prewhitened" else {}
        series = mi.of_unit_size(mi.SERIES[options["series"]](paths, **order))
        test = {name: options[name] for name in ("shifts", "level", "k", "estimator")}
        twins = mi.twins(series, where=eligible, **test)
    except UserError as error:
        raise add_place(f"clip {clip.name}", error) from None
    partner, nats, null, p, accepted = (np.asarray(column) for column in twins)
    patches = tracks.cut_patches(clip.frames[0], tracked.centres, settings.patch)
    twin_distance = partners.compute_distances(tracked.centres)[np.arange(len(usable)), partner]
    controls = partners.choose_controls(tracked.centres, patches, eligible, random)
    partner_columns: dict[str, np.ndarray] = {"twin": partner, **controls}
    columns = {
        "clip": np.full(len(usable), number),
        "row": tracked.centres[:, 0],
        "column": tracked.centres[:, 1],
        "state": state,
        "nats": nats,
        "null": null,
        "p": p,
        "accepted": accepted,
        "distance": np.where(np.isnan(nats), np.nan, twin_distance),
        **partner_columns,
        **{f"{pair_sets.LABEL}{name}": np.full(len(usable), value) for name, value in clip.labels.items()},
    }
    same = None
    if clip.objects is not None:
        inside = (
            tracks.cut_patches(clip.objects[0], tracked.centres, settings.patch).mean(axis=(1, 2)) >= options["cover"]
        )
        columns[f"{pair_sets.LABEL}object"] = inside.astype(np.int32)
        same = partners.same_object_shares(inside.astype(np.int32), tracked.centres, eligible, partner_columns)
    picture = None
    if draw:
        title = f"{clip.name}: {usable.sum()} of {len(usable)} patches tracked, {accepted.sum()} twins accepted"
        objects = None if clip.objects is None else clip.objects[0]
        chart = twins_figure.chart(
            title, clip.frames[0], tracked.centres, partner, nats, accepted, tracked=usable, objects=objects
        )
        picture = drawing.as_png(chart, scale=1)  # one pixel a unit
    return ClipPairs(patches, columns, same, picture)


def make_pair_set(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Makes the pair set, writes it to the folder, and returns its facts as plain data."""
    limits = {name: options[name] for name in ("masks", "frames", "size", "limit")}
    import_opencv()
    clips = open_clips(options["clips"], **limits)
    progress = ProgressBar("pairs", len(clips), unit="clip")
    parts, pictures, start = [], {}, 0
    try:
        for number, clip in enumerate(clips):
            part = find_pairs(clip, number, options, draw=number < options["pictures"])
            for name in pair_sets.TABLE_WORDS:  # indices within the clip become indices within the set
                part.columns[name] = part.columns[name] + start
            start += len(part.patches)
            if part.picture is not None:
                pictures[f"{clip.name}.png"] = part.picture
            parts.append(part._replace(picture=None))
            progress.advance(note=clip.name)
    finally:
        progress.close()
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns}
    classes = {name: list(names) for name, names in clips.classes.items()}
    if "label_object" in columns:
        classes["object"] = ["background", "object"]
    facts = {
        "what": "patches and the partners that share most of their motion",
        "clips": list(clips.names),
        "classes": classes,
        "options": options,
        "patches": start,
        **count_states(columns),
        "versions": {"jax": jax.__version__, "numpy": np.__version__, "opencv": import_opencv().__version__},
    }
    if parts[0].same is not None:
        same = {kind: np.concatenate([part.same[kind] for part in parts]) for kind in parts[0].same}  # type: ignore[index]
        facts["same_object"] = partners.summarise_shares(
            same, columns["label_object"] > 0, columns["accepted"], columns["clip"]
        )
    pair_sets.write(folder, np.concatenate([part.patches for part in parts]), columns, facts, pictures)
    return facts


def count_states(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the number of patches in each state, of twins and of accepted twins, and medians over the twins."""
    twins = np.isfinite(columns["nats"])
    medians = {
        name: round(float(np.median(columns[name][twins])), 3) for name in ("nats", "null", "distance") if twins.any()
    }
    return {
        "states": {word: int((columns["state"] == i).sum()) for i, word in enumerate(pair_sets.STATES)},
        "twins": int(twins.sum()),
        "accepted": int(columns["accepted"].sum()),
        "medians": medians,
    }


def summarise(facts: dict[str, Any]) -> str:
    """Returns the facts of a pair set as lines of text."""
    states = ", ".join(f"{number:,} {word}" for word, number in facts["states"].items())
    lines = [
        f"{facts['patches']:,} patches of {len(facts['clips']):,} clips: {states}",
        f"{facts['twins']:,} twins, {facts['accepted']:,} accepted at level {facts['options']['level']:g}; medians: "
        + ", ".join(f"{name} {value:g}" for name, value in facts["medians"].items()),
    ]
    if "same_object" in facts:
        shown = ("twin", "at_twin", "near", "at_near", "alike", "at_alike", "any")
        lines.append("share of partners on the patch's own object (at_x: other patches at the distance of x)")
        lines.append(f"{'patches':<22}{'':>8}" + "".join(f"{word:>10}" for word in shown))
        for group, row in facts["same_object"].items():
            cells = "".join(f"{row[w]:>10.3f}" if w in row else f"{'':>10}" for w in shown)
            lines.append(f"{group.replace('_', ' '):<22}{row['patches']:>8,}" + cells)
        lines.append("twins minus other partners, and the 95 % interval over whole clips")
        for group, row in facts["same_object"].items():
            over = row.get("over", {}).items()
            cells = ", ".join(f"{word} {mean:+.3f} ({low:+.3f} to {high:+.3f})" for word, (mean, low, high) in over)
            lines.append(f"{group.replace('_', ' '):<22}{cells}")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Runs the command line of this job."""
    processes.start(arguments)
    if not processes.is_first():
        return  # one process makes the set; the others wait for it at the end of the job
    flags = dict(parse(arguments, FLAGS, usage=__doc__ or "").flags)
    for name, example in (("clips", "PATH|moving_digits"), ("workdir", "runs/pairs/x")):
        if not flags.get(name):
            raise UserError(f"no --{name}", fix=f"give --{name}={example}")
    options, folder = read_options(flags), Path(flags["workdir"]).expanduser()
    if (folder / pair_sets.FACTS).is_file():
        facts = read_json(folder / pair_sets.FACTS)
        if differing := differences(facts.get("options", {}), options):
            raise UserError(
                f"{folder} was made with other options ({', '.join(differing)})", fix="give another --workdir"
            )
        print(f"{folder} is finished", file=sys.stderr)
    else:
        facts = make_pair_set(folder, options)
    print(summarise(facts))


if __name__ == "__main__":
    sys.exit(run_job(main))
