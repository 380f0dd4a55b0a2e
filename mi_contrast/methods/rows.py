"""Rows: a method as plain data, checked once, every mistake named with the nearest right word.

A row names the views, the target network, the pools and the terms. A term says: take this view as the anchor and that
one as its positive, score them against a support drawn from a pool, turn the scores into nats by a form, at a
temperature, and weigh the result.

  views    two_crops (query, key), channels (first, second), jigsaw (query, key, jigsaw); where the policy makes a view
           of a twin, or local crops, twin or local_0, local_1, .. too
  target   ema (a moving average), same (the same weights, no gradient) or none (the same weights, with gradient)
  pools    by name, `kind` the name itself where left out:
             in_batch(views)                    this step's embeddings of these views, over all devices
             queue(size, takes)                 keys of past steps
             bank(momentum, takes, ...)         one row an example
  terms    anchor       a view, by the online network and its predictor; with look_up=POOL, the row of that pool
                        nearest to the view's embedding, without gradient
           positive     a view, by the target; or 'row', the example's own row of the term's pool, a bank
           head         in whose space: 'head' (default), or 'twin', the second; a pool is of its terms' space
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mi_contrast.core.config import check_section, plain
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.schedules import Schedule
from mi_contrast.methods.words import form, number, support, whole, word
from mi_contrast.views import channels, two_crops

VIEWS: Mapping[str, Mapping[str, int]] = {  # each view's source where the policy does not say: an index into sources
    "two_crops": two_crops.SOURCES,
    "channels": channels.SOURCES,
    "jigsaw": {**two_crops.SOURCES, two_crops.JIGSAW: 0},
}
TARGETS = ("ema", "same", "none")
POOLS: Mapping[str, Mapping[str, Any]] = {  # fields and their defaults; a default of ... must be given
    "in_batch": {"views": ...},
    "queue": {"size": ..., "takes": None},
    "bank": {"momentum": ..., "takes": None, "start": "random", "self_row": False, "clusters": None},
}
CLUSTERS = ("number", "clusterings", "every_epochs")
STARTS = ("random", "forward")
OWN_ROW = "row"
HEAD, TWIN = HEADS = ("head", "twin")  # the sections of config.model that describe them

ROW_FIELDS = ("views", "target", "pools", "terms")
TERM_FIELDS = ("anchor", "positive", "pool", "support", "form", "temperature", "weight")


@dataclass(frozen=True)
class Term:
    """One term of the objective: weight x mean over anchors of `form` over `support` of `pool`, in nats."""

    anchor: str
    positive: str
    pool: str
    support: Mapping[str, Any]
    form: Mapping[str, Any]
    temperature: Schedule
    weight: Schedule
    look_up: str | None = None
    head: str = HEAD

    @property
    def binary(self) -> bool:
        """Whether the term carries a normaliser."""
        return self.form["kind"] == "binary"


@dataclass(frozen=True)
class Row:
    """A checked method. `source` says for each view which of the example's sources it is made from, an index into axis
    1 of `sources`; `pools` maps a pool's name to its settings, all of them, with its kind under 'kind'.
    """

    views: str
    source: Mapping[str, int]
    target: str
    momentum: Schedule
    pools: Mapping[str, Mapping[str, Any]]
    terms: tuple[Term, ...]

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """The names of the pools of a kind."""
        return tuple(name for name, pool in self.pools.items() if pool["kind"] == kind)

    @property
    def twinned(self) -> bool:
        """Whether any term is of the second head."""
        return any(term.head == TWIN for term in self.terms)

    def own(self, head: str, sources: int) -> list[int]:
        """Which of an example's sources are its own in a head's space, so that their rows are no candidates: all but
        the twin's where no term there names it, which is one more example then.
        """
        named = {view for term in self.terms if term.head == head for view in (term.anchor, term.positive)}
        views = [view for view in self.source if view != two_crops.TWIN or view in named]
        return sorted({self.source[view] % sources for view in views})

    @property
    def clustered(self) -> tuple[str, ...]:
        """The names of the banks that are clustered."""
        return tuple(name for name in self.of_kind("bank") if self.pools[name]["clusters"] is not None)

    @property
    def online_views(self) -> tuple[str, ...]:
        """The views that the online network encodes, in the order in which batch statistics pass through them."""
        own = [term.anchor for term in self.terms if term.look_up is None]
        own += [self.pools[name]["takes"] for name in self.of_kind("bank")]
        return _once(own + (self._beside if self.target == "none" else []))

    @property
    def target_views(self) -> tuple[str, ...]:
        """The views that the target encodes, without gradient; none where there is no target."""
        return () if self.target == "none" else _once(self._beside)

    @property
    def _beside(self) -> list[str]:
        views = [term.positive for term in self.terms if term.positive != OWN_ROW]
        views += [term.anchor for term in self.terms if term.look_up is not None]
        views += [view for name in self.of_kind("in_batch") for view in self.pools[name]["views"]]
        return views + [self.pools[name]["takes"] for name in self.of_kind("queue")]

    @property
    def judged(self) -> tuple[str, str]:
        """The two views between which mutual information is reported."""
        first, second = tuple(self.source)[:2]
        return first, second


def _once(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _term(at: int, term: Any, views: tuple[str, ...], pools: Mapping[str, Any]) -> Term:
    what = f"config.method.terms.{at}"
    check_section(what, term, TERM_FIELDS, ("look_up", "head"))
    pool = word(f"pool in {what}.pool", term["pool"], pools)
    rows = pools[pool]["kind"] == "bank"
    anchor = word(f"view in {what}.anchor", term["anchor"], views)
    positive = word(f"view in {what}.positive", term["positive"], (*views, OWN_ROW) if rows else views)
    if anchor == positive:
        raise UserError(f"{what} has {anchor!r} as anchor and positive", fix=f"give two of {', '.join(views)}")
    look_up = term.get("look_up")
    if look_up is not None:
        where = word(f"pool in {what}.look_up", look_up, pools)
        if pools[where]["kind"] != "queue":
            raise UserError(f"{what} looks up {where!r}, a {pools[where]['kind']}", fix="look up a queue")
    found = support(f"{what}.support", term["support"])
    if found.get("by") == "clusters" and not pools[pool].get("clusters"):
        fix = "give it clusters=dict(number=..., clusterings=..., every_epochs=...), or close by label"
        raise UserError(f"{what} is close by clusters, but pool {pool!r} has none", fix=fix)
    made = form(f"{what}.form", term["form"], found)
    if made["kind"] == "binary" and not rows:
        raise UserError(f"{what}: binary needs a bank, whose size is the data's", fix="take softmax, or a bank")
    return Term(
        anchor,
        positive,
        pool,
        found,
        made,
        number(f"{what}.temperature", term["temperature"], 0.0, above=True),
        number(f"{what}.weight", term["weight"], 0.0),
        look_up,
        word(f"head in {what}.head", term.get("head", HEAD), HEADS),
    )


def _pool(name: str, given: Any, views: tuple[str, ...]) -> dict[str, Any]:
    what = f"config.method.pools.{name}"
    kind = given.get("kind", name) if isinstance(given, Mapping) else name
    word("pool in config.method.pools" if kind == name else f"kind of {what}", kind, POOLS)
    known = POOLS[kind]
    needed = [field for field, default in known.items() if default is ...]
    check_section(what, given, needed, [*(field for field in known if field not in needed), "kind"])
    pool = {"kind": kind, **known, **given}
    if kind == "in_batch":
        if not isinstance(pool["views"], (tuple, list)) or not pool["views"]:
            raise UserError(f"{what}.views is {pool['views']!r}", fix=f"give some of {', '.join(views)}")
        for view in pool["views"]:
            word(f"view in {what}.views", view, views)
    if kind == "queue":
        whole(f"{what}.size", pool["size"])
    if kind == "bank":
        number(f"{what}.momentum", pool["momentum"], 0.0, 1.0)
        word(f"word in {what}.start", pool["start"], STARTS)
        if not isinstance(pool["self_row"], bool):
            raise UserError(f"{what}.self_row is {pool['self_row']!r}", fix="give False, or True as released")
        if pool["clusters"] is not None:
            check_section(f"{what}.clusters", pool["clusters"], CLUSTERS)
            for field in CLUSTERS:
                whole(f"{what}.clusters.{field}", pool["clusters"][field])
    if pool.get("takes") is not None:
        word(f"view in {what}.takes", pool["takes"], views)
    return pool


def _takes(name: str, pool: dict[str, Any], terms: tuple[Term, ...]) -> dict[str, Any]:
    """A queue takes its first term's positive, a bank its anchor, where the config does not say."""
    if pool["kind"] == "in_batch" or pool["takes"] is not None:
        return pool
    for term in terms:
        if term.pool == name:
            return pool | {"takes": term.positive if pool["kind"] == "queue" else term.anchor}
    raise UserError(f"config.method.pools.{name} is in no term", fix="say which view it takes: takes='key'")


def _space(name: str, terms: tuple[Term, ...]) -> str:
    """The head in whose space a pool lies: that of the terms that score against it or look up in it."""
    heads = {term.head for term in terms if name in (term.pool, term.look_up)}
    if len(heads) > 1:
        raise UserError(f"config.method.pools.{name} has terms of both heads, whose spaces are apart",
                        fix="give the terms of each head a pool of their own")  # fmt: skip
    return heads.pop() if heads else HEAD


def _sources(views: str, made: Mapping[str, int] | None) -> dict[str, int]:
    """The views of a row and their sources: those of its word, and what the policy makes beside that no word names."""
    if made is None:
        return dict(VIEWS[views])
    for name in VIEWS[views]:
        if name not in made:
            raise unknown("view of the row", name, made)
    named = {name for views_of in VIEWS.values() for name in views_of}
    return {name: made[name] for name in VIEWS[views]} | {name: at for name, at in made.items() if name not in named}


def build(method: Any, made: Mapping[str, int] | None = None) -> Row:
    """The row that `config.method` describes, over the views that a policy makes.

    Args:
      method: plain data.
      made: the policy's views and the source of each (`Views.sources`); those of the row's word where left out. Terms
        may name what it makes beside them too, such as local crops.
    Raises UserError on any unknown word, wrong type or closed band, or where the policy lacks a view of the row's word.
    """
    method = plain(method, "config.method")
    check_section("config.method", method, ROW_FIELDS, ("momentum",))
    source = _sources(word("word in config.method.views", method["views"], VIEWS), made)
    views = tuple(source)
    target = word("word in config.method.target", method["target"], TARGETS)
    if (target == "ema") != ("momentum" in method):
        said = "has no momentum" if target == "ema" else f"has a momentum, but its target is {target!r}"
        raise UserError(f"config.method {said}", fix="give momentum with target='ema', and nowhere else")
    if not isinstance(method["pools"], Mapping):
        raise UserError(
            f"config.method.pools is {method['pools']!r}", fix="give a dict such as dict(queue=dict(size=65536))"
        )
    pools = {name: _pool(name, pool, views) for name, pool in method["pools"].items()}
    if not isinstance(method["terms"], tuple) or not method["terms"]:
        raise UserError("config.method.terms is empty", fix="give at least one term")
    terms = tuple(_term(i, term, views, pools) for i, term in enumerate(method["terms"]))
    return Row(
        views=method["views"],
        source=source,
        target=target,
        momentum=number("config.method.momentum", method.get("momentum", 0.0), 0.0, 1.0),
        pools={name: _takes(name, pool, terms) | {"head": _space(name, terms)} for name, pool in pools.items()},
        terms=terms,
    )
