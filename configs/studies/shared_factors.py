"""What should two views share? Pairs of frames share the digit, the position, the background, or several of them.

The other factors of the two frames are independent.

This is the toy example of Tian et al. 2020 (InfoMin): the best views depend on the task, and a shared background
suppresses everything else. Its figures are recalled and not compared, only the order is. The paper pairs ten frames
with a later one. Here a frame is paired with a frame, and a shared digit is the same handwritten digit.

The method is SimCLR's with a batch of 256 and the tiny network of four convolutions, which has 64 pooled features. The
supervised runs use supervised contrast with the label of one factor, as an upper limit for the same network and loss.
Every run is judged on all three tasks.

Variants: :digits (default; data shipped with the package, 600 steps, three seeds, 20 to 30 minutes per seed for all ten
settings on 2 cores), :tiny (three settings for a dozen steps, to see that it works).
"""

from itertools import combinations

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import SAVE_OFTEN, make_runs

PAPER = "Tian et al. 2020"
FACTORS = ("digit", "position", "background")
SMALL = {
    "steps": 12, "data.batch": 32, "data.options": dict(size=32, length=2), "model.width": 8, "eval.every": 1000,
    "eval.pairs": 16, "eval.knn_bank": 64, "log.every": 4,
}  # fmt: skip
VARIANTS = {"digits": ({"steps": 600}, (0, 1, 2)), "tiny": (SMALL, (0,))}


def get_config(variant="digits"):
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    common, seeds = VARIANTS[variant]
    shared = [which for count in (1, 2, 3) for which in combinations(FACTORS, count)]
    rows = [("Shared by the two views", ", ".join(which), "simclr", {"data.shared": which}) for which in shared]
    rows += [
        ("Supervised", f"labels of {factor}", "supcon", {"data.shared": (), "data.label": factor}) for factor in FACTORS
    ]
    if variant == "tiny":
        rows = [rows[0], rows[6], rows[7]]
    return ConfigDict(
        dict(
            question=(
                "What do two views share? Frames of moving digits that share the digit, the position, the background "
                "or several of them, and what a linear classifier then reads of each."
            ),
            data_dir=None,
            steps=None,
            reference="digit",
            runs=make_runs(rows, "digits", {**common, **SAVE_OFTEN}, seeds),
            evaluate=tuple(
                dict(config="configs/evaluate/linear.py", changes={"data.label": factor}) for factor in FACTORS
            ),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=(*(f"linear-{factor}" for factor in FACTORS), "mi_nats"),
        )
    )
