"""What of the ranked candidates goes into a context, and how it stands there. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_memory_plugins.packing import pack
from llm_memory_plugins.ports import TokenCounter
from llm_memory_plugins.ranking import Ranked
from llm_memory_plugins.records import Passage, Pool, Record
from llm_memory_plugins.rendering import record_heading, record_line
from llm_memory_plugins.types import Dropped, Piece

SOURCE = "vector_search"


@dataclass(frozen=True, slots=True)
class Recalled:
    """A choice: the records best first, the pieces in the order in which they are read, and what was left out."""

    records: tuple[Record, ...]
    pieces: tuple[Piece, ...]
    dropped: tuple[Dropped, ...]


def found(pool: Pool, item: Ranked) -> Record:
    """The record of a candidate, with its score."""
    similarity = None if math.isnan(item.row.cosine) else item.row.cosine
    return replace(pool.record(item.row), score=item.score, similarity=similarity, why=item.why)


def recall(
    pool: Pool, ranked: Sequence[Ranked], *, room: int | None, most: int | None, counter: TokenCounter
) -> Recalled:
    """Choose and render.

    Args:
        pool: Where the candidates come from.
        ranked: The candidates, best first.
        room: Tokens the pieces may take together; None for no limit.
        most: Records at most; None for no limit.
        counter: Counts tokens.
    """
    costs = [_cost(pool, item, counter) for item in ranked]
    everything = sum(costs) + len(ranked) * _HEADING
    chosen = pack(ranked, everything if room is None else room, costs, heading=_HEADING)
    chosen = chosen[:most]
    pieces = _pieces(pool, chosen, counter)
    while room is not None and chosen and sum(piece.tokens for piece in pieces) > room:
        chosen = chosen[:-1]
        pieces = _pieces(pool, chosen, counter)
    kept = {item.row.id for item in chosen}
    left = [(item, cost) for item, cost in zip(ranked, costs, strict=True) if item.row.id not in kept]
    dropped = Dropped(
        source=SOURCE,
        reason="ranked lower than what fits"
        if room is not None
        else "ranked lower than the number of results asked for",
        count=len(left),
        tokens=sum(cost for _, cost in left),
        ids=tuple(dict.fromkeys(item.row.record for item, _ in left)),
    )
    return Recalled(tuple(found(pool, item) for item in chosen), pieces, (dropped,) if left else ())


_HEADING = 8
"""Tokens of a day's heading, about; what it really takes is counted when all is rendered."""


def _cost(pool: Pool, item: Ranked, counter: TokenCounter) -> int:
    row = item.row
    return row.tokens if row.tokenizer == counter.name else counter.count(record_line(pool.record(row)))


def _pieces(pool: Pool, chosen: Sequence[Ranked], counter: TokenCounter) -> tuple[Piece, ...]:
    """The chosen ones by conversation or source and time, each day or source under a heading."""
    items = [(item, found(pool, item)) for item in chosen]
    groups: dict[tuple[str, str], list[tuple[Ranked, Record]]] = {}
    for item, record in items:
        named = "" if item.row.speaker else record.source or ""
        groups.setdefault((item.row.session if not named else "", named), []).append((item, record))
    ordered = sorted(
        groups.values(), key=lambda group: (min(record.created_at for _, record in group), min(r.id for _, r in group))
    )
    pieces: list[Piece] = []
    heading = ""
    for group in ordered:
        for item, record in sorted(group, key=_in_group):
            line = record_line(record)
            if (above := record_heading(record)) != heading:
                heading = above
                line = heading + line
            pieces.append(
                Piece(
                    text=line,
                    tokens=counter.count(line),
                    source=SOURCE,
                    score=item.score,
                    reason=reason(item),
                    ids=(record.id,),
                )
            )
    return tuple(pieces)


def _in_group(pair: tuple[Ranked, Record]) -> tuple[object, ...]:
    item, record = pair
    if item.row.session:
        return (item.row.session, item.row.position, record.id)
    return ("", record.created_at.timestamp(), record.id)


def reason(item: Ranked) -> str:
    """In words, what a text was found by: its strongest signals."""
    strongest = sorted(item.why.items(), key=lambda pair: -pair[1])[:3]
    return ", ".join(f"{_WORDS.get(name, name)} {share:.2f}" for name, share in strongest)


_WORDS = {"dense": "meaning", "lexical": "words", "dated": "date", "telling": "says something"}


def with_parent(record: Record, parent: Record) -> Record:
    """A passage with the whole text it stands in."""
    assert record.passage is not None  # noqa: S101 - only such records have parents
    start, stop = record.passage.start, record.passage.stop
    passage = Passage(record.passage.number, start, stop, parent.content[start:stop])
    return replace(record, content=parent.content, passage=passage)
