"""MoCo v1 and v2: InfoNCE against every key of the queue.

Results of the released code on ImageNet, linear top-1, ResNet-50, 200 epochs: v1 60.8 +- .2 (He et al. 2020), v2 67.5
+- .1 (Chen et al. 2020). Linear top-1 of Wu et al. 2021 with ResNet-18 (recalled): CIFAR-10 83.1, CIFAR-100 59.1,
STL-10 61.8, ImageNet 52.8.

:imagenet has MoCo v2's own settings. With the views `policies.moco_v1(size)`, a linear head and temperature .07 it is
v1.

Recipes of the paper: :paper_cifar10, :paper_cifar100, :paper_stl10 and :paper_imagenet, as the code of Wu et al. 2021
has them for the first three: ResNet-18 with the 7x7 stem, temperature .07, SGD at .03, a tenth of it from 68 % and a
hundredth from 83 % of 200 epochs, a queue of 65,536, and the views of instance discrimination at 224 pixels, which
its configs leave at the default. Its config without the ring has a queue of 4,096; here all three have the same.
It shuffles keys on one device, to no effect, so batch statistics are of the whole batch here.
`mi_contrast.methods.papers` gives each value's source.

Differences from the released code: keys of the anchor's own example are not candidates. Rows of the queue that are
not yet written are no candidates either; the released queue begins with random unit vectors. The cosine of the
learning rate is per step, not per epoch. Batch statistics are global, with keys permuted over groups where
`model.norm.groups` is above 1 (released: shuffled over devices).

Variants: :digits (default, data shipped with the package, a tiny network; about 4 minutes on two cores), :cifar10_small
(a ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
The queue of :cifar10 has 4,096 rows: with 65,536, more than the whole set of 50,000 images, every image would be in the
queue once or more.
"""

from mi_contrast.methods import papers
from mi_contrast.methods.recipes import recipe
from mi_contrast.methods.skeletons import make_queue_method

PAPER = "He et al. 2020"


def get_config(variant="digits"):
    base = recipe(variant, papers.RING)
    config = base.config
    config.model.norm.groups = base.norm_groups
    support = dict(kind="all")
    config.method = make_queue_method(support, base.queue_temperature, base.queue_size, base.target_momentum)
    return config
