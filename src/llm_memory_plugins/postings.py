"""What is kept of a text at write time so that it can be ranked later, alike on every store. Pure.

Costs, a text: one posting for each distinct stem (about 20 for a chat message), and three small numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from llm_memory_plugins import telegraphic
from llm_memory_plugins.salience import Reader
from llm_memory_plugins.text import content_words, word_set, words

__all__ = ["Traits", "traits"]

_FIRST = word_set("i my me mine myself we our us i'm i've i'd i'll we're we've we'd we'll ours ourselves")
_READ = 1000  # characters that tell what kind of text it is
_DULLEST = 6.0  # -log of the rate below which texts are equally dull


@dataclass(frozen=True, slots=True)
class Traits:
    """The ranking's view of a text.

    Attributes:
        counts: Its content stems and how often each stands in it: the postings of BM25.
        length: How many content words it has, with repetitions.
        telling: How likely it is to be asked about at all, 0..1, from its form alone (see `salience`).
        personal: Whether its speaker speaks of himself.
    """

    counts: Mapping[str, int]
    length: int
    telling: float
    personal: bool


def traits(text: str) -> Traits:
    """Read a text once, when it is stored; its speaker's name is no part of it. About a millisecond."""
    found = content_words(text)
    rate = Reader().rate("", telegraphic.parse(text[:_READ]))
    return Traits(
        counts=Counter(found),
        length=len(found),
        telling=1 - min(_DULLEST, max(0.0, -math.log(max(rate, 1e-9)))) / _DULLEST,
        personal=not _FIRST.isdisjoint(words(text[:_READ])),
    )
