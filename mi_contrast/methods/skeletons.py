"""Rows that several configs share but for a support, a form or a temperature: what `config.method` is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mi_contrast.core.schedules import Schedule

Words = Mapping[str, Any]


def make_bank_method(
    support: Words, temperature: float, start: str, momentum: float = 0.0, **bank: Any
) -> dict[str, Any]:
    """Each example against a support of a bank of one row an example, its own row the positive.

    Source: Wu et al. 2018; momentum 0 is Wu et al. 2020 and 2021.
    """
    term = dict(
        anchor="query",
        positive="row",
        pool="bank",
        support=support,
        form="softmax",
        temperature=temperature,
        weight=1.0,
    )
    bank = dict(momentum=momentum, start=start, **bank)
    return dict(views="two_crops", target="none", pools=dict(bank=bank), terms=(term,))


def make_queue_method(support: Words, temperature: float, queue_size: int, momentum: Schedule) -> dict[str, Any]:
    """Each example's query against a support of a queue of keys, by a network that follows the other one.

    Source: He et al. 2020 (MoCo).
    """
    term = dict(
        anchor="query",
        positive="key",
        pool="queue",
        support=support,
        form="softmax",
        temperature=temperature,
        weight=1.0,
    )
    return dict(
        views="two_crops",
        target="ema",
        momentum=momentum,
        pools=dict(queue=dict(size=queue_size)),
        terms=(term,),
    )


def make_batch_method(support: Words, form: Words | str, temperature: float) -> dict[str, Any]:
    """Both views of an example against this step's other examples, the two directions averaged.

    Source: Chen et al. 2020 (SimCLR).
    """
    term = dict(pool="in_batch", support=support, form=form, temperature=temperature, weight=0.5)
    return dict(
        views="two_crops",
        target="none",
        pools=dict(in_batch=dict(views=("query", "key"))),
        terms=(dict(anchor="query", positive="key", **term), dict(anchor="key", positive="query", **term)),
    )


def make_split_batch_method(support: Words, temperature: float) -> dict[str, Any]:
    """Each view of a split against this step's other examples of the other view, the two directions averaged.

    Source: Tian et al. 2020 (Contrastive Multiview Coding), its candidates those of Chen et al. 2020 (SimCLR).
    """
    term = dict(support=support, form="softmax", temperature=temperature, weight=0.5)
    return dict(
        views="channels",
        target="none",
        pools=dict(
            of_first=dict(kind="in_batch", views=("first",)), of_second=dict(kind="in_batch", views=("second",))
        ),
        terms=(
            dict(anchor="first", positive="second", pool="of_second", **term),
            dict(anchor="second", positive="first", pool="of_first", **term),
        ),
    )


def make_split_bank_method(support: Words, temperature: float, start: str) -> dict[str, Any]:
    """Each view of a split against a support of the other's bank, the two directions averaged.

    Source: Tian et al. 2020 (Contrastive Multiview Coding), its bank momentum.
    """
    term = dict(positive="row", support=support, form="softmax", temperature=temperature, weight=0.5)
    return dict(
        views="channels",
        target="none",
        pools=dict(
            of_first=dict(kind="bank", momentum=0.5, start=start, takes="first"),
            of_second=dict(kind="bank", momentum=0.5, start=start, takes="second"),
        ),
        terms=(dict(anchor="first", pool="of_second", **term), dict(anchor="second", pool="of_first", **term)),
    )
