"""MoCo with ball negatives: the closest tenth of the queue, and no upper cut.

Row of the papers (Wu et al. 2020, 2021): no figure known for MoCo.

The ball begins as the whole queue and shrinks to its closest tenth linearly over the first half of training: a small
ball around an embedding that means nothing yet would stop learning. A ball is an upper set, so the objective is at
most InfoNCE whatever the critic: a bound on mutual information throughout.

Deviations from the released code: those of configs/ring_moco.py.

Variants: :digits (default; embedded data, about 4 minutes on 2 cores), :cifar10_small (5 to 10 minutes on 2 cores),
:cifar10, :imagenet. The queue of :cifar10 is 4,096: 65,536 is more than the whole set.
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods.recipes import recipe
from mi_contrast.methods.skeletons import make_queue_method


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    config.model.norm.groups = base.norm_groups
    support = dict(kind="ball", lower=linear(0.0, 0.90, end=0.5))
    config.method = make_queue_method(support, base.queue_temperature, base.queue_size, base.target_momentum)
    return config
