"""Fresh networks on the views of a frozen generator: contrastive multiview coding against the batch.

Name the run that learned the generator, or its export: --config.generator.start_from=runs/learn_views-digits. If its
generator has another form, set model.split and views.split as that run has them; a run that differs is refused with
what to set. Results of the paper: see configs/learn_views.py.

Variants: :digits (default, data shipped with the package; about 8 to 18 minutes on two busy cores), :cifar10_small (two
ResNet-18 of width 8; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators).
"""

from mi_contrast.methods.recipes import GENERATOR, make_split_config

PAPER = "Tian et al. 2020"


def get_config(variant="digits"):
    return make_split_config(variant, GENERATOR)
