"""Contrastive multiview coding against draws from the part of the other channel's bank that is closest to the anchor.

The ball begins as the whole bank and shrinks to its closest tenth over the first half of training. It has as many
draws as configs/cmc.py. Results of the paper, Wu et al. 2020: unknown.

Recipes of the paper: :paper_cifar10, :paper_cifar100, :paper_stl10 and :paper_imagenet. What Wu et al. 2021 set for
channels is unknown but for their ResNet-18 and temperature .07 (recalled). All else is the code of Tian et al. 2020:
networks of half width with the 7x7 stem, a linear head, flips alone on crops of .2 of the area or more (.08 on
ImageNet), 4,096 draws, batches of 128, SGD at .03 and a tenth of it from each of the epochs 120, 160 and 200 of 240,
and the two directions added. That it is run on CIFAR and STL-10 at 224 pixels is our choice.
`mi_contrast.methods.papers` gives each value's source.

The number of draws is k on average (Poisson), so that it does not depend on how the bank is divided over devices.
Drawing follows the papers and saves nothing: the whole ball, support=ball, takes less time and has less variance.

Differences from the released code: in the variants the two directions are averaged, not added, which halves the step
under SGD. The own row is not a candidate of its anchor. The banks are written after the optimiser's step. The first
convolution has half the width too. The released binary NCE is form=dict(kind='binary', momentum=1.).

Variants: :digits (default, data shipped with the package; about 18 minutes on two busy cores), :cifar10_small (two
ResNet-18 of width 8; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators). On
:digits an example is a frame: see configs/ir.py. Other splits: ydbdr, ycbcr, rgb (`recipes.set_split`).
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods import papers
from mi_contrast.methods.recipes import make_split_bank_config

PAPER = "Wu et al. 2020"


def get_config(variant="digits"):
    ball = dict(kind="ball", lower=linear(0.0, 0.90, end=0.5))
    return make_split_bank_config(variant, papers.CMC, ball)
