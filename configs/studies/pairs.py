"""Do twins chosen by the mutual information of their motion teach more than other partners do?

All runs train on the same patches. A second branch, with its own embedding space, contrasts each patch with a partner.
The partner is the twin, a random patch of the clip, the patch nearest in space or in appearance, or the patch itself.
A baseline has no second branch. A patch without an accepted twin is its own partner in every setting.
Source: the question of Chen and Yang 2025 (InfoAug). We do not know their numbers, so we compare only the order.

The method is SimCLR, or MoCo with ring negatives in :digits_moco. Runs train the tiny network (width 64) for 600 steps,
except in :tiny.

Variants: :digits (default; patches of moving digits), :digits_moco (the same with MoCo), :davis (patches of filmed
clips), :tiny (two dozen steps of three settings, to see that it works). All need --config.data_dir, a folder with
cifar10 and dtd10 as TFDS has them and with the pair set pairs_digits/ or pairs_davis/ that python -m mi_contrast.pairs
makes; they may be links. Every run is evaluated on the moving digits, which are generated there on first use.
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import LOW_TEMPERATURE, MEASURE_AT_ENDS, TINY, make_runs

PAPER = "Chen and Yang 2025"
PARTNERS = (("twin", "twin"), ("at random", "random"), ("near", "near"), ("alike", "alike"), ("itself", "self"))
# Cosines at SimCLR's own temperature, .5, keep the nats far below the ceiling. Terms 2 and 3 are the second branch.
LOW_TWIN_TEMPERATURE = {f"method.terms.{i}.temperature": 0.2 for i in (2, 3)}
FEW = {"model.width": 8, "data.batch": 32, "steps": 24, "eval.pairs": 16, "eval.knn_bank": 64}
VARIANTS = {  # pair set, method, its variant, changes, more changes for a second branch, seeds
    "digits": ("pairs_digits", "simclr", "digits", {"steps": 600, "eval.pairs": 256}, {}, (0, 1, 2)),
    "digits_moco": ("pairs_digits", "ring_moco", "digits", {"steps": 600, "eval.pairs": 256}, {}, (0, 1, 2)),
    "davis": (
        "pairs_davis",
        "simclr",
        "cifar10_small",
        {**TINY, **LOW_TEMPERATURE, "eval.pairs": 64},
        LOW_TWIN_TEMPERATURE,
        (0, 1, 2),
    ),
    "tiny": ("pairs_digits", "simclr", "digits", FEW, {}, (0,)),
}
TITLES = {"simclr": "SimCLR", "ring_moco": "MoCo with a ring"}
TWIN_METHODS = {"simclr": "infoaug_simclr", "ring_moco": "infoaug"}


def get_config(variant="digits"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    folder, method, sizes, changes, twin_changes, seeds = VARIANTS[variant]
    common = {"data.name": f"pairs:{folder}", "data.split": "train", "data.options": {}, **changes, **MEASURE_AT_ENDS}
    group, partners = f"A second branch added to {TITLES[method]}", PARTNERS[:2] if variant == "tiny" else PARTNERS
    rows = [(group, "no second branch", method, {"data.shared": ()})]
    for label, partner in partners:
        rows.append((group, f"partner {label}", TWIN_METHODS[method], {"data.partner": partner, **twin_changes}))
    data_sets = ("moving_digits",) if variant == "tiny" else ("moving_digits", "cifar10", "dtd10")
    return ConfigDict(
        dict(
            question=(
                "Do twins chosen by the mutual information of their motion teach more than other partners of the same "
                "clip, and what do they bring on other images?"
            ),
            data_dir=None,
            steps=None,
            reference="partner twin",
            runs=make_runs(rows, sizes, common, seeds),
            evaluate=tuple(
                dict(config="configs/evaluate/linear.py", changes={"data.name": name}) for name in data_sets
            ),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=(*(f"linear-{name}" for name in data_sets), "mi_nats"),
        )
    )
