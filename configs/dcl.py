"""Decoupled contrastive learning: SimCLR with the positive left out of the candidates.

The value is no bound on mutual information and has no ceiling. Results of Yeh et al. 2022: unknown.

Differences from the released code: the two directions are averaged, not added. Candidates are the other examples of
this step over all devices, both views: 2B - 2 of them, and the positive. The variants have their own optimiser and a
head without batch norm (released: LARS and three layers with batch norm). Crops are bilinear.

Variants: :digits (default, data shipped with the package; about 5 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
"""

from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.methods.skeletons import make_batch_method
from mi_contrast.views.policies import simclr

PAPER = "Yeh et al. 2022"


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    set_views(config, simclr)
    config.method = make_batch_method(dict(kind="all"), "decoupled", base.batch_temperature)
    return config
