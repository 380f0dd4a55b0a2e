"""Instance discrimination: each example against k others of a bank that holds one row an example.

Row of the papers (Wu et al. 2018; Wu et al. 2021, linear top-1, ResNet-18, recalled): CIFAR-10 81.2, ImageNet 43.2.
Softmax over the positive and 4,095 uniform draws, bank momentum 0, as Wu et al. 2020 and 2021 train it; the original
has binary NCE (form=dict(kind='binary', momentum=1.)) and momentum .5; support=dict(kind='all') is the whole bank.

Drawing is there to reproduce the papers' k. It saves nothing: the whole bank, support=dict(kind='all'), takes less
time, its value has less variance and a higher ceiling.

Deviations from the released code: the anchor's own row is left out of its candidates (`self_row=True` keeps it); draws
are k in the mean, Poisson, so that they don't depend on how the bank is cut over devices; the bank is written after
the optimiser's step, not before; where an example comes twice in a batch the last one is kept; views are MoCo v2's
where the variant says so; learning rate by cosine. Initial rows are of unit length (Wu et al. 2018 leaves them not so).

Variants: :digits (default; embedded data, about 12 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators). On :digits an example is a
frame, so that its background tells it apart as well as its digit; a row of the bank can't share one and redraw the
other. Expect nats, and no digit.
"""

from mi_contrast.methods.recipes import pair_with_itself, recipe
from mi_contrast.methods.skeletons import make_bank_method


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    pair_with_itself(config)
    support = dict(kind="drawn", k=base.num_draws, of=dict(kind="all"))
    config.method = make_bank_method(support, base.bank_temperature, base.bank_start)
    return config
