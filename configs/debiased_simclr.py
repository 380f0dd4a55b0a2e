"""SimCLR debiased: the expected share of false negatives is subtracted from the candidates.

Results of Chuang et al. 2020, released code, STL-10, ResNet-50, temperature .5: 84.26 with prior .1, 80.15 without.
The form is that of hard negatives with beta 0.

Differences from the released code: the two directions are averaged, not added. Candidates are the other examples of
this step over all devices, both views: 2B - 2 of them, and the positive. The variants have their own optimiser and a
head without batch norm (released: LARS and three layers with batch norm). Crops are bilinear.

Variants: :digits (default, data shipped with the package; about 5 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
"""

from mi_contrast.methods.recipes import recipe, set_views
from mi_contrast.methods.skeletons import make_batch_method
from mi_contrast.views.policies import simclr

PAPER = "Chuang et al. 2020"


def get_config(variant="digits"):
    base = recipe(variant)
    config = base.config
    set_views(config, simclr)
    config.method = make_batch_method(dict(kind="all"), dict(kind="hard", beta=0.0, prior=0.1), base.batch_temperature)
    return config
