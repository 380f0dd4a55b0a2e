"""Which method is best? Ten methods of the family, trained for the same number of steps on the same data.

Wu et al. 2021 compare ir with ring_ir and moco with ring_moco, so these four have three seeds. The others have one, and
we claim only their gain over their own untrained network.

The methods differ in cost: cmc and its kin train two networks of half the width, and jigsaws encode nine more patches.
The number of steps and of images is the same for all.

Variants: :cifar10_small (default; 400 steps of 256, ResNet-18 of width 16, about 11 minutes per run on 2 cores; needs
--config.data_dir), :digits (data shipped with the package, 600 steps, about a minute and a half per run).
"""

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import SAVE_OFTEN, make_runs

PAPER = "Wu et al. 2021"
VARIANTS = {"cifar10_small": {}, "digits": {"steps": 600}}
MAIN = ("ir", "ring_ir", "moco", "ring_moco")
REST = ("cave_ir", "la", "cmc", "ring_cmc", "simclr", "infomin")


def get_config(variant="cifar10_small"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common = {**VARIANTS[variant], **SAVE_OFTEN}
    return ConfigDict(
        dict(
            question=(
                "Which method? Ten methods of the family, the same data and steps: what each gains over its untrained "
                "network, and the nats between its views."
            ),
            data_dir=None,
            steps=None,
            reference=None,
            runs=(
                *make_runs([("Three seeds", name, name, {}) for name in MAIN], variant, common, (0, 1, 2)),
                *make_runs([("One seed", name, name, {}) for name in REST], variant, common, (0,)),
            ),
            evaluate=(dict(config="configs/evaluate/linear.py"), dict(config="configs/evaluate/knn.py")),
            columns=(
                "mi_nats", "mi_ceiling", "knn_top1", "same_class", "same_instance", "bound_share", "bound_gap",
                "images_per_second",
            ),
            figure=("linear", "knn", "mi_nats", "same_class", "bound_share"),
        )
    )  # fmt: skip
