"""Cave discrimination: negatives from a ring of the bank, and the rows that are closer than the ring as more positives.

The method begins as instance discrimination and opens the cave from a quarter of the run on, since the closest tenth of
a bank that has learned nothing are no positives. The whole band takes part: its size is the |C| of the ceiling. With
several positives the value is no bound on mutual information.

What Wu et al. 2020 call a cave is recalled, and their results and sizes are unknown; the band is that of
configs/ring_ir.py.

Recipes of the paper: :paper_cifar10, :paper_cifar100, :paper_stl10 and :paper_imagenet, as the code of Wu et al. 2021
has them for the first three: ResNet-18 with the 7x7 stem on views of 224 pixels, temperature .07, SGD at .03, a tenth
of it from 68 % and a hundredth from 83 % of 200 epochs. The paper is Wu et al. 2020, whose code has a linear head and
a constant learning rate. `mi_contrast.methods.papers` gives each value's source.

Differences from the released code: the anchor's own row is not a candidate (self_row=True makes it one). The bank is
written after the optimiser's step, not before, and keeps the last of an example that occurs twice in a batch. The
variants have the views of MoCo v2 and a cosine learning rate; the recipes of the paper have the released views and
steps. The positives are candidates too, as in local aggregation, and are averaged, so that the value has the ceiling
log(|C| / |P|). The release leaves them out of the denominator, sums them, and draws k candidates from the ring.

Variants: :digits (default, data shipped with the package; about 11 minutes on two busy cores), :cifar10_small (a
ResNet-18 of width 16; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators). On
:digits an example is a frame. Its background tells it apart as well as its digit does, and a bank has one row for each
example, so the background cannot be redrawn: expect nats, but no digit.
"""

from mi_contrast.core.schedules import linear
from mi_contrast.methods import papers
from mi_contrast.methods.recipes import pair_with_itself, recipe
from mi_contrast.methods.skeletons import make_bank_method

PAPER = "Wu et al. 2020"
START = 0.25  # until then the band is the whole bank and nothing lies above it, which is the method of configs/ir.py


def get_config(variant="digits"):
    base = recipe(variant, papers.RING)
    config = base.config
    pair_with_itself(config)
    support = dict(kind="cave", lower=linear(0.0, 0.90, START, 0.5), upper=linear(1.0, 0.99, START, 0.5))
    config.method = make_bank_method(support, base.bank_temperature, base.bank_start)
    return config
