"""Do twins chosen by the mutual information of their motion teach more than other partners do?

Every run has the same patches, and a second branch that holds each patch against a partner, in a space of its own:
its twin, or another patch of its clip, drawn at random, nearest in space, nearest in appearance; or itself once more;
or there is no second branch. Partners differ only where a twin was accepted. The question of Chen and Yang 2025
(InfoAug), whose figures are not known; only orderings could be compared, and over three seeds.

Variants: :digits (default; patches of moving digits), :digits_moco (the same by MoCo's rows with ring negatives),
:davis (patches of photographed clips), :tiny (two dozen steps of three settings, to see that it works). Give
--config.data_dir, a folder that holds cifar10 and dtd10 as TFDS has them and the pair sets pairs_digits/ or
pairs_davis/, as python -m mi_contrast.pairs makes them; all may be links. The embedded digits, which every run is
judged on, are made there on first use.
Rows: SimCLR's but for :digits_moco; the tiny network of width 64, 600 steps.
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import AT_ENDS, COLD, TINY, runs

PARTNERS = (("twin", "twin"), ("at random", "random"), ("near", "near"), ("alike", "alike"), ("itself", "self"))
COLD_TWINS = {f"method.terms.{i}.temperature": 0.2 for i in (2, 3)}  # the second branch's terms, as COLD the first's
FEW = {"model.width": 8, "data.batch": 32, "steps": 24, "eval.pairs": 16, "eval.knn_bank": 64}
VARIANTS = {  # pair set, row, its variant, changes, those of a second branch too, seeds
    "digits": ("pairs_digits", "simclr", "digits", {"steps": 600, "eval.pairs": 256}, {}, (0, 1, 2)),
    "digits_moco": ("pairs_digits", "ring_moco", "digits", {"steps": 600, "eval.pairs": 256}, {}, (0, 1, 2)),
    "davis": ("pairs_davis", "simclr", "cifar10_small", {**TINY, **COLD, "eval.pairs": 64}, COLD_TWINS, (0, 1, 2)),
    "tiny": ("pairs_digits", "simclr", "digits", FEW, {}, (0,)),
}
TITLES = {"simclr": "SimCLR", "ring_moco": "MoCo with a ring"}
OF_TWINS = {"simclr": "infoaug_simclr", "ring_moco": "infoaug"}


def get_config(variant="digits"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    folder, row, sizes, changes, of_twins, seeds = VARIANTS[variant]
    common = {"data.name": f"pairs:{folder}", "data.split": "train", "data.options": {}, **changes, **AT_ENDS}
    group, partners = f"A second branch beside {TITLES[row]}", PARTNERS[:2] if variant == "tiny" else PARTNERS
    rows = [(group, "no second branch", row, {"data.shared": ()})]
    for label, partner in partners:
        rows.append((group, f"partner {label}", OF_TWINS[row], {"data.partner": partner, **of_twins}))
    judged = ("moving_digits",) if variant == "tiny" else ("moving_digits", "cifar10", "dtd10")
    return ConfigDict(
        dict(
            question=(
                "Do twins chosen by the mutual information of their motion teach more than other partners of the same "
                "clip, and what is read of them on other images?"
            ),
            data_dir=None,
            steps=None,
            reference="partner twin",
            runs=runs(rows, sizes, common, seeds),
            evaluate=tuple(dict(config="configs/evaluate/linear.py", changes={"data.name": name}) for name in judged),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=(*(f"linear-{name}" for name in judged), "mi_nats"),
        )
    )
