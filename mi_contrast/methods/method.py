"""A method, read from plain data and checked once. Every mistake is named together with the nearest right word.

A method names the views, the target network, the pools and the terms. A term scores one view, the anchor, with another
one, its positive, against a support drawn from a pool; a form turns the scores into nats.

  views    two_crops (query, key), channels (first, second), jigsaw (query, key, jigsaw); also twin or local_0,
           local_1, .. where the policy makes a view of a twin or local crops
  target   the network that encodes positives and keys: ema (a moving average of the online network), same (the online
           network, without gradient) or none (the online network, with gradient)
  pools    by name; `kind` may be left out where the name is a kind:
             in_batch(views)                    this step's embeddings of these views, over all devices
             queue(size, takes)                 keys of past steps
             bank(momentum, takes, ...)         one row for each example
  terms    anchor       a view, encoded by the online network and its predictor; with look_up=POOL, the row of that
                        pool nearest to the view's embedding, without gradient
           positive     a view, encoded by the target; or 'row', the example's own row of the term's pool, a bank
           head         the head whose space the term lies in: 'head' (default) or 'twin', the second one
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mi_contrast.core.checks import check_schedule, check_word
from mi_contrast.core.config import check_section, to_plain_data
from mi_contrast.core.errors import UserError, unknown
from mi_contrast.core.schedules import Schedule
from mi_contrast.methods.words import check_form, check_support
from mi_contrast.pools import kinds
from mi_contrast.pools.protocol import Pool
from mi_contrast.views import channels, two_crops

VIEWS: Mapping[str, Mapping[str, int]] = {  # for each view the index of its source image, where the policy has no say
    "two_crops": two_crops.SOURCES,
    "channels": channels.SOURCES,
    "jigsaw": {**two_crops.SOURCES, two_crops.JIGSAW: 0},
}
TARGETS = ("ema", "same", "none")
OWN_ROW = "row"
HEAD, TWIN_HEAD = HEADS = ("head", "twin")  # the sections of config.model that describe them

METHOD_FIELDS = ("views", "target", "pools", "terms")
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
        """Whether the term is binary NCE, which carries a normaliser from step to step."""
        return self.form["kind"] == "binary"

    @property
    def closeness(self) -> str | None:
        """What candidates of the support `close` share with the anchor, 'label' or 'clusters'; None for others."""
        return self.support.get("by")


@dataclass(frozen=True)
class Method:
    """A checked method.

    Attributes:
      view_kind: the config's word for the views, a key of `VIEWS`.
      source_index: for each view the image that it is made from, an index into axis 1 of a batch's `sources`.
      pools: by name.
      heads: for each pool the head in whose space its rows lie.
    """

    view_kind: str
    source_index: Mapping[str, int]
    target: str
    momentum: Schedule
    pools: Mapping[str, Pool]
    heads: Mapping[str, str]
    terms: tuple[Term, ...]

    @property
    def has_twins(self) -> bool:
        """Whether any term lies in the space of the second head."""
        return any(term.head == TWIN_HEAD for term in self.terms)

    def own_sources(self, head: str, count: int) -> list[int]:
        """Returns the source images whose embeddings must not serve as negatives for this example.

        The twin's image is a negative like any other unless a term of this head uses the twin as a positive.

        Args:
          count: of the sources of an example, 1 or 2.
        """
        named = {view for term in self.terms if term.head == head for view in (term.anchor, term.positive)}
        views = [view for view in self.source_index if view != two_crops.TWIN_VIEW or view in named]
        return sorted({self.source_index[view] % count for view in views})

    @property
    def stateful_pools(self) -> dict[str, Pool]:
        """The pools that keep a state between steps, by name."""
        return {name: pool for name, pool in self.pools.items() if pool.network is not None}

    @property
    def clusterings(self) -> dict[str, Mapping[str, Any]]:
        """The settings of the clusterings of each pool that has them, by the pool's name."""
        settings = {name: getattr(pool, "clusters", None) for name, pool in self.pools.items()}
        return {name: clusters for name, clusters in settings.items() if clusters is not None}

    @property
    def online_views(self) -> tuple[str, ...]:
        """The views that the online network encodes, in the order in which its batch statistics pass through them."""
        views = [term.anchor for term in self.terms if term.look_up is None]
        views += self._stored_views("online")
        return _unique(views + (self._key_views if self.target == "none" else []))

    @property
    def target_views(self) -> tuple[str, ...]:
        """The views that the target encodes, without gradient; none where there is no target."""
        return () if self.target == "none" else _unique(self._key_views)

    @property
    def _key_views(self) -> list[str]:
        """Views whose embeddings are positives, are looked up, are candidates, or enter a queue."""
        views = [term.positive for term in self.terms if term.positive != OWN_ROW]
        views += [term.anchor for term in self.terms if term.look_up is not None]
        views += [view for pool in self.pools.values() for view in pool.views]
        return views + self._stored_views("target")

    def _stored_views(self, network: str) -> list[str]:
        """Returns the views whose embeddings by the network 'online' or 'target' enter a pool."""
        return [str(pool.takes) for pool in self.pools.values() if pool.network == network]

    @property
    def measured_views(self) -> tuple[str, str]:
        """The two views between which mutual information is measured."""
        first, second = tuple(self.source_index)[:2]
        return first, second


def build(method: Any, source_index: Mapping[str, int] | None = None) -> Method:
    """Returns the method that `config.method` describes.

    Args:
      method: plain data.
      source_index: the views that the policy makes, and the index of the image that each is made from
        (`Views.source_index`). By default, those that the method's word for views stands for. Terms may name views that
        only the policy makes, such as local crops.
    Raises:
      UserError: an unknown word, a value of a wrong type, a band that closes, or a view that the policy does not make.
    """
    method = to_plain_data(method, "config.method")
    check_section("config.method", method, METHOD_FIELDS, ("momentum",))
    view_kind = check_word("word in config.method.views", method["views"], VIEWS)
    source_index = _match_sources(view_kind, source_index)
    views = tuple(source_index)
    target = check_word("word in config.method.target", method["target"], TARGETS)
    if (target == "ema") != ("momentum" in method):
        problem = "has no momentum" if target == "ema" else f"has a momentum, but its target is {target!r}"
        raise UserError(f"config.method {problem}", fix="give momentum with target='ema', and nowhere else")
    if not isinstance(method["pools"], Mapping):
        raise UserError(
            f"config.method.pools is {method['pools']!r}", fix="give a dict such as dict(queue=dict(size=65536))"
        )
    pools = {name: _build_pool(name, settings, views) for name, settings in method["pools"].items()}
    if not isinstance(method["terms"], tuple) or not method["terms"]:
        raise UserError("config.method.terms is empty", fix="give at least one term")
    terms = tuple(_build_term(f"config.method.terms.{i}", term, views, pools) for i, term in enumerate(method["terms"]))
    heads = {name: _find_head(name, terms) for name in pools}
    return Method(
        view_kind=view_kind,
        source_index=source_index,
        target=target,
        momentum=check_schedule("config.method.momentum", method.get("momentum", 0.0), 0.0, 1.0),
        pools={name: _choose_view(name, pool, terms) for name, pool in pools.items()},
        heads=heads,
        terms=terms,
    )


def _match_sources(view_kind: str, source_index: Mapping[str, int] | None) -> dict[str, int]:
    """Returns the source index of each view of a method: of its kind, then of views that only the policy makes."""
    if source_index is None:
        return dict(VIEWS[view_kind])
    for name in VIEWS[view_kind]:
        if name not in source_index:
            raise unknown("view of the method", name, source_index)
    known = {name for views in VIEWS.values() for name in views}
    more = {name: source for name, source in source_index.items() if name not in known}
    return {name: source_index[name] for name in VIEWS[view_kind]} | more


def _build_pool(name: str, settings: Any, views: tuple[str, ...]) -> Pool:
    """Returns the checked pool that a section of config.method.pools describes."""
    path = f"config.method.pools.{name}"
    kind = settings.get("kind", name) if isinstance(settings, Mapping) else name
    check_word("pool in config.method.pools" if kind == name else f"kind of {path}", kind, kinds.KINDS)
    known = dataclasses.fields(kinds.KINDS[kind])  # type: ignore[arg-type]  # every kind is a dataclass
    required = [field.name for field in known if field.default is dataclasses.MISSING]
    check_section(path, settings, required, [*(field.name for field in known if field.name not in required), "kind"])
    pool = kinds.KINDS[kind](**{field: value for field, value in settings.items() if field != "kind"})
    pool.check(path)
    for view in pool.views:
        check_word(f"view in {path}.views", view, views)
    if pool.takes is not None:
        check_word(f"view in {path}.takes", pool.takes, views)
    return pool


def _build_term(path: str, term: Any, views: tuple[str, ...], pools: Mapping[str, Pool]) -> Term:
    """Returns the checked term that an item of config.method.terms describes."""
    check_section(path, term, TERM_FIELDS, ("look_up", "head"))
    name = check_word(f"pool in {path}.pool", term["pool"], pools)
    pool = pools[name]
    anchor = check_word(f"view in {path}.anchor", term["anchor"], views)
    positives = (*views, OWN_ROW) if pool.per_example else views
    positive = check_word(f"view in {path}.positive", term["positive"], positives)
    if anchor == positive:
        raise UserError(f"{path} has {anchor!r} as anchor and positive", fix=f"give two of {', '.join(views)}")
    look_up = term.get("look_up")
    if look_up is not None:
        queue = pools[check_word(f"pool in {path}.look_up", look_up, pools)]
        if queue.network is None or queue.per_example:
            raise UserError(f"{path} looks up {look_up!r}, a {kinds.find_kind(queue)}", fix="look up a queue")
    support = check_support(f"{path}.support", term["support"])
    if support.get("by") == "clusters" and not getattr(pool, "clusters", None):
        fix = "give it clusters=dict(number=..., clusterings=..., every_epochs=...), or close by label"
        raise UserError(f"{path} compares cluster labels, but pool {name!r} has no clusters", fix=fix)
    form = check_form(f"{path}.form", term["form"], support)
    if form["kind"] == "binary" and not pool.per_example:
        why = "because it needs the number of training examples"
        raise UserError(f"{path}: the form binary needs a bank, {why}", fix="take softmax, or a bank")
    return Term(
        anchor=anchor,
        positive=positive,
        pool=name,
        support=support,
        form=form,
        temperature=check_schedule(f"{path}.temperature", term["temperature"], 0.0, above=True),
        weight=check_schedule(f"{path}.weight", term["weight"], 0.0),
        look_up=look_up,
        head=check_word(f"head in {path}.head", term.get("head", HEAD), HEADS),
    )


def _choose_view(name: str, pool: Pool, terms: tuple[Term, ...]) -> Pool:
    """Returns the pool with its view set. The default is a view of the first term that uses the pool.

    It is the term's positive for a pool of the target's embeddings, and its anchor for a pool of the online network's.
    """
    if pool.network is None or pool.takes is not None:
        return pool
    for term in terms:
        if term.pool == name:
            view = term.positive if pool.network == "target" else term.anchor
            return dataclasses.replace(pool, takes=view)  # type: ignore[type-var]  # every kind is a dataclass
    raise UserError(f"config.method.pools.{name} is in no term", fix="say which view it takes: takes='key'")


def _find_head(name: str, terms: tuple[Term, ...]) -> str:
    """Returns the head in whose space a pool lies: that of the terms that score against it or look up in it."""
    heads = {term.head for term in terms if name in (term.pool, term.look_up)}
    if len(heads) > 1:
        raise UserError(f"config.method.pools.{name} has terms of both heads, which have different embedding spaces",
                        fix="give the terms of each head a pool of their own")  # fmt: skip
    return heads.pop() if heads else HEAD


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
