"""Words as stores keep them: stems as numbers, and the weight a text gives each of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import blake2b

from llm_memory_plugins.ranking import DEFAULT

TERMS = 1_000_000_000
"""A term is a number below this and above 0: the dimensions of pgvector's `sparsevec`."""
MOST = 15_000
"""Distinct terms of a part at most: a `sparsevec` holds 16,000. Those that come first count."""

_PIVOT = 50.0  # content words


@lru_cache(maxsize=65_536)
def term(stem: str) -> int:
    """The number of a stem, the same everywhere. Among 100,000 stems, 1 in 10,000 shares its number with another."""
    return int.from_bytes(blake2b(stem.encode(), digest_size=8).digest()) % (TERMS - 1) + 1


def postings(counts: Mapping[str, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Terms of a text, ascending, and how often each stands in it: at most 32,767 times, the largest `smallint`.

    Args:
        counts: Its stems, in the order in which they come first.
    """
    numbered: dict[int, int] = {}
    for stem, count in list(counts.items())[:MOST]:
        number = term(stem)
        numbered[number] = min(numbered.get(number, 0) + count, 32_767)
    ordered = sorted(numbered.items())
    return tuple(number for number, _ in ordered), tuple(count for _, count in ordered)


def weights(counts: Iterable[int], length: int) -> list[float]:
    """What each term adds to the BM25 score of a text, in units of its idf times k1 + 1: between 0 and 1.

    A store chooses candidates by these and may write them down, so the mean length they are relative to is fixed: that
    of all texts changes with every one that comes. `ranking.rank` scores the candidates by the mean that holds.

    Args:
        counts: How often each term stands in the text.
        length: Content words in the text.
    """
    slow = DEFAULT.k1 * (1 - DEFAULT.b + DEFAULT.b * length / _PIVOT)
    return [count / (count + slow) for count in counts]
