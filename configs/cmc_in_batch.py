"""Contrastive multiview coding against the batch: two views of one image, a network each, every other example of the
batch a candidate.

The row with which views are compared: nothing in it depends on what an example was like before, so that the nats
between two views and the accuracy they lead to are the views' own. Row of the papers: none; Tian et al. 2020
(Contrastive Multiview Coding) with the candidates of Chen et al. 2020 (SimCLR).

What divides an image is `views.split` and `model.split`, the same of both: a colour space ('ydbdr' here; lab, ycbcr,
ypbpr, yiq, yuv, hsv, rgb), dict(kind='bands', space='rgb', sigma=1.), or a generator that was learned before
(configs/learn_views.py): then also --config.generator.start_from=ITS_RUN. views.mean and views.std are of the space's
three channels and go with it: `python -m mi_contrast.data.statistics --space=...` prints those of a set.

Variants: :digits (default; embedded data, 8 to 18 minutes on 2 busy cores), :cifar10_small (two ResNet-18 of width 8, 5
to 10 minutes on 2 cores), :cifar10, :cifar100, :stl10, :imagenet (for accelerators). On :digits an example is a frame:
see `ir`.
"""

from mi_contrast.methods.recipes import make_split_config


def get_config(variant="digits"):
    return make_split_config(variant, "ydbdr")
