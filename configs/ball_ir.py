"""Ball discrimination: instance discrimination against draws from the closest part of the bank.

Row of the papers (Wu et al. 2020): figures unknown. The ball begins as the whole bank and narrows to its closest
tenth over the first half of training; as many draws as `ir` has.

Drawing is there to reproduce the papers' k. It saves nothing: the whole ball, support=ball, takes less time and its
value has less variance.

Deviations from the released code: the anchor's own row is left out of its candidates (`self_row=True` keeps it); draws
are k in the mean, Poisson, so that they don't depend on how the bank is cut over devices; the bank is written after
the optimiser's step, not before; where an example comes twice in a batch the last one is kept; views are MoCo v2's
where the variant says so; learning rate by cosine. The released
ball takes a tenth of the batch size, not of the bank (25 rows); this one takes a tenth of the bank.

Variants: :digits (default; embedded data, about 12 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators). On :digits an example is a
frame, so that its background tells it apart as well as its digit; a row of the bank can't share one and redraw the
other. Expect nats, and no digit.
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods.recipes import pair_with_itself, recipe
from mi_contrast.methods.skeletons import make_bank_method


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    pair_with_itself(config)
    ball = dict(kind="ball", lower=linear(0.0, 0.90, end=0.5))
    support = dict(kind="drawn", k=base.num_draws, of=ball)
    config.method = make_bank_method(support, base.bank_temperature, base.bank_start)
    return config
