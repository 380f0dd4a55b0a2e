"""What do two views share? Pairs of frames of moving digits that share the digit, the position, the background, or any
two or all of them; what is left is drawn anew.

The toy of Tian et al. 2020 (InfoMin): the best views depend on the task, and where the background is shared it pushes
out everything else. Its figures are recalled and not compared; orderings are. The paper holds ten frames against a
later one; here a frame is held against a frame, and a shared digit is the same handwritten digit.

Every row is SimCLR's: a batch of 256, the tiny network of four convolutions, its 64 pooled features. The supervised
rows are supervised contrast by the label of one factor, a ceiling of the same network and loss; each is judged on all
three tasks, as the rest are.

Variants: :digits (default; embedded data, 600 steps, three seeds, 20 to 30 minutes a seed for all ten rows on 2 cores),
:tiny (three rows for a dozen steps, to see that it works).
"""

from itertools import combinations

from ml_collections import ConfigDict

from mi_contrast.core.errors import unknown
from mi_contrast.studies.settings import OFTEN, runs

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
            runs=runs(rows, "digits", {**common, **OFTEN}, seeds),
            evaluate=tuple(
                dict(config="configs/evaluate/linear.py", changes={"data.label": factor}) for factor in FACTORS
            ),
            columns=("mi_nats", "mi_ceiling", "alignment", "uniformity", "images_per_second"),
            figure=(*(f"linear-{factor}" for factor in FACTORS), "mi_nats"),
        )
    )
