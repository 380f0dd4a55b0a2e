"""InfoAug over SimCLR: configs/infoaug.py:simclr/VARIANT under a name of its own.

The usual branch is that of configs/simclr.py, where a twin is one more example of the batch. The second scores
queries against twins in both directions, with every other query and twin of the batch as a candidate; the own patch
and its twin are none. Everything else: configs/infoaug.py.

Variants: those of configs/simclr.py.
"""

from mi_contrast.methods.two_branches import over

PAPER = "Chen and Yang 2025"


def get_config(variant="digits"):
    return over("simclr", variant)
