"""InfoAug: beside the two views of a patch, the patch and its twin in a space of their own, over a method of two crops.

The variant names the method and the method's variant: --config=configs/infoaug.py:simclr/digits is over
configs/simclr.py:digits. A variant alone, such as :digits (the default), is over configs/ring_moco.py. Any method of
two crops will do, among them moco, ring_moco, ball_moco, ir, ball_ir, ring_ir, la, simclr, hard_simclr, dcl, moco_v3
and nnclr; methods of channels and of jigsaws are refused. The run directory has - where the variant has /.

Chen and Yang 2025, "Mutual Information guided Visual Contrastive Learning", take from the first frame of a clip the
patch whose motion tells most about a patch's own motion: its twin. A second branch takes the two as a positive pair,
beside the usual branch. They report that twins do better than patches taken at random. The paper's figures, code and
most of its details are unknown to us. What follows is our reading:

  twin      the patch of the clip with the largest mutual information of motion, if that is more than chance gives the
            best of so many; otherwise a patch is its own twin (`python -m mi_contrast.pairs` says how)
  branches  one backbone; the usual pair through the method's head, patch and twin through a second head of its kind,
            against a pool of their own: a second queue takes twins, a second bank takes queries, a second batch holds
            queries and twins in both directions
  weights   1 and 1 (over ring_moco, the second is --config.method.terms.1.weight); support and temperature are those of
            the method in both branches

Unknown, and chosen here: whether the branches share heads, pools or the backbone, what the second weighs, which
methods it was joined to, batch, rate and length of training, and how crops of a twin are made (here as the query's
are).

Controls: --config.data.partner=random, near (in space), alike (in appearance) or self. They have the patches with a
twin in common: where no twin was accepted, a patch is its own partner under every control.

Data: --config.data.name=pairs:FOLDER, made by `python -m mi_contrast.pairs`; runs/pairs/digits by default where the
method's variant is digits (patches of moving digits, a tiny network, about 6 minutes on two cores), runs/pairs/clips
elsewhere. In code, `methods.two_branches.with_twins` adds the branch to a config.
"""

from mi_contrast.core.config import package_configs
from mi_contrast.core.errors import UserError
from mi_contrast.methods.two_branches import over

PAPER = "Chen and Yang 2025"


def get_config(variant="digits"):
    method, slash, sizes = variant.rpartition("/")
    if "/" in method or not sizes or (slash and not method):
        raise UserError(f"variant {variant!r} is not METHOD/VARIANT", fix="write one such as simclr/digits")
    if not slash and (package_configs() / f"{variant}.py").is_file():
        raise UserError(
            f"{variant!r} is a method, not a variant", fix=f"name its variant too, such as {variant}/digits"
        )
    return over(method or "ring_moco", sizes)
