"""Chooses what a summary says: passages by how much they tell per character, each said in few words.

1. A message is taken apart into clauses, and each clause is shortened (`telegraphic`). A long message becomes several
   passages.
2. Each passage is rated from its form (`salience`). A passage gives up its least telling clauses, but never so many
   that less than `FAITHFUL` of its content words are left: below that it would no longer say what was said.
3. Passages are taken greedily by rate per cost while they fit, and one that repeats what was taken counts for less.
   Greedy choice by gain per cost, with gains that only shrink, is the method of Lin & Bilmes (2010), "Multi-document
   summarization via budgeted maximization of submodular functions"; the lazy queue is Minoux's (1978).
4. Room that is left over gives the clauses back to the passages that were cut.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from llm_memory_plugins.anchor_patterns import spans
from llm_memory_plugins.salience import Reader
from llm_memory_plugins.telegraphic import Clause, join, parse, protect
from llm_memory_plugins.text import split_speaker

__all__ = ["FAITHFUL", "Line", "choose", "compress"]

FAITHFUL = 2 / 3
"""Share of a passage's content words that its short form keeps at least."""
_LONG = 400
"""A message whose short form is longer, in characters, is said in several passages."""
_PASSAGE = 240
_FENCED = re.compile(r"^[ \t]*(```|~~~).*?(?:^[ \t]*\1[^\n]*$|\Z)", re.MULTILINE | re.DOTALL)
SPREAD = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """A chosen statement.

    Attributes:
        source: Index of the message it was made from.
        text: What it says, with its speaker.
        rate: What it was chosen by.
    """

    source: int
    text: str
    rate: float


@dataclass(frozen=True, slots=True)
class _Passage:
    source: int
    brief: str
    whole: str
    content: frozenset[str]
    rate: float


def compress(turns: Sequence[str], max_chars: int) -> str:
    """A summary of at most `max_chars` characters, one statement a line, in the order of the turns.

    Args:
        turns: Messages like "Ann: I moved to Oslo in May", oldest first.
        max_chars: Budget, line breaks included.
    """
    chosen = choose(turns, budget=max_chars + 1, cost=lambda line: len(line) + 1)
    return "\n".join(line.text for line in chosen)


def choose(
    turns: Sequence[str], *, budget: int, cost: Callable[[str], int], weights: Sequence[float] | None = None
) -> list[Line]:
    """The statements worth keeping, in the order of the turns.

    Args:
        turns: Messages, or lines of finer summaries, oldest first.
        budget: What all lines may cost together.
        cost: What one line costs.
        weights: For each turn how much more than others it is worth; 1 for all when left out.
    """
    passages = list(_passages(turns, weights or [1.0] * len(turns)))
    costs = [max(1, cost(passage.brief)) for passage in passages]
    taken, left = _take(passages, costs, budget)
    said = {index: passages[index].brief for index in taken}
    for index in taken:  # the best first
        more = cost(passages[index].whole) - costs[index]
        if 0 <= more <= left:
            said[index] = passages[index].whole
            left -= more
    return [Line(passages[i].source, said[i], passages[i].rate) for i in sorted(said)]


def _take(passages: Sequence[_Passage], costs: Sequence[int], budget: int) -> tuple[list[int], int]:
    """Indexes of the passages to say, the best first, and what is left of the budget."""
    queue = [(-passage.rate / costs[i], i, 0) for i, passage in enumerate(passages) if passage.brief]
    heapq.heapify(queue)
    taken: list[int] = []
    said: set[str] = set()
    while queue:
        _, index, seen = heapq.heappop(queue)
        if costs[index] > budget:
            continue
        if seen < len(taken):
            # Rated before the last choices: what they said too is worth less now. Gains only shrink, so a passage
            # that is still ahead of the queue is the best one.
            gain = passages[index].rate * _news(passages[index].content, said) / costs[index]
            if queue and -gain > queue[0][0]:
                heapq.heappush(queue, (-gain, index, len(taken)))
                continue
        taken.append(index)
        said |= passages[index].content
        budget -= costs[index]
    return taken, budget


def _news(content: frozenset[str], said: set[str]) -> float:
    """1 for a passage of which nothing was said yet, near 0 for one of which everything was."""
    return 0.05 + 0.95 * (1 - len(content & said) / max(1, len(content)))


def _passages(turns: Sequence[str], weights: Sequence[float]) -> Iterator[_Passage]:
    called = _called(turns)
    reader = Reader()
    for source, (turn, weight) in enumerate(zip(turns, weights, strict=True)):
        speaker, body = split_speaker(turn)
        prose = _FENCED.sub("\n", body)
        body = prose if prose.strip() else body
        parsed = parse(protect(body, ((start, end) for start, end, _ in spans(body))), called)
        prefix = f"{speaker}: " if speaker else ""
        parts = list(_split(parsed))
        for part in parts:
            # A message is asked about once or twice, however long it is: its passages share that.
            rate = reader.rate(speaker, part) * weight / len(parts)
            brief, whole = join(_essence(part)), join(part)
            if brief:
                content = frozenset[str]().union(*(clause.content for clause in part))
                yield _Passage(source, prefix + brief, prefix + whole, content, rate)


def _called(turns: Sequence[str]) -> frozenset[str]:
    """The names by which those who speak may be called: "alexandra", and "alex" for short."""
    names = {split_speaker(turn)[0].lower() for turn in turns}
    firsts = {name.split()[0] for name in names if name}
    return frozenset(names | {first[:size] for first in firsts for size in range(3, len(first) + 1)})


def _split(parsed: Sequence[Clause]) -> Iterator[list[Clause]]:
    """Passages of a few sentences where the whole is long."""
    if sum(len(clause.text) + 2 for clause in parsed) <= _LONG:
        yield list(parsed)
        return
    part: list[Clause] = []
    size = 0
    for clause in map(_cut, parsed):
        if part and size + len(clause.text) > _PASSAGE:
            yield part
            part, size = [], 0
        part.append(clause)
        size += len(clause.text) + 2
    if part:
        yield part


def _cut(clause: Clause) -> Clause:
    """Ends a clause that nothing divides, such as a page without a full stop, behind its first words."""
    if len(clause.text) <= _PASSAGE:
        return clause
    head = clause.text[:_PASSAGE]
    return replace(clause, text=head.rpartition(" ")[0] or head)


def _essence(part: Sequence[Clause]) -> list[Clause]:
    """The clauses that tell the most for their length, and enough of them to be faithful.

    A sentence gives up clauses from its end alone, so that what is left of it still reads.
    """
    holders = Counter(word for clause in part for word in clause.kept)
    content = frozenset[str]().union(*(clause.content for clause in part))
    spare = len(holders) - FAITHFUL * len(content)
    kept = set(range(len(part)))
    worth = list(map(_worth, part))
    for index in range(1, len(part)):
        if part[index].sentence == part[index - 1].sentence:
            worth[index] = min(worth[index], worth[index - 1])
    for index in sorted(kept, key=lambda i: (worth[i], -i)):
        goes_on = index + 1 in kept and part[index + 1].sentence == part[index].sentence
        alone = sum(holders[word] == 1 for word in part[index].kept)
        if alone <= spare and len(kept) > 1 and not goes_on:
            spare -= alone
            kept.remove(index)
            holders.subtract(part[index].kept)
    return [part[index] for index in sorted(kept)]


def _worth(clause: Clause) -> float:
    """How much a clause tells per character."""
    told = len(clause.kept) + 3 * clause.protected
    return (0.3 if clause.question else 1.0) * told / (len(clause.text) + 2)
