"""InfoAug over instance discrimination: configs/infoaug.py:ir/VARIANT under a name of its own.

The usual branch is that of configs/ir.py. The second has its own bank with one row for each patch, which takes
queries. The positive of a query is its twin's view; its own row and its twin's are no candidates. Everything else:
configs/infoaug.py.

Variants: those of configs/ir.py.
"""

from mi_contrast.methods.two_branches import over


def get_config(variant="digits"):
    return over("ir", variant)
