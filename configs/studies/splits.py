"""How should an image be split into two views? By channels of a colour space, or by bands of frequency.

Tian et al. 2020 (InfoMin) plot accuracy against the nats between the views in two experiments. Among colour spaces,
accuracy rises as nats fall: YDbDr and Lab are best, RGB is worst. Among blur widths, it rises and then falls. We recall
both results from memory, so we compare only the order.

All runs use the same method: two networks, one for each view, contrasted within the batch (configs/cmc_in_batch.py).
The nats are InfoNCE on 1,024 held-out pairs of their embeddings, at most log 1,024.

Variants: :cifar10_small (default; batches of 128, 600 steps, two tiny networks of width 64, one seed, a few minutes per
run on 2 cores; needs --config.data_dir), :digits (data shipped with the package, one colour space and one band, to see
that it works).
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import MEASURE_AT_ENDS, TINY, make_runs
from mi_contrast.views.channels import CONSTANTS
from mi_contrast.views.policies import cmc

PAPER = "Tian et al. 2020"
SPACES = ("rgb", "hsv", "yiq", "yuv", "ycbcr", "ypbpr", "ydbdr", "lab")
SIGMAS = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
VARIANTS = {
    "cifar10_small": (TINY, SPACES, SIGMAS, (0,)),
    "digits": ({"steps": 200}, ("ydbdr",), (1.0,), (0,)),
}


def get_config(variant="cifar10_small"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common, spaces, sigmas, seeds = VARIANTS[variant]
    rows = [("Colour space", space, space) for space in spaces]
    rows += [("Bands", f"sigma {sigma:g}", dict(kind="bands", space="rgb", sigma=sigma)) for sigma in sigmas]

    def make_changes(split):
        space = split if isinstance(split, str) else split["space"]
        mean, std = CONSTANTS[space]
        views = cmc(32, split, 0.8 if variant == "digits" else 0.2, mean, std)
        if variant == "digits":  # a mirrored digit may be another digit
            views["both"] = {name: op for name, op in views["both"].items() if name != "flip"} | {"order": ("crop",)}
        return {"views": views, "model.split": split}

    return ConfigDict(
        dict(
            question=(
                "Which split? Two views of one image, by channels of a colour space or by frequency: the nats they "
                "share and what they lead to."
            ),
            data_dir=None,
            steps=None,
            reference="ydbdr",
            runs=make_runs(
                [(group, label, "cmc_in_batch", make_changes(split)) for group, label, split in rows],
                variant,
                {**common, **MEASURE_AT_ENDS},
                seeds,
            ),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats"),
            curve="mi_nats",
        )
    )
