"""SimCLR with ring negatives: the band of the batch that is neither too easy nor too close.

Row of the paper (Wu et al. 2021): figures unknown; their released SimCLR (deleted later) has an outer half and an
inner tenth.

Deviations from the released code: the two directions are averaged, not added; candidates are this step's other
examples over all devices, both views, 2B - 2 of them and the positive; head and optimiser as the variant has them
(released: three layers with batch norm, LARS); bilinear crops. The released ring keeps the anchor's similarity with
itself among its candidates, a constant that dominates; ours does not.

Variants: :digits (default; embedded data, about 5 minutes on 2 busy cores), :cifar10_small (ResNet-18 of width 16, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators).
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.methods.skeletons import make_batch_method
from mi_contrast.views.policies import simclr


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    set_views(config, simclr)
    ring = dict(kind="ring", lower=linear(0.0, 0.50, end=0.5), upper=linear(0.90, 0.95, end=0.5))
    config.method = make_batch_method(ring, "softmax", base.batch_temperature)
    return config
