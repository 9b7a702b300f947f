"""What a `VectorIndex` and `EmbeddingQueue` is measured against: the same in dicts, by brute force.

Slow, in this process alone, and plain enough to be believed. It is an index itself, so tests can use it as one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from llm_memory_plugins.codec import dumps
from llm_memory_plugins.errors import Conflict
from llm_memory_plugins.filters import matcher, plain
from llm_memory_plugins.lexicon import weights
from llm_memory_plugins.ranking import idf
from llm_memory_plugins.records import (
    Corpus,
    Entry,
    IndexStats,
    Part,
    Passage,
    Pool,
    Probe,
    Record,
    Row,
    Unembedded,
    Where,
)
from llm_memory_plugins.types import Receipt

if TYPE_CHECKING:
    from numpy.typing import NDArray

Key = tuple[str, int]
"""Names a part in every store alike: its record's id, and its place in it."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is kept of a user for BM25: parts, the sum of their lengths, and in how many of them each term stands."""

    parts: int
    length: int
    holding: Mapping[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class StoredPart:
    """A part in its place. `number` counts all parts ever stored, so a lower one is older."""

    number: int
    part: Part
    position: int
    vectors: Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class StoredRecord:
    """A record and its parts."""

    record: Record
    tokenizer: str
    parts: tuple[StoredPart, ...]

    @property
    def thread(self) -> str:
        """What its parts are neighbours in; empty for nothing."""
        if self.record.session_id is not None:
            return f"s{self.record.session_id}"
        return f"r{self.record.id}" if len(self.parts) > 1 else ""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A part and how well it answers a probe.

    Attributes:
        row: As a store returns it.
        record: What `Pool.record` says of it.
        embedder: Whose vector it was compared by; None where it has none to compare.
        words: Its BM25 score with fixed mean length; 0 where it holds no term.
    """

    key: Key
    row: Row
    record: Record
    embedder: str | None
    words: float


class VectorModel:
    """The ports `VectorIndex` and `EmbeddingQueue` over dicts."""

    def __init__(self) -> None:
        self._users: dict[str, dict[str, StoredRecord]] = {}
        self._numbers = 0

    async def put(self, user_id: str, entries: Sequence[Entry]) -> tuple[Record, ...]:
        """See `VectorIndex.put`."""
        held = dict(self._users.get(user_id, {}))  # what a conflict leaves as it was
        stored = tuple(self._put(held, user_id, entry) for entry in entries)
        self._users[user_id] = held
        return stored

    async def match(self, user_id: str, probe: Probe) -> Pool:
        """See `VectorIndex.match`."""
        judged = self.judge(user_id, probe)
        found = around(judged, {key for ranking in rankings(judged) for _, key in ranking[: probe.limit]})
        chosen = [each for each in judged if each.key in found]
        records = {each.row.id: each.record for each in chosen}
        return Pool(
            rows=tuple(each.row for each in chosen),
            corpus=self.corpus(user_id, probe.terms),
            speakers=self.speakers(user_id),
            embedders=self.embedders(user_id),
            record=lambda row: records[row.id],
        )

    async def page(
        self, user_id: str, where: Where, *, after: str | None = None, limit: int = 100
    ) -> tuple[Record, ...]:
        """See `VectorIndex.page`."""
        records = sorted((stored.record for stored in self._allowed(user_id, where)), key=lambda record: record.id)
        return tuple(record for record in records if after is None or record.id > after)[:limit]

    async def delete(self, user_id: str, where: Where) -> Receipt:
        """See `VectorIndex.delete`."""
        going = self._allowed(user_id, where)
        for stored in going:
            del self._users[user_id][stored.record.id]
        return Receipt({"records": len(going), "parts": sum(len(stored.parts) for stored in going)})

    async def count(self, user_id: str, where: Where) -> int:
        """See `VectorIndex.count`."""
        return len(self._allowed(user_id, where))

    async def stats(self, user_id: str | None = None) -> IndexStats:
        """See `VectorIndex.stats`."""
        users = self._users if user_id is None else (user_id,)
        parts = [part for user in users for _, part in self._parts(user)]
        return IndexStats(
            records=sum(len(self._users.get(user, {})) for user in users),
            parts=len(parts),
            pending=sum(not part.vectors for part in parts),
            embedders=Counter(name for part in parts for name in part.vectors),
        )

    async def pending(
        self,
        embedder: str | None = None,
        *,
        user_id: str | None = None,
        after: Unembedded | None = None,
        limit: int = 256,
    ) -> tuple[Unembedded, ...]:
        """See `EmbeddingQueue.pending`."""
        found = [
            Unembedded(user, part.number, _text(stored.record, part.part))
            for user in (sorted(self._users) if user_id is None else (user_id,))
            for stored, part in self._parts(user)
            if (embedder not in part.vectors if embedder else not part.vectors)
        ]
        return tuple(
            each for each in found if after is None or (each.user_id, each.part) > (after.user_id, after.part)
        )[:limit]

    async def fill(self, embedder: str, vectors: Sequence[tuple[Unembedded, NDArray[np.float32]]]) -> int:
        """See `EmbeddingQueue.fill`."""
        filled = 0
        users = {waiting.user_id for waiting, _ in vectors}
        there = {(user, found[1].number): found for user in users for found in self._parts(user)}
        for waiting, vector in vectors:
            found = there.pop((waiting.user_id, waiting.part), None)
            if found and embedder not in found[1].vectors:
                self._revise(waiting.user_id, *found, {**found[1].vectors, embedder: vector})
                filled += 1
        return filled

    async def retire(self, embedder: str, *, user_id: str | None = None) -> int:
        """See `EmbeddingQueue.retire`."""
        retired = 0
        for user in self._users if user_id is None else (user_id,):
            for stored, part in self._parts(user):
                if embedder in part.vectors:
                    self._revise(user, stored, part, {embedder: part.vectors[embedder]})
                    retired += len(part.vectors) - 1
        return retired

    # --- what tests ask besides

    def statistics(self, user_id: str) -> Statistics:
        """Counted from the parts."""
        parts = [part.part for _, part in self._parts(user_id)]
        holding = Counter(term for part in parts for term in part.terms)
        return Statistics(len(parts), sum(part.length for part in parts), holding)

    def corpus(self, user_id: str, terms: Sequence[int]) -> Corpus:
        """As `match` returns it."""
        known = self.statistics(user_id)
        mean = known.length / known.parts if known.parts else 0.0
        return Corpus(known.parts, mean, tuple(known.holding.get(term, 0) for term in terms))

    def speakers(self, user_id: str) -> tuple[str, ...]:
        """As `match` returns them."""
        return tuple(sorted({stored.record.speaker for stored in self._users.get(user_id, {}).values()} - {""})[:100])

    def embedders(self, user_id: str) -> tuple[str, ...]:
        """As `match` returns them, in alphabetical order."""
        return tuple(sorted({name for _, part in self._parts(user_id) for name in part.vectors}))

    def judge(self, user_id: str, probe: Probe) -> list[Judged]:
        """Every part that may be found, the oldest first."""
        rarity = dict(zip(probe.terms, idf(self.corpus(user_id, probe.terms)).tolist(), strict=True))
        allowed = {stored.record.id for stored in self._allowed(user_id, probe.where)}
        return [
            _judged(stored, part, probe, rarity) for stored, part in self._parts(user_id) if stored.record.id in allowed
        ]

    # ---

    def _put(self, held: dict[str, StoredRecord], user_id: str, entry: Entry) -> Record:
        given, known = entry.record, held.get(entry.record.id)
        if given.revision and (known is None or known.record.revision != given.revision):
            raise Conflict("the record is not there in this revision")
        if known is None:
            record, parts = replace(given, user_id=user_id, revision=1), self._placed(held, entry, None)
        elif _same(known.record, given) and (not given.revision or given.created_at == known.record.created_at):
            record, parts = known.record, _with_vectors(known, entry)
        else:
            record = replace(given, user_id=user_id, revision=known.record.revision + 1)
            stays = (known.record.content, known.record.session_id) == (given.content, given.session_id)
            stays = stays and _spans(known) == [(part.start, part.stop) for part in entry.parts]
            parts = _with_vectors(known, entry) if stays else self._placed(held, entry, known)
        held[record.id] = StoredRecord(record, entry.tokenizer, parts)
        return record

    def _placed(
        self, held: Mapping[str, StoredRecord], entry: Entry, known: StoredRecord | None
    ) -> tuple[StoredPart, ...]:
        """New parts: at the place of the old ones when there are as many in the same session, else at its end."""
        session, first = entry.record.session_id, 0
        if session is not None:
            first = 1 + max(
                (part.position for each in held.values() if each.record.session_id == session for part in each.parts),
                default=-1,
            )
            if known and known.record.session_id == session and len(known.parts) == len(entry.parts):
                first = known.parts[0].position
        self._numbers += len(entry.parts)
        return tuple(
            StoredPart(
                self._numbers - len(entry.parts) + place,
                replace(part, vector=None),
                first + place,
                {} if part.vector is None else {entry.embedder: part.vector},
            )
            for place, part in enumerate(entry.parts)
        )

    def _parts(self, user_id: str) -> list[tuple[StoredRecord, StoredPart]]:
        found = [(stored, part) for stored in self._users.get(user_id, {}).values() for part in stored.parts]
        return sorted(found, key=lambda pair: pair[1].number)

    def _revise(
        self, user_id: str, stored: StoredRecord, part: StoredPart, vectors: Mapping[str, NDArray[np.float32]]
    ) -> None:
        now = self._users[user_id][stored.record.id]
        parts = tuple(replace(each, vectors=vectors) if each.number == part.number else each for each in now.parts)
        self._users[user_id][stored.record.id] = replace(now, parts=parts)

    def _allowed(self, user_id: str, where: Where) -> list[StoredRecord]:
        fits = matcher(where.filter) if where.filter is not None else lambda _: True  # pyright: ignore
        return [
            stored
            for stored in self._users.get(user_id, {}).values()
            if (where.ids is None or stored.record.id in where.ids)
            and (where.session_id is None or stored.record.session_id == where.session_id)
            and (where.source is None or stored.record.source == where.source)
            and (where.since is None or stored.record.created_at >= where.since)
            and (where.until is None or stored.record.created_at < where.until)
            and fits(plain(stored.record.metadata))
        ]


def rankings(judged: Iterable[Judged]) -> list[list[tuple[float, Key]]]:
    """Scores and keys, best first, older first where they are equal: by each embedder, and by words."""
    scores: dict[str | None, list[tuple[float, Key]]] = {}
    for each in judged:
        if each.embedder is not None:
            scores.setdefault(each.embedder, []).append((each.row.cosine, each.key))
        if each.words > 0:
            scores.setdefault(None, []).append((each.words, each.key))
    return [sorted(ranking, key=lambda pair: -pair[0]) for ranking in scores.values()]


def around(judged: Iterable[Judged], chosen: set[Key]) -> set[Key]:
    """These parts and those up to two places from each in its session or record."""
    by_key = {each.key: each.row for each in judged}
    places = {(row.session, row.position): key for key, row in by_key.items() if row.session}
    rows = [by_key[key] for key in chosen if by_key[key].session]
    near = {places.get((row.session, row.position + step)) for row in rows for step in (-2, -1, 1, 2)}
    return chosen | {key for key in near if key is not None}


def _judged(stored: StoredRecord, part: StoredPart, probe: Probe, rarity: Mapping[int, float]) -> Judged:
    record, held = stored.record, dict(zip(part.part.terms, part.part.counts, strict=True))
    shares = dict(zip(part.part.terms, weights(part.part.counts, part.part.length), strict=True))
    embedder = next((name for name, _ in probe.vectors if name in part.vectors), None)
    cosine = math.nan if embedder is None else float(dict(probe.vectors)[embedder] @ part.vectors[embedder])
    text, place = _text(record, part.part), part.number - stored.parts[0].number
    passage = None
    if len(stored.parts) > 1:
        passage = Passage(place, part.part.start, part.part.stop, text)
    row = Row(
        id=str(part.number),
        text=text,
        cosine=cosine,
        counts=tuple(held.get(term, 0) for term in probe.terms),
        length=part.part.length,
        tokens=part.part.tokens,
        session=stored.thread,
        position=part.position,
        speaker=record.speaker,
        created_at=record.created_at,
        telling=part.part.telling,
        importance=record.importance,
        record=record.id,
        tokenizer=stored.tokenizer,
    )
    found = replace(record, content=text, passage=passage) if passage else record
    words = sum(rarity[term] * shares.get(term, 0.0) for term in rarity)
    return Judged((record.id, place), row, found, embedder, words)


def _same(held: Record, given: Record) -> bool:
    names = ("content", "session_id", "source", "role", "name", "importance")
    if any(getattr(held, name) != getattr(given, name) for name in names):
        return False
    return dumps(dict(held.metadata)) == dumps(dict(given.metadata))


def _spans(stored: StoredRecord) -> list[tuple[int, int]]:
    return [(part.part.start, part.part.stop) for part in stored.parts]


def _with_vectors(known: StoredRecord, entry: Entry) -> tuple[StoredPart, ...]:
    """The parts with the vectors they lack, if the entry's are the same stretches."""
    if _spans(known) != [(part.start, part.stop) for part in entry.parts]:
        return known.parts
    return tuple(
        held if given.vector is None else replace(held, vectors={entry.embedder: given.vector, **held.vectors})
        for held, given in zip(known.parts, entry.parts, strict=True)
    )


def _text(record: Record, part: Part) -> str:
    return record.content[part.start : part.stop]
