"""InfoAug over SimCLR: the usual branch is configs/simclr.py's, the second holds queries against twins, in both
directions, every other query and twin of the batch a candidate.

What InfoAug says, what is known of it and what is our reading: configs/infoaug.py. The own patch and its twin are no
candidates of the second branch; in the first a twin is one more example of the batch.

Data: --config.data.name=pairs:FOLDER, made by python -m mi_contrast.pairs. Controls: --config.data.partner.
Variants: as configs/infoaug.py.
"""

from mi_contrast.methods.two_branches import over


def get_config(variant="digits"):
    return over("simclr", variant)
