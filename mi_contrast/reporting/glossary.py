"""The words of a page that a newcomer may not know, and their explanations, which show on hover and on a tap.

The glossary of the documentation, docs/start/glossary.md, has the same explanations word for word.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

WORDS = {
    "nat": "The unit of information here. 1 nat = 1.44 bits. Two views that share n nats tell apart about e to the n "
    "images: 0 nats none, 4.6 nats a hundred.",
    "ceiling": "The largest value that a number can reach, whatever the network. InfoNCE with 1,023 negatives can not "
    "exceed log 1,024 = 6.93 nats.",
    "ring": "The negatives whose similarity to the anchor lies between two percentiles: harder than most, and not so "
    "similar that they are likely to show the same thing.",
    "bound": "A lower bound is at most the true value on average: the true mutual information may be more, not less.",
    "InfoNCE": "A lower bound on mutual information: how well a positive is told from negatives, in nats.",
    "support": "The candidates that serve as negatives, out of the pool of all candidates.",
    "pool": "All candidates that an anchor is compared with: a queue, a bank, or the rest of the batch.",
    "anchor": "The view whose positive is looked for among candidates.",
    "positive": "The other view of the same example: what the anchor should be similar to.",
    "negative": "A view of another example: what the anchor should be less similar to.",
    "kNN": "Nearest neighbours: an image takes the class of the most similar training images. Nothing is fitted.",
    "linear probe": "A linear classifier on the frozen features.",
    "held out": "Not trained on: a fixed part of the training split, a twentieth or more, that the network never sees.",
    "95 % interval": "Where the true accuracy lies if the images are a random sample: 19 of 20 such intervals hold it.",
}
_FORMS = {word.lower(): word for word in WORDS} | {
    "nats": "nat", "bounds": "bound", "anchors": "anchor", "positives": "positive", "negatives": "negative",
    "held-out": "held out", "95 % intervals": "95 % interval",
}  # fmt: skip
_PATTERN = re.compile(
    r"(?<![\w-])(" + "|".join(re.escape(form) for form in sorted(_FORMS, key=len, reverse=True)) + r")(?![\w-])",
    re.IGNORECASE,
)


def explain(text: str) -> Markup:
    """Returns text for a page in which the first occurrence of each word of `WORDS` carries its explanation."""
    seen: set[str] = set()

    def mark(match: re.Match[str]) -> str:
        word = _FORMS[match[0].lower()]
        if word in seen:
            return match[0]
        seen.add(word)
        return f'<span class="word" tabindex="0" data-tip="{escape(WORDS[word])}">{match[0]}</span>'

    return Markup(_PATTERN.sub(mark, str(escape(text))))
