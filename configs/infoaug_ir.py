"""InfoAug over instance discrimination: the usual branch is configs/ir.py's; the second has a bank of its own, one row
a patch, which takes queries; a query's positive is its twin's view, and its own row and its twin's are no candidates.

What InfoAug says, what is known of it and what is our reading: configs/infoaug.py.

Data: --config.data.name=pairs:FOLDER, made by python -m mi_contrast.pairs. Controls: --config.data.partner.
Variants: as configs/infoaug.py.
"""

from mi_contrast.methods.two_branches import over


def get_config(variant="digits"):
    return over("ir", variant)
