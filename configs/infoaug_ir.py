"""InfoAug with instance discrimination. This is configs/infoaug.py:ir/VARIANT as a config of its own.

The usual branch is that of configs/ir.py. The second branch has its own bank, with one row per patch that stores query
embeddings. The positive of a query is its twin's view. The query's own row and its twin's row are not negatives.
configs/infoaug.py describes the rest.

Variants: those of configs/ir.py.
"""

from mi_contrast.methods.two_branches import over

PAPER = "Chen and Yang 2025"


def get_config(variant="digits"):
    return over("ir", variant)
