"""MoCo with ring negatives: the band of the queue that is neither too easy nor too close to the anchor.

Linear top-1 of Wu et al. 2021 with ResNet-18, without and with the ring (recalled): CIFAR-10 83.1 and 86.1, CIFAR-100
59.1 and 61.5, STL-10 61.8 and 65.2, ImageNet 52.8 and 54.6.

Percentiles run from the least similar candidate (0) to the most similar (1). The released code counts fractions from
the top: an outer set, which narrows from 1 to .1 linearly over the first half of training, without its own nearest
tenth. Here that is lower 0 -> .90 and upper .90 -> .99: the band begins as the 90 % easiest candidates and ends as
percentiles 90 to 99.

Recipes of the paper: :paper_cifar10, :paper_cifar100, :paper_stl10 and :paper_imagenet, as the code of Wu et al. 2021
has them for the first three: ResNet-18 with the 7x7 stem, temperature .07, SGD at .03, a tenth of it from 68 % and a
hundredth from 83 % of 200 epochs, a queue of 65,536, and the views of instance discrimination at 224 pixels, which
its configs leave at the default. Its config without the ring has a queue of 4,096; here all three have the same.
It shuffles keys on one device, to no effect, so batch statistics are of the whole batch here.
`mi_contrast.methods.papers` gives each value's source.

Differences from the released code:
  - its configs leave all annealing off and train with the final band from the first step; here the band is annealed, as
    in the paper (recalled);
  - early in annealing the band leaves out only the closest candidates, and the objective is not a bound on mutual
    information: `bound_share` and `bound_gap` in the log say when it is one, and `mi_nats` is measured apart;
  - keys of the anchor's own example are not candidates; the released queue does not know whose they are;
  - rows of the queue that are not yet written are no candidates; the released queue begins with random unit vectors;
  - sizes of bands are rounded to the nearest rank, not down (5,899 of 65,536 where the release has 5,898);
  - the variants have a cosine learning rate, and their own temperature and queue.

Variants: :digits (default, data shipped with the package, a tiny network; about 4 minutes on two cores), :cifar10_small
(a ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
The queue of :cifar10 has 4,096 rows: with 65,536, more than the whole set of 50,000 images, every image would be in the
queue once or more.

Pairs of :digits are two frames that share the digit instance and nothing else by intent. Crops of one frame also
share its background, which is easier to tell by, and the digit is lost (--config.data.shared='()' shows it).
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods import papers
from mi_contrast.methods.recipes import recipe
from mi_contrast.methods.skeletons import make_queue_method

PAPER = "Wu et al. 2021"


def get_config(variant="digits"):
    base = recipe(variant, papers.RING)
    config = base.config
    config.model.norm.groups = base.norm_groups
    support = dict(kind="ring", lower=linear(0.0, 0.90, end=0.5), upper=linear(0.90, 0.99, end=0.5))
    config.method = make_queue_method(support, base.queue_temperature, base.queue_size, base.target_momentum)
    return config
