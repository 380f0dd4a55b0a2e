"""Fresh networks on the views of a generator that was learned before, and stays as it is: contrastive multiview coding
against the batch.

Give the run that learned it, or its export: --config.generator.start_from=runs/learn_views-digits. Row of the paper:
see configs/learn_views.py. Of a generator of another form set model.split and views.split as that run has them; a run
that differs is refused with what to set.

Variants: :digits (default; embedded data, 8 to 18 minutes on 2 busy cores), :cifar10_small (two ResNet-18 of width 8, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators).
"""

from mi_contrast.methods.recipes import GENERATOR, make_split_config


def get_config(variant="digits"):
    return make_split_config(variant, GENERATOR)
