"""The page of words and the words of a report say the same."""

import re

from mi_contrast.reporting.glossary import WORDS
from tests.docs.blocks import DOCS


def read_page(text):
    """Returns the explanations of the page, on one line each, by their word."""
    blocks = text.partition(":::{glossary}\n")[2].rpartition(":::")[0].strip().split("\n\n")
    return {word: " ".join(lines.split()) for word, lines in (block.split("\n", 1) for block in blocks)}


def test_the_page_explains_every_word_of_a_report_in_the_same_words():
    text = (DOCS / "start" / "glossary.md").read_text()
    page = read_page(text)
    assert {word: page.get(word) for word in WORDS} == WORDS
    assert list(page) == sorted(page, key=str.lower), "in alphabetical order"
    assert len(re.findall(r"^[^\s:#]", text, re.M)) == len(page), "no word stands twice"


def test_a_difference_is_seen():
    text = (DOCS / "start" / "glossary.md").read_text()
    assert read_page(text.replace("1.44 bits", "1.45 bits"))["nat"] != WORDS["nat"]
