"""SimCLR: two views of a batch, every other example of it a candidate.

Results of Chen et al. 2020, released code: ImageNet linear top-1 69.1, ResNet-50, 1,000 epochs; CIFAR-10 about 91,
ResNet-18.

Recipes of the paper: :paper_cifar10 (ResNet-18 with the small stem, batches of 512, jitter of strength .5 and no
blur, temperature .5) and :paper_imagenet (ResNet-50, batches of 4,096, temperature .1), both 1,000 epochs by LARS
with 10 epochs of warm-up and a head of three layers with batch norm, on images in [0, 1]. The learning rate is 1.0
and .3 for 256 images, times batch / 256. The head of the first version has two layers, and its paper a weight decay
of 1e-6 (recalled) where the released commands have 1e-4. For the other sets other papers give SimCLR as they compare
with it: :paper_cifar100 is that of Khosla et al. 2020 (70.7; ResNet-50, batches of 1,024, SGD at .5 on a loss that is
scaled by temperature / .07), :paper_stl10 that of Robinson et al. 2021 and Chuang et al. 2020 (80.15; ResNet-50 at 32
pixels, batches of 256, Adam at .001, 400 epochs). `mi_contrast.methods.papers` gives each value's source.

Differences from the released code: the two directions are averaged, not added. Candidates are the other examples of
this step over all devices, both views: 2B - 2 of them, and the positive. The variants have their own optimiser and a
head without batch norm (released: LARS and three layers with batch norm). Crops are bilinear. The variants normalise
pixels by the data's mean and deviation (released: [0, 1] as they are), and have jitter of strength 1 and blur on
small images too. The last batch norm of the head has no scale.

Variants: :digits (default, data shipped with the package; about 5 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
"""

from mi_contrast.methods import papers
from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.methods.skeletons import make_batch_method
from mi_contrast.views.policies import simclr

PAPER = "Chen et al. 2020"


def get_config(variant="digits"):
    base = recipe(variant, papers.SIMCLR)
    config = base.config
    if variant not in papers.SIMCLR:
        set_views(config, simclr)
    config.method = make_batch_method(dict(kind="all"), "softmax", base.batch_temperature, base.objective_weight)
    return config
