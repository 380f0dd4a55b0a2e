"""MoCo with ring negatives: the band of the queue that is neither too easy nor too close to the anchor.

Row of the paper (Wu et al. 2021, linear top-1, recalled): CIFAR-10 83.1 with MoCo, 86.1 with the ring, ResNet-18,
200 epochs, a queue of 65,536 at temperature .07.

The band. Percentiles run from least (0) to most similar (1). The released code counts fractions from the top: an outer
set of 1, narrowing to .1 linearly over the first half of training, less its own nearest tenth. Here that is
lower 0 -> .90 and upper .90 -> .99: it begins as the 90 % easiest candidates and ends as ranks 90 to 99 %.

Deviations from the released code:
  - the shipped configs leave every annealing flag off and train with the final band from the first step; we anneal,
    as the paper says;
  - early in annealing the band leaves out the closest candidates only, and the objective is not a bound on mutual
    information: `bound_share` and `bound_gap` in the log say when it is one, and `mi_nats` is measured apart;
  - keys of the anchor's own example are left out of its candidates; the released queue doesn't know them;
  - unwritten rows of the queue are invalid; the released queue begins with random unit vectors;
  - band sizes are rounded to the nearest rank, not down (5,899 of 65,536 where the release has 5,898);
  - learning rate by cosine, not by steps at 68 and 83 % of training; temperature and queue as the variant says.

Variants: :digits (default; embedded data, tiny network, about 4 minutes on 2 cores), :cifar10_small (ResNet-18 of
width 16, 5 to 10 minutes on 2 cores), :cifar10 (200 epochs, for an accelerator), :imagenet (ResNet-50, for a pod).
The queue of :cifar10 is 4,096: the released 65,536 is more than the whole set (50,000 images), so that every image
would be in the queue once or more, its own older keys the hardest of its negatives.

Pairs of :digits are two frames that share the digit instance and nothing else by intent; plain crops of one frame also
share its background, which is easier to tell by, and the digit is lost (--config.data.shared='()' shows it).
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods.recipes import recipe
from mi_contrast.methods.skeletons import make_queue_method


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    config.model.norm.groups = base.norm_groups
    support = dict(kind="ring", lower=linear(0.0, 0.90, end=0.5), upper=linear(0.90, 0.99, end=0.5))
    config.method = make_queue_method(support, base.queue_temperature, base.queue_size, base.target_momentum)
    return config
