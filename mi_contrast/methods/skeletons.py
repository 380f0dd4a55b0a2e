"""Makers of `config.method` for methods that differ only in a support, a form, a temperature or the size of a pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mi_contrast.core.schedules import Schedule

Words = Mapping[str, Any]


def make_bank_method(
    support: Words, temperature: float, start: str, momentum: float = 0.0, **bank: Any
) -> dict[str, Any]:
    """Returns the method that scores a query against a support of a bank; the example's own row is the positive.

    Args:
      support: which rows of the bank are candidates.
      start: the bank's first rows, 'random' or 'forward'.
      momentum: weight of the old row where a row is rewritten; Wu et al. 2020 and 2021 have 0.
      bank: further fields of the bank.
    Source: Wu et al. 2018.
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
    """Returns the method that scores a query against a support of a queue of keys.

    Keys are encoded by the moving average of the network, with the momentum given.

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


def make_batch_method(support: Words, form: Words | str, temperature: float, weight: float = 1.0) -> dict[str, Any]:
    """Returns the method that scores each of two views against the batch's other examples.

    The two directions share the weight.

    Source: Chen et al. 2020 (SimCLR).
    """
    term = dict(pool="in_batch", support=support, form=form, temperature=temperature, weight=weight / 2)
    return dict(
        views="two_crops",
        target="none",
        pools=dict(in_batch=dict(views=("query", "key"))),
        terms=(dict(anchor="query", positive="key", **term), dict(anchor="key", positive="query", **term)),
    )


def make_split_batch_method(support: Words, temperature: float) -> dict[str, Any]:
    """Returns the method that scores each part of a split crop against the other part of the batch's other examples.

    The two directions are averaged.

    Source: Tian et al. 2020 (Contrastive Multiview Coding), with the candidates of Chen et al. 2020 (SimCLR).
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


def make_split_bank_method(support: Words, temperature: float, start: str, weight: float = 1.0) -> dict[str, Any]:
    """Returns the method that scores each part of a split crop against a support of the other part's bank.

    The two directions share the weight; the banks have the paper's momentum.

    Source: Tian et al. 2020 (Contrastive Multiview Coding).
    """
    term = dict(positive="row", support=support, form="softmax", temperature=temperature, weight=weight / 2)
    return dict(
        views="channels",
        target="none",
        pools=dict(
            of_first=dict(kind="bank", momentum=0.5, start=start, takes="first"),
            of_second=dict(kind="bank", momentum=0.5, start=start, takes="second"),
        ),
        terms=(dict(anchor="first", pool="of_second", **term), dict(anchor="second", pool="of_first", **term)),
    )
