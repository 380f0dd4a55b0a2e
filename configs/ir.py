"""Instance discrimination: each example against k others of a bank that holds one row for each example.

The objective is a softmax over the positive and 4,095 uniform draws, and the bank's momentum is 0, as Wu et al. 2020
and 2021 train it. Wu et al. 2018 have binary NCE, form=dict(kind='binary', momentum=1.), and momentum .5.

Linear top-1 of Wu et al. 2021 with ResNet-18 (recalled): CIFAR-10 81.2, CIFAR-100 60.4, STL-10 61.4, ImageNet 43.2.

Recipes of the paper: :paper_cifar10, :paper_cifar100, :paper_stl10 and :paper_imagenet, as the code of Wu et al. 2021
has them for the first three: ResNet-18 with the 7x7 stem on views of 224 pixels, temperature .07, SGD at .03, a tenth
of it from 68 % and a hundredth from 83 % of 200 epochs. `mi_contrast.methods.papers` gives each value's source.

The number of draws is k on average (Poisson), so that it does not depend on how the bank is divided over devices.
Drawing follows the papers and saves nothing: the whole bank, support=dict(kind='all'), takes less time and has less
variance and a higher ceiling.

Differences from the released code: the anchor's own row is not a candidate (self_row=True makes it one). The bank is
written after the optimiser's step, not before, and keeps the last of an example that occurs twice in a batch. The
variants have the views of MoCo v2 and a cosine learning rate; the recipes of the paper have the released views and
steps. The first rows of the bank are of unit length; Wu et al. 2018 do not normalise them.

Variants: :digits (default, data shipped with the package; about 12 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators). On
:digits an example is a frame. Its background tells it apart as well as its digit does, and a bank has one row for each
example, so the background cannot be redrawn: expect nats, but no digit.
"""

from mi_contrast.methods import papers
from mi_contrast.methods.recipes import pair_with_itself, recipe
from mi_contrast.methods.skeletons import make_bank_method

PAPER = "Wu et al. 2018"


def get_config(variant="digits"):
    base = recipe(variant, papers.RING)
    config = base.config
    pair_with_itself(config)
    support = dict(kind="drawn", k=base.num_draws, of=dict(kind="all"))
    config.method = make_bank_method(support, base.bank_temperature, base.bank_start)
    return config
