"""Contrastive multiview coding against the batch: two parts of one image, each with a network of its own.

Every other example of the batch is a candidate. The method is for comparing views: nothing in it depends on what an
example was like before, so the nats between two views, and the accuracy they lead to, are the views' own. No paper
has it. It is Tian et al. 2020 (Contrastive Multiview Coding) with the candidates of Chen et al. 2020 (SimCLR).

`views.split` and `model.split` say what divides an image, and must be equal: a colour space ('ydbdr' here; lab,
ycbcr, ypbpr, yiq, yuv, hsv, rgb), dict(kind='bands', space='rgb', sigma=1.), or a generator that was learned before
(configs/learn_views.py), then with --config.generator.start_from=ITS_RUN. views.mean and views.std are those of the
space's three channels: `python -m mi_contrast.data.statistics --space=...` prints those of a data set.

Variants: :digits (default, data shipped with the package; about 8 to 18 minutes on two busy cores), :cifar10_small (two
ResNet-18 of width 8; 5 to 10 minutes on two cores), :cifar10, :cifar100, :stl10 and :imagenet (for accelerators). On
:digits an example is a frame: see configs/ir.py.
"""

from mi_contrast.methods.recipes import make_split_config


def get_config(variant="digits"):
    return make_split_config(variant, "ydbdr")
