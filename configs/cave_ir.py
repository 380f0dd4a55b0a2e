"""Cave discrimination: the ring as negatives, and what is closer than the ring as more positives.

Row of the papers (Wu et al. 2020): figures unknown. The whole band takes part, since its size is |C|; with several
positives the value is no bound on mutual information.

The row begins as instance discrimination, as the papers train it, and opens the cave from a quarter of the run on: a
bank that knows nothing would call its closest tenth positives.

Deviations from the released code: the positives are candidates too, as Local Aggregation has it, and are averaged, so
that the value has the ceiling log(|C| / |P|); the release leaves them out of the denominator, sums them, and draws k
from the ring. The anchor's own row is left out of its candidates (`self_row=True` keeps it); the bank is written after
the optimiser's step, not before; where an example comes twice in a batch the last one is kept; views are MoCo v2's
where the variant says so; learning rate by cosine.

Variants: :digits (default; embedded data, about 11 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators). On :digits an example is a
frame, so that its background tells it apart as well as its digit; a row of the bank can't share one and redraw the
other. Expect nats, and no digit.
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods.recipes import pair_with_itself, recipe
from mi_contrast.methods.skeletons import make_bank_method

START = 0.25  # until then the band is the whole bank and nothing lies above it, which is the row of configs/ir.py


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    pair_with_itself(config)
    support = dict(kind="cave", lower=linear(0.0, 0.90, START, 0.5), upper=linear(1.0, 0.99, START, 0.5))
    config.method = make_bank_method(support, base.bank_temperature, base.bank_start)
    return config
