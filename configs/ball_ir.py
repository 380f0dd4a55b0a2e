"""Ball discrimination: instance discrimination against draws from the part of the bank that is closest to the anchor.

The ball begins as the whole bank and shrinks to its closest tenth over the first half of training. It has as many
draws as configs/ir.py. The sizes and the annealing of Wu et al. 2020 are unknown; the tenth and the half are those
that the code of Wu et al. 2021 has for its ring. Results of the paper: unknown.

Recipes of the paper: :paper_cifar10, :paper_cifar100, :paper_stl10 and :paper_imagenet, as the code of Wu et al. 2021
has them for the first three: ResNet-18 with the 7x7 stem on views of 224 pixels, temperature .07, SGD at .03, a tenth
of it from 68 % and a hundredth from 83 % of 200 epochs. The paper is Wu et al. 2020, whose code has a linear head and
a constant learning rate. `mi_contrast.methods.papers` gives each value's source.

The number of draws is k on average (Poisson), so that it does not depend on how the bank is divided over devices.
Drawing follows the papers and saves nothing: the whole ball, support=ball, takes less time and has less variance.

Differences from the released code: the anchor's own row is not a candidate (self_row=True makes it one). The bank is
written after the optimiser's step, not before, and keeps the last of an example that occurs twice in a batch. The
variants have the views of MoCo v2 and a cosine learning rate; the recipes of the paper have the released views and
steps. The released ball holds a tenth of the batch size, 25 rows; this one holds a tenth of the bank.

Variants: :digits (default, data shipped with the package; about 12 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators). On
:digits an example is a frame. Its background tells it apart as well as its digit does, and a bank has one row for each
example, so the background cannot be redrawn: expect nats, but no digit.
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods import papers
from mi_contrast.methods.recipes import pair_with_itself, recipe
from mi_contrast.methods.skeletons import make_bank_method

PAPER = "Wu et al. 2020"


def get_config(variant="digits"):
    base = recipe(variant, papers.RING)
    config = base.config
    pair_with_itself(config)
    ball = dict(kind="ball", lower=linear(0.0, 0.90, end=0.5))
    support = dict(kind="drawn", k=base.num_draws, of=ball)
    config.method = make_bank_method(support, base.bank_temperature, base.bank_start)
    return config
