"""MoCo with ball negatives: the closest tenth of the queue, without an upper cut.

The ball begins as the whole queue and shrinks to its closest tenth linearly over the first half of training. A small
ball around an embedding that means nothing yet would stop learning. A ball is an upper set, so the objective is at
most InfoNCE whatever the critic: it bounds mutual information throughout. Results of Wu et al. 2020 and 2021 for
MoCo: unknown.

Recipes of the paper: :paper_cifar10, :paper_cifar100, :paper_stl10 and :paper_imagenet, as the code of Wu et al. 2021
has them for the first three: ResNet-18 with the 7x7 stem, temperature .07, SGD at .03, a tenth of it from 68 % and a
hundredth from 83 % of 200 epochs, a queue of 65,536, and the views of instance discrimination at 224 pixels, which
its configs leave at the default. Its config without the ring has a queue of 4,096; here all three have the same.
It shuffles keys on one device, to no effect, so batch statistics are of the whole batch here.
`mi_contrast.methods.papers` gives each value's source.

Differences from the released code: those of configs/ring_moco.py.

Variants: :digits (default, data shipped with the package, a tiny network; about 4 minutes on two cores), :cifar10_small
(a ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
The queue of :cifar10 has 4,096 rows: with 65,536, more than the whole set of 50,000 images, every image would be in the
queue once or more.
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods import papers
from mi_contrast.methods.recipes import recipe
from mi_contrast.methods.skeletons import make_queue_method

PAPER = "Wu et al. 2020"


def get_config(variant="digits"):
    base = recipe(variant, papers.RING)
    config = base.config
    config.model.norm.groups = base.norm_groups
    support = dict(kind="ball", lower=linear(0.0, 0.90, end=0.5))
    config.method = make_queue_method(support, base.queue_temperature, base.queue_size, base.target_momentum)
    return config
