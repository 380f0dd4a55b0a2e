"""InfoAug over MoCo with ring negatives: beside two views of a patch, the patch and its twin, in a space of their own.

Row of the paper (Chen and Yang 2025, "Mutual Information guided Visual Contrastive Learning"): its figures, its code
and most of its details are not known to us. What it says: of the patches of a clip's first frame, the one whose motion
tells most about a patch's own is its twin; a second branch takes the two as a positive pair, beside the usual branch;
twins do better than patches taken at random. What follows is our reading.

  twin      of the patches of its clip, the one of largest mutual information of motion, where that is more than chance
            gives the best of so many; a patch without one is its own twin (python -m mi_contrast.pairs, which says how)
  branches  one backbone; the usual pair through the head of configs/ring_moco.py, patch and twin through a second head
            of the same kind, against a queue of its own, which takes twins
  weights   1 and 1 (--config.method.terms.1.weight), ring and temperature those of the row, in both branches

Not known, and chosen here: whether heads, pools or the backbone are shared, the weight of the branch, the frameworks it
was joined to, batch, rate and length of training, and how crops of a twin are made (here as the query's).

Controls, by one word: --config.data.partner=random, near (in space), alike (in appearance) or self. They have the
patches that have a twin in common: where no twin was accepted, a patch is its own partner under every word.

Data: --config.data.name=pairs:FOLDER, FOLDER made by python -m mi_contrast.pairs (default runs/pairs/digits of :digits,
runs/pairs/clips of the others). Any row of two crops takes a second branch: `methods.two_branches.with_twins`; those
over SimCLR and instance discrimination are configs/infoaug_simclr.py and configs/infoaug_ir.py.

Variants: :digits (default; patches of embedded clips, tiny network, about 6 minutes on 2 cores), :cifar10_small
(ResNet-18 of width 16), :cifar10, :cifar100, :stl10, :imagenet (sizes for accelerators).
"""

from mi_contrast.methods.two_branches import over


def get_config(variant="digits"):
    return over("ring_moco", variant)
