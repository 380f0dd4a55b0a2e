"""Pairs of patches that move together: cuts clips' first frames into patches, follows them, and finds each one's twin,
the patch whose motion shares most with its own, in nats; writes them as a set to train on, 'pairs:FOLDER'.

  python -m mi_contrast.pairs --clips=PATH|moving_digits --workdir=runs/pairs/x [--masks=FOLDER] [--patch=32 ...]

PATH holds folders of frames or video files. With masks of objects it says how often twins lie on one object, beside
other patches at the same distance. A picture a clip is in FOLDER/pictures.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mi_contrast import estimators as mi
from mi_contrast.core.config import convert, differences, parse
from mi_contrast.core.errors import UserError, run_job, unknown
from mi_contrast.core.layout import read_json
from mi_contrast.core.progress import Progress
from mi_contrast.data import pair_sets, partners, tracks
from mi_contrast.data.clips import Clip, import_opencv, open_clips
from mi_contrast.reporting import twins_figure

OF = ("motion", "colour")
DITHER = 1e-3  # pixels or levels of noise, below what a tracker resolves: no two steps are then exactly alike

# name: (default, what it is); a default's kind is the kind of what may be given.
TRACKING: dict[str, tuple[Any, str]] = {
    "patch": (16, "pixels a side"),
    "stride": (None, "pixels from patch to patch; the patch's side by default"),
    "point": ("corner", f"what of a patch is followed: {' or '.join(tracks.POINTS)}"),
    "window": (15, "pixels a side that the tracker compares"),
    "levels": (3, "halvings of the frame that the tracker starts from"),
    "tolerance": (1.0, "pixels within which a point followed there and back returns"),
    "lost": (0.2, "the share of frames above which failing makes a track lost"),
    "still": (0.1, "the spread of steps, in pixels (of colours: levels of 255), below which a track says nothing"),
    "camera": ("homography", f"its motion taken out: {', '.join(tracks.CAMERAS)}"),
}
READING: dict[str, tuple[Any, str]] = {
    "frames": (40, "the most of a clip"),
    "size": (None, "the short side in pixels; moving_digits: 32 or 64"),
    "limit": (None, "the most clips"),
    "apart": (
        None,
        "pixels between partners at least; the patch's side by default, none overlap; never within one window",
    ),
    "of": ("motion", "whose series: motion or colour"),
    "series": ("prewhitened", f"made of tracks: {', '.join(mi.SERIES)}"),
    "order": (1, "steps that prewhitening looks back"),
    "estimator": ("ksg", "ksg or three_kl"),
    "k": (3, "its neighbours"),
    "shifts": (19, "circular shifts of the test"),
    "level": (0.05, "the largest p that is accepted"),
    "cover": (0.5, "the share of a patch that an object must cover for the patch to lie on it"),
    "seed": (0, "of the random partners and the noise"),
    "pictures": (40, "the most clips drawn"),
}
FLAGS = {
    "clips=": "a folder of clips (folders of frames, or video files), one video file, or moving_digits",
    "workdir=": "the folder of the pair set",
    "masks=": "a folder of objects' masks, <clip>/<frame>.png",
    **{
        f"{n}=": f"{what} [{'' if d is None else d}]".replace(" []", "")
        for n, (d, what) in (TRACKING | READING).items()
    },
}


class Found(NamedTuple):
    """A clip's patches, their columns but for indices within the clip, and shares of partners on the same object."""

    patches: np.ndarray
    columns: dict[str, np.ndarray]
    same: dict[str, np.ndarray] | None
    picture: bytes | None


def read_options(flags: dict[str, str]) -> dict[str, Any]:
    """All options with what was given, each of its kind. UserError on any other."""
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
    for name, words in (("of", OF), ("series", tuple(mi.SERIES))):
        if options[name] not in words:
            raise unknown(name, options[name], words)
    return options


def of_clip(clip: Clip, number: int, options: dict[str, Any], drawn: bool) -> Found:
    """Tracks, twins and other partners of one clip. UserError with the clip's name where it can't serve."""
    how = tracks.Tracking(**{field.name: options[field.name] for field in fields(tracks.Tracking)})
    draw = np.random.default_rng([options["seed"], number])
    try:
        found = tracks.follow(clip.frames, how)
        paths, state = found.steady, found.state
        if options["of"] == "colour":
            paths, state = found.colours, tracks.classify_colours(found, how)
        where = state == tracks.TRACKED
        may = partners.find_eligible(found.centres, where, how.patch if options["apart"] is None else options["apart"])
        # Points within one window see the same pixels, and a tracker's errors there would be a motion in common.
        may &= partners.find_eligible(found.positions[:, 0], where, how.window)
        paths = paths + DITHER * draw.standard_normal(paths.shape)
        order = {"order": options["order"]} if options["series"] == "prewhitened" else {}
        series = mi.of_unit_size(mi.SERIES[options["series"]](paths, **order))
        chosen = {name: options[name] for name in ("shifts", "level", "k", "estimator")}
        answer = mi.twins(series, where=may, **chosen)
    except UserError as error:
        raise UserError(f"clip {clip.name}: {error.what}", nearest=error.nearest, fix=error.fix) from None
    partner, nats, null, p, accepted = (np.asarray(column) for column in answer)
    patches = tracks.cut_patches(clip.frames[0], found.centres, how.patch)
    apart = partners.compute_distances(found.centres)[np.arange(len(where)), partner]
    taken: dict[str, np.ndarray] = {"twin": partner, **partners.choose_controls(found.centres, patches, may, draw)}
    columns = {
        "clip": np.full(len(where), number),
        "row": found.centres[:, 0],
        "column": found.centres[:, 1],
        "state": state,
        "nats": nats,
        "null": null,
        "p": p,
        "accepted": accepted,
        "distance": np.where(np.isnan(nats), np.nan, apart),
        **taken,
        **{f"{pair_sets.LABEL}{name}": np.full(len(where), value) for name, value in clip.labels.items()},
    }
    same = None
    if clip.objects is not None:
        inside = tracks.cut_patches(clip.objects[0], found.centres, how.patch).mean(axis=(1, 2)) >= options["cover"]
        columns[f"{pair_sets.LABEL}object"] = inside.astype(np.int32)
        same = partners.same_object_shares(inside.astype(np.int32), found.centres, may, taken)
    picture = None
    if drawn:
        title = f"{clip.name}: {where.sum()} of {len(where)} patches tracked, {accepted.sum()} twins accepted"
        objects = None if clip.objects is None else clip.objects[0]
        picture = twins_figure.draw(
            title, clip.frames[0], found.centres, partner, nats, accepted, tracked=where, objects=objects
        )
    return Found(patches, columns, same, picture)


def make(folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Makes the pair set and gives its facts."""
    where = {name: options[name] for name in ("masks", "frames", "size", "limit")}
    import_opencv()
    clips = open_clips(options["clips"], **where)
    progress = Progress("pairs", len(clips), unit="clip")
    found, pictures, start = [], {}, 0
    try:
        for number, clip in enumerate(clips):
            one = of_clip(clip, number, options, drawn=number < options["pictures"])
            for word in pair_sets.TABLE_WORDS:  # from places in the clip to indices
                one.columns[word] = one.columns[word] + start
            start += len(one.patches)
            if one.picture is not None:
                pictures[f"{clip.name}.png"] = one.picture
            found.append(one._replace(picture=None))
            progress.advance(note=clip.name)
    finally:
        progress.close()
    columns = {name: np.concatenate([one.columns[name] for one in found]) for name in found[0].columns}
    classes = {name: list(words) for name, words in clips.classes.items()}
    if "label_object" in columns:
        classes["object"] = ["background", "object"]
    facts = {
        "what": "patches and the partners that share most of their motion",
        "clips": list(clips.names),
        "classes": classes,
        "options": options,
        "patches": start,
        **counts(columns),
        "versions": {"jax": jax.__version__, "numpy": np.__version__, "opencv": import_opencv().__version__},
    }
    if found[0].same is not None:
        same = {word: np.concatenate([one.same[word] for one in found]) for word in found[0].same}  # type: ignore[index]
        facts["same_object"] = partners.summarise_shares(
            same, columns["label_object"] > 0, columns["accepted"], columns["clip"]
        )
    pair_sets.write(folder, np.concatenate([one.patches for one in found]), columns, facts, pictures)
    return facts


def counts(columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many patches are of each state and how many twins were accepted, and the medians of what twins read."""
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


def words(facts: dict[str, Any]) -> str:
    """What was found, as lines of text."""
    states = ", ".join(f"{number:,} {word}" for word, number in facts["states"].items())
    lines = [
        f"{facts['patches']:,} patches of {len(facts['clips']):,} clips: {states}",
        f"{facts['twins']:,} twins, {facts['accepted']:,} accepted at level {facts['options']['level']:g}; medians: "
        + ", ".join(f"{name} {value:g}" for name, value in facts["medians"].items()),
    ]
    if "same_object" in facts:
        shown = ("twin", "at_twin", "near", "at_near", "alike", "at_alike", "any")
        lines.append("partners on the patch's own object (at_x: other patches at x's distance)")
        lines.append(f"{'patches':<22}{'':>8}" + "".join(f"{word:>10}" for word in shown))
        for group, row in facts["same_object"].items():
            cells = "".join(f"{row[w]:>10.3f}" if w in row else f"{'':>10}" for w in shown)
            lines.append(f"{group.replace('_', ' '):<22}{row['patches']:>8,}" + cells)
        lines.append("twins over other partners, and 95 % of draws of whole clips")
        for group, row in facts["same_object"].items():
            over = row.get("over", {}).items()
            cells = ", ".join(f"{word} {mean:+.3f} ({low:+.3f} to {high:+.3f})" for word, (mean, low, high) in over)
            lines.append(f"{group.replace('_', ' '):<22}{cells}")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """The command line's job. See the module's text."""
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
        facts = make(folder, options)
    print(words(facts))


if __name__ == "__main__":
    sys.exit(run_job(main))
