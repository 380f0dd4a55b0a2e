"""SimCLR with ring negatives: the band of the batch that is neither too easy nor too close.

Results of Wu et al. 2021 for SimCLR: unknown. Their first released code, later deleted, has an outer half and an
inner tenth.

Differences from the released code: the two directions are averaged, not added. Candidates are the other examples of
this step over all devices, both views: 2B - 2 of them, and the positive. The variants have their own optimiser and a
head without batch norm (released: LARS and three layers with batch norm). Crops are bilinear. The released ring keeps
the anchor's similarity with itself among its candidates, a constant that outweighs them; here it is no candidate.

Variants: :digits (default, data shipped with the package; about 5 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.methods.skeletons import make_batch_method
from mi_contrast.views.policies import simclr

PAPER = "Wu et al. 2021"


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    set_views(config, simclr)
    ring = dict(kind="ring", lower=linear(0.0, 0.50, end=0.5), upper=linear(0.90, 0.95, end=0.5))
    config.method = make_batch_method(ring, "softmax", base.batch_temperature)
    return config
