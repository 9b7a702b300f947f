"""Reading a tree of summaries: which lines speak for which messages, and how they are written. Pure.

Leaves are made from messages and kept. Nodes above them are rolled up from the level below, so a detail is condensed
once a level and not once a pass, and reading a long history costs its logarithm.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from math import log

from llm_memory_plugins.budget import Item, fill
from llm_memory_plugins.ports import TokenCounter
from llm_memory_plugins.rendering import quoted, speaker
from llm_memory_plugins.text import content_words, split_speaker
from llm_memory_plugins.types import Message, Summary, SummaryLine

_WORD = 24  # characters of a word that are compared

FANOUT = 8
"""Nodes of one level that are rolled up into one of the next."""


def source_lines(messages: Sequence[Message]) -> list[SummaryLine]:
    """Messages as what a summariser reads: `Speaker: text`, one line a message."""
    return [
        SummaryLine(text=f"{speaker(m)}: {_said(m)}", seqs=(m.seq,), at=m.created_at)
        for m in messages
        if m.role != "system" and (m.content.strip() or m.tool_calls)
    ]


def _said(message: Message) -> str:
    calls = " ".join(f"[calls {call.name}({call.arguments})]" for call in message.tool_calls)
    return f"{message.content} {calls}".strip()


def grounded(lines: Sequence[SummaryLine], sources: Sequence[SummaryLine]) -> list[SummaryLine]:
    """The lines that say something their own sources say: at least one content word in common.

    What a model made up, or cites messages it was not given for, is left out.
    """
    words: dict[int, set[str]] = {}
    for source in sources:
        for seq in source.seqs:
            words.setdefault(seq, set()).update(_said_words(source))
    return [
        line
        for line in lines
        if line.seqs
        and all(seq in words for seq in line.seqs)
        and not _said_words(line).isdisjoint(set[str]().union(*(words[seq] for seq in line.seqs)))
    ]


@lru_cache(maxsize=50_000)
def _words_of(text: str) -> frozenset[str]:
    # Everybody's lines have the speakers in common. A very long word may have been cut, so its beginning counts.
    return frozenset(word[:_WORD] for word in content_words(split_speaker(text)[1]))


def _said_words(line: SummaryLine) -> frozenset[str]:
    return _words_of(line.text)


def rendered(line: SummaryLine) -> str:
    """A line as it stands in a context."""
    return f"- {quoted(line.text)}\n"


def heading(line: SummaryLine) -> str:
    """The day a line stands under."""
    return f"{line.at:%Y-%m-%d}\n"


def counted(lines: Sequence[SummaryLine], counter: TokenCounter) -> tuple[SummaryLine, ...]:
    """The lines with their tokens filled in."""
    return tuple(replace(line, tokens=counter.count(rendered(line))) for line in lines)


def in_order(lines: Sequence[SummaryLine]) -> list[SummaryLine]:
    """Lines in the order in which what they speak of was said."""
    return sorted(lines, key=lambda line: min(line.seqs))


def rollable(nodes: Sequence[Summary]) -> list[Summary]:
    """The oldest nodes of one level that are ready to be rolled up; empty when no level has enough."""
    tops = [n for n in nodes if not any(_holds(other, n) for other in nodes)]
    for level in sorted({node.level for node in tops}):
        same = sorted((n for n in tops if n.level == level), key=lambda n: n.from_seq)
        if len(same) >= FANOUT:
            return same[:FANOUT]
    return []


def finest(nodes: Sequence[Summary], counter: TokenCounter) -> list[SummaryLine]:
    """The most detailed lines there are, in order; a coarser one only for a message that no finer node covers."""
    taken: list[tuple[int, int]] = []  # ranges that finer levels speak for: sorted, and none meets another
    lines: list[SummaryLine] = []
    for level in sorted({node.level for node in nodes}):
        same = [node for node in nodes if node.level == level]
        for node in same:
            kept = [line for line in node.lines if not all(_is_within(seq, taken) for seq in line.seqs)]
            lines.extend(kept if node.tokenizer == counter.name else counted(kept, counter))
        taken = _merged([*taken, *((node.from_seq, node.to_seq) for node in same)])
    return in_order(lines)


def _is_within(seq: int, ranges: Sequence[tuple[int, int]]) -> bool:
    at = bisect_right(ranges, seq, key=lambda r: r[0]) - 1
    return at >= 0 and seq <= ranges[at][1]


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def detailed(nodes: Sequence[Summary], limit: int, counter: TokenCounter) -> list[SummaryLine]:
    """Lines that speak for everything, as detailed as `limit` tokens allow, the newest part in most detail.

    Begins with the coarsest nodes and opens them, the newest first, as long as all of it fits.
    """
    tops = [n for n in nodes if not any(_holds(other, n) for other in nodes)]
    lines = finest(tops, counter)
    for node in sorted(tops, key=lambda n: -n.from_seq):
        below = [n for n in nodes if _holds(node, n)]
        if not below:
            continue
        opened = finest([*tops, *below], counter)
        if whole_size(opened, counter) > limit:
            break
        tops, lines = [*tops, *below], opened
    return lines


def _holds(node: Summary, other: Summary) -> bool:
    return node.level > other.level and node.from_seq <= other.from_seq and other.to_seq <= node.to_seq


def choose(
    lines: Sequence[SummaryLine], budget: int, *, counter: TokenCounter, query: str = ""
) -> tuple[list[SummaryLine], list[float]]:
    """The lines worth their tokens, day headings included, and the score of each.

    A line is worth its weight; with a query, half of that and half what it or its neighbours hold of the query.
    """
    scores = [line.weight for line in lines]
    if asked := _asked(query, lines):
        own = [_matched(asked, line) for line in lines]
        around = [0.0, *own, 0.0]
        for i, line in enumerate(lines):
            scores[i] = 0.5 * line.weight + 0.5 * max(own[i], 0.5 * max(around[i], around[i + 2]))
    price = {day: counter.count(day) for day in map(heading, lines)}
    items = [
        Item(line.tokens, scores[i] ** 2 if query else scores[i], heading(line), price[heading(line)])
        for i, line in enumerate(lines)
    ]
    chosen = fill(items, budget)
    return [lines[i] for i in chosen], [scores[i] for i in chosen]


def _asked(query: str, lines: Sequence[SummaryLine]) -> dict[str, float]:
    """The words of a query and what each tells, between 0 and 1 in all: rare words more (inverse document frequency).

    Names of speakers tell little, since every line of theirs bears them, and are left out where others are left.
    """
    words = {word[:_WORD] for word in content_words(query)}
    if not words:
        return {}
    speakers = set(content_words(" ".join({split_speaker(line.text)[0] for line in lines})))
    words = words - speakers or words
    spoken = [_said_words(line) for line in lines]
    telling = {word: log(1 + len(lines) / (1 + sum(word in said for said in spoken))) for word in words}
    whole = sum(telling.values())
    return {word: value / whole for word, value in telling.items()} if whole else {}


def _matched(asked: Mapping[str, float], line: SummaryLine) -> float:
    return sum(asked.get(word, 0.0) for word in _said_words(line))


def whole_size(lines: Sequence[SummaryLine], counter: TokenCounter) -> int:
    """Tokens of all lines with their headings."""
    days = {heading(line) for line in lines}
    return sum(line.tokens for line in lines) + sum(counter.count(day) for day in days)


def under_headings(lines: Sequence[SummaryLine]) -> list[str]:
    """Rendered lines; the first of a day carries the day's heading. Days are in order even when `seq` is not."""
    written: list[str] = []
    day = ""
    for line in sorted(lines, key=lambda x: (heading(x), min(x.seqs))):
        written.append((heading(line) if heading(line) != day else "") + rendered(line))
        day = heading(line)
    return written
