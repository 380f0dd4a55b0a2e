"""MoCo v1 and v2: InfoNCE against every key of the queue.

Row of the papers (He et al. 2020; Chen et al. 2020; released code's table, ImageNet linear top-1, ResNet-50, 200
epochs): v1 60.8 +- .2, v2 67.5 +- .1. With the views `policies.moco_v1(size)`, a linear head and temperature .07 this
row is v1; as it stands it is v2.

Deviations from the released code: keys of the anchor's own example are left out of its candidates; unwritten rows of
the queue are invalid, not random unit vectors; learning rate by cosine per step, not per epoch; batch statistics are
global, with keys permuted over groups where `model.norm.groups` is above 1 (released: shuffled over devices).

Variants: :digits (default; embedded data, about 4 minutes on 2 cores), :cifar10_small (5 to 10 minutes on 2 cores),
:cifar10, :imagenet. The queue of :cifar10 is 4,096: 65,536 is more than the whole set.
"""

from mi_contrast.methods.recipes import recipe
from mi_contrast.methods.skeletons import make_queue_method


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    config.model.norm.groups = base.norm_groups
    support = dict(kind="all")
    config.method = make_queue_method(support, base.queue_temperature, base.queue_size, base.target_momentum)
    return config
