"""Which split of an image into two views? Channels of colour spaces, and bands of frequencies.

Two of the curves of Tian et al. 2020 (InfoMin), nats between the views against accuracy: colour spaces (there fewer
nats went with more accuracy, YDbDr and Lab best, RGB worst) and the width of the blur that divides low frequencies from
high ones (there accuracy rose and fell again). Both are recalled; orderings are compared, no figures.

Every row is the same: two networks, a view each, against the batch (configs/cmc_in_batch.py), fresh for each split. The
nats are InfoNCE on 1,024 held-out pairs of their embeddings, at most log 1,024.

Variants: :cifar10_small (default; batches of 128, 600 steps, two tiny networks of width 64, one seed, a few minutes a
run on 2 cores; give --config.data_dir), :digits (embedded data, a colour space and a band alone, to see that it works).
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import AT_ENDS, TINY, runs
from mi_contrast.views.channels import CONSTANTS
from mi_contrast.views.policies import cmc

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

    def of(split):
        space = split if isinstance(split, str) else split["space"]
        mean, std = CONSTANTS[space]
        views = cmc(32, split, 0.8 if variant == "digits" else 0.2, mean, std)
        if variant == "digits":  # a mirrored digit is another
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
            runs=runs(
                [(group, label, "cmc_in_batch", of(split)) for group, label, split in rows],
                variant,
                {**common, **AT_ENDS},
                seeds,
            ),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats"),
            curve="mi_nats",
        )
    )
