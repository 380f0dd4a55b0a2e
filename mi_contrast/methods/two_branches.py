"""Two branches on one backbone: the usual pair of views through one head, a patch and its twin through a second one.

Source: Chen and Yang 2025, "Mutual Information guided Visual Contrastive Learning" (InfoAug), whose second branch is
trained on patches that were chosen by the mutual information of their motion. It is not known whether the branches
share a backbone, a head or a pool, nor how they are weighed; what is here is our reading.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mi_contrast.core.config import load_config, to_plain_data
from mi_contrast.core.errors import UserError
from mi_contrast.methods.method import OWN_ROW, TWIN_HEAD
from mi_contrast.methods.recipes import map_schedule
from mi_contrast.views.two_crops import JIGSAW, LOCAL, TWIN_VIEW

PREFIX = "twins_"  # of the names of the second branch's pools


def with_twins(config: ConfigDict, weight: float = 1.0) -> None:
    """Adds a second branch to a config whose method has two crops.

    Every term is repeated for the second head. There the twin takes the place of the key, or of the example's own row
    of a bank. The pool is a second one of the same kind and size. The weight is `weight` times the term's; support,
    form and temperature are the term's. So the second queue takes twins, the second batch has queries and twins in both
    directions, and the second bank takes queries.

    The twin's view is made by the query's ops from the image that `data.partner` names. Query and key are then both
    made from the example itself, and `data.shared` is empty. The second head has the settings of the first, and no
    predictor.

    Args:
      config: with its method set; changed in place.
      weight: of the second branch relative to the first, 0 or more.
    Raises:
      UserError: a weight below 0, a method that has not just two crops, or one that has a second branch already.
    """
    views, method = to_plain_data(config.views), to_plain_data(config.method)
    check(views, method, weight)
    with config.unlocked():
        config.views = ConfigDict({**views, TWIN_VIEW: copy.deepcopy(views["query"])})
        config.model.twin = ConfigDict(to_plain_data(config.model.head))
        config.method = {
            **method,
            "pools": method["pools"] | dict(second_pool(name, pool) for name, pool in method["pools"].items()),
            "terms": (*method["terms"], *(second_term(term, weight) for term in method["terms"])),
        }
        config.data.shared, config.data.partner = (), TWIN_VIEW


def over(name: str, variant: str) -> ConfigDict:
    """Returns the config of a method and variant with a second branch, on the pair set in its default folder."""
    if variant == "folder":
        raise UserError(
            "a second branch is trained on pairs of patches from clips, which a folder of pictures has none of",
            fix="make pairs by python -m mi_contrast.pairs, or take the method alone, such as simclr:folder",
        )
    config, *_ = load_config(f"configs/{name}.py:{variant}")
    with_twins(config)
    on_pairs(config, "runs/pairs/digits" if variant == "digits" else "runs/pairs/clips")
    return config


def on_pairs(config: ConfigDict, folder: str) -> None:
    """Sets the data of a config to the patches and twins in a folder that `mi_contrast.pairs` made.

    Few clips are held out, so that only 256 pairs are measured.
    """
    config.data.name, config.data.split = f"pairs:{folder}", "train"
    config.eval.pairs = 256
    with config.unlocked():
        config.data.options = ConfigDict()


def second_term(term: Mapping[str, Any], weight: float) -> dict[str, Any]:
    """Returns the second branch's copy of a term."""
    look_up = {"look_up": PREFIX + term["look_up"]} if term.get("look_up") else {}
    return {
        **copy.deepcopy(dict(term)),
        **look_up,
        "anchor": to_twin(term["anchor"]),
        "positive": TWIN_VIEW if term["positive"] == OWN_ROW else to_twin(term["positive"]),
        "pool": PREFIX + term["pool"],
        "weight": map_schedule(term["weight"], lambda value: weight * value),
        "head": TWIN_HEAD,
    }


def second_pool(name: str, pool: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the name and the settings of the second branch's copy of a pool."""
    settings = {**copy.deepcopy(dict(pool)), "kind": pool.get("kind", name)}
    if "views" in settings:
        settings["views"] = tuple(map(to_twin, settings["views"]))
    if settings.get("takes"):
        settings["takes"] = to_twin(settings["takes"])
    return PREFIX + name, settings


def to_twin(view: str) -> str:
    """Returns the view that the second branch has in the place of a view: the twin for the key."""
    return TWIN_VIEW if view == "key" else view


def check(views: Mapping[str, Any], method: Mapping[str, Any], weight: float) -> None:
    """Raises UserError where `with_twins` cannot add a branch to a method."""
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < float("inf"):
        raise UserError(f"the weight of the second branch is {weight!r}", fix="give a number of 0 or more")
    if not method.get("terms"):
        raise UserError("config.method has no terms yet", fix="call with_twins after config.method is set")
    if TWIN_VIEW in views or any(term.get("head") == TWIN_HEAD for term in method["terms"]):
        raise UserError("the method has a second branch already", fix="call with_twins once")
    if method["views"] == "channels" or views.get("kind") != "two_crops":
        kind = method["views"] if method["views"] == "channels" else views.get("kind")
        raise UserError(f"no second branch beside views of {kind}: a twin is a whole image, seen by the one network "
                        "that sees its example", fix="take a method of two crops")  # fmt: skip
    if method["views"] == "jigsaw" or JIGSAW in views:
        raise UserError("no second branch beside a jigsaw: its head takes nine patches of an example, a twin has one",
                        fix="take a method of two crops, such as configs/moco.py")  # fmt: skip
    if LOCAL in views:
        raise UserError("the method has local crops already", fix="call with_twins before multi_crop")
