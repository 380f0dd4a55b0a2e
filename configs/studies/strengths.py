"""How strong should augmentation be? The smallest area of a crop and the strength of colour jitter, one at a time.

These are two curves of Tian et al. 2020 (InfoMin) on ImageNet: stronger augmentation leaves fewer nats to share, and
accuracy rises and then falls. It was best with crops of at least .2 of the area and with jitter of strength 1. Other
figures of theirs are not known, and only the order is compared.

The method is SimCLR's (configs/simclr.py) at temperature .2, with crops by `views.policies.strengths`. SimCLR's own are
crops of at least .08 of the area and jitter x 1. Crops vary with jitter x 1, and jitter varies with crops of .08;
greyscale .2, blur .5 and flips are the same in all runs. The nats are InfoNCE on 1,024 held-out pairs of embeddings, at
most log 1,024.

Variants: :cifar10_small (default; batches of 128, 600 steps, a tiny network of width 64, one seed of each crop, three
of each jitter, a few minutes per run on 2 cores; needs --config.data_dir).
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.methods.recipes import CIFAR_MEAN, CIFAR_STD
from mi_contrast.studies.settings import LOW_TEMPERATURE, MEASURE_AT_ENDS, TINY, make_runs
from mi_contrast.views.policies import strengths

PAPER = "Tian et al. 2020"
LOWS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
JITTERS = (0.0, 0.25, 0.5, 1.0, 1.5)
SIMCLR_LOW = 0.08  # smallest area of SimCLR's own crops
VARIANTS = {"cifar10_small": ((0,), (0, 1, 2))}  # seeds of crops, of jitters


def make_changes(low, jitter):
    """Returns the change to SimCLR's views with this smallest area of a crop and this strength of jitter."""
    return {"views": {**strengths(32, low=low, jitter=jitter), "mean": CIFAR_MEAN, "std": CIFAR_STD}}


def get_config(variant="cifar10_small"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    few, several = VARIANTS[variant]
    common = {**TINY, **LOW_TEMPERATURE, **MEASURE_AT_ENDS}
    crops = [("Least area of a crop", f"area {low:g}", "simclr", make_changes(low, 1.0)) for low in LOWS]
    jitters = [
        ("Colour jitter", f"jitter x {jitter:g}", "simclr", make_changes(SIMCLR_LOW, jitter)) for jitter in JITTERS
    ]
    return ConfigDict(
        dict(
            question=(
                "How strong? The least area of a crop and the strength of the colour jitter: the nats that two views "
                "then share and what they lead to."
            ),
            data_dir=None,
            steps=None,
            reference="jitter x 1",
            runs=(*make_runs(crops, variant, common, few), *make_runs(jitters, variant, common, several)),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=("mi_nats", "mi_ceiling", "knn_top1", "alignment", "uniformity", "images_per_second"),
            figure=("linear", "knn", "mi_nats"),
            curve="mi_nats",
        )
    )
