"""Ring discrimination: instance discrimination against draws from a band of the bank, neither easy nor closest.

Row of the paper (Wu et al. 2021, linear top-1, ResNet-18, recalled): CIFAR-10 81.2 with `ir`, 83.9 with the ring;
ImageNet 43.2 and 48.4. The band begins as the easiest 90 % and ends as ranks 90 to 99 %, half way; as many draws as
`ir` has.

Drawing is there to reproduce the papers' k. It saves nothing: the whole ring, support=ring, takes less time and its
value has less variance.

Deviations from the released code: the anchor's own row is left out of its candidates (`self_row=True` keeps it); draws
are k in the mean, Poisson, so that they don't depend on how the bank is cut over devices; the bank is written after
the optimiser's step, not before; where an example comes twice in a batch the last one is kept; views are MoCo v2's
where the variant says so; learning rate by cosine. The shipped
configs leave the annealing off; we anneal, as the paper says.

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
    ring = dict(kind="ring", lower=linear(0.0, 0.90, end=0.5), upper=linear(0.90, 0.99, end=0.5))
    support = dict(kind="drawn", k=base.num_draws, of=ring)
    config.method = make_bank_method(support, base.bank_temperature, base.bank_start)
    return config
