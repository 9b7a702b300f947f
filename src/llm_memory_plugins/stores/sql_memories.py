"""Vector memory over the functions of `sql/`, once for every transport.

What a call says and hears is JSON as text, in which vectors, and weights of words, are literals of pgvector's types.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from llm_memory_plugins.codec import dumps, loads
from llm_memory_plugins.filters import jsonpath, plain
from llm_memory_plugins.lexicon import TERMS, weights
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
from llm_memory_plugins.stores.sql_transport import Transport
from llm_memory_plugins.types import Receipt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector: TypeAlias = NDArray[np.float32]

_MOST = 2**31 - 1  # of an integer argument
_RETIRED = 10_000  # vectors at once: a call has a deadline
_NOTHING: dict[str, Any] = {
    **{"passages": 0, "length": 0, "speakers": (), "embedders": ()},
    **dict.fromkeys(("rows", "cosines", "counts")),
}


class SqlVectorIndex:
    """The `VectorIndex` and `EmbeddingQueue` ports over the functions of `sql/`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def put(self, user_id: str, entries: Sequence[Entry]) -> tuple[Record, ...]:
        """See `VectorIndex.put`."""
        if not entries:
            return ()
        records = [_record_row(entry) for entry in entries]
        rows = [row for place, entry in enumerate(entries, start=1) for row in _part_rows(place, entry)]
        parts = [part for entry in entries for part in entry.parts]
        answer = await self._call(
            "put_memories",
            user_id,
            repeatable=not any(entry.record.revision for entry in entries),  # it would meet what it has written
            records=json.dumps(records, ensure_ascii=False),  # numbers in metadata may be too long for others
            parts=orjson.dumps(rows).decode(),
            weights=orjson.dumps([_words(part) for part in parts]).decode(),
            vectors=orjson.dumps([None if part.vector is None else _vector(part.vector) for part in parts]).decode(),
        )
        return tuple(
            replace(entry.record, user_id=user_id, revision=revision, created_at=_moment(created_at))
            for entry, (revision, created_at) in zip(entries, answer, strict=True)
        )

    async def match(self, user_id: str, probe: Probe) -> Pool:
        """See `VectorIndex.match`."""
        answer = await self._call(
            "match_memories",
            user_id,
            probes=json.dumps([(name, _vector(vector)) for name, vector in probe.vectors]),
            terms=json.dumps(probe.terms),
            where=_asked(probe.where),
            limit=min(probe.limit, _MOST),
        )
        return _pool(user_id, probe, answer)

    async def page(
        self, user_id: str, where: Where, *, after: str | None = None, limit: int = 100
    ) -> tuple[Record, ...]:
        """See `VectorIndex.page`."""
        rows = await self._call("page_memories", user_id, where=_asked(where), after=after, limit=min(limit, _MOST))
        return tuple(_record(user_id, row) for row in rows)

    async def delete(self, user_id: str, where: Where) -> Receipt:
        """See `VectorIndex.delete`."""
        return Receipt(await self._call("delete_memories", user_id, where=_asked(where)))

    async def count(self, user_id: str, where: Where) -> int:
        """See `VectorIndex.count`."""
        return await self._call("count_memories", user_id, where=_asked(where))

    async def stats(self, user_id: str | None = None) -> IndexStats:
        """See `VectorIndex.stats`."""
        return IndexStats(**await self._call("memory_stats", user_id))

    async def pending(
        self,
        embedder: str | None = None,
        *,
        user_id: str | None = None,
        after: Unembedded | None = None,
        limit: int = 256,
    ) -> tuple[Unembedded, ...]:
        """See `EmbeddingQueue.pending`."""
        rows = await self._call(
            "pending_embeddings",
            user_id,
            embedder=embedder,
            after_user=after and after.user_id,
            after=after.part if after else 0,
            limit=min(limit, _MOST),
        )
        return tuple(Unembedded(*row) for row in rows)

    async def fill(self, embedder: str, vectors: Sequence[tuple[Unembedded, Vector]]) -> int:
        """See `EmbeddingQueue.fill`."""
        rows = [{"user_id": of.user_id, "passage": of.part, "vector": _vector(vector)} for of, vector in vectors]
        users = {of.user_id for of, _ in vectors}
        arguments = {"embedder": embedder, "embeddings": orjson.dumps(rows).decode()}
        named = users.pop() if len(users) == 1 else None
        return await self._transport.call("fill_embeddings", arguments, user_id=named)

    async def retire(self, embedder: str, *, user_id: str | None = None) -> int:
        """See `EmbeddingQueue.retire`. Many are removed in several steps; what is interrupted goes on the next time."""
        retired = 0
        while found := await self._call("retire_embeddings", user_id, embedder=embedder, limit=_RETIRED):
            retired += found
        return retired

    async def _call(self, function: str, user_id: str | None, *, repeatable: bool = True, **arguments: Any) -> Any:
        named = {"user_id": user_id, **arguments}
        return await self._transport.call(function, named, user_id=user_id, repeatable=repeatable)


def _record_row(entry: Entry) -> dict[str, Any]:
    record = entry.record
    names = ("id", "content", "session_id", "source", "role", "name", "importance", "revision")
    return {
        **{name: getattr(record, name) for name in names},
        "metadata": plain(record.metadata),
        "extra": dumps(dict(record.metadata), field="metadata"),
        "created_at": record.created_at.isoformat(),
        "tokenizer": entry.tokenizer,
        "spans": [(part.start, part.stop) for part in entry.parts],
    }


def _part_rows(place: int, entry: Entry) -> list[dict[str, Any]]:
    record, several = entry.record, len(entry.parts) > 1
    thread = f"s{record.session_id}" if record.session_id is not None else f"r{record.id}" if several else None
    return [
        {
            "record": place,
            "id": record.id,
            "number": number,
            "start": part.start,
            "stop": part.stop,
            "text": record.content[part.start : part.stop] if several else None,
            "thread": thread,
            "length": part.length,
            "tokens": part.tokens,
            "telling": part.telling,
            "terms": part.terms,
            "counts": part.counts,
            "awaits": part.vector is None,
            "embedder": entry.embedder,
        }
        for number, part in enumerate(entry.parts)
    ]


def _vector(vector: Vector) -> str:
    return orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _words(part: Part) -> str:
    pairs = zip(part.terms, part.counts, strict=True)
    return "{" + ",".join([f"{term}:{_weight(count, part.length)}" for term, count in pairs]) + f"}}/{TERMS}"


@lru_cache(maxsize=65_536)
def _weight(count: int, length: int) -> str:
    return f"{weights((count,), length)[0]:.7g}"


def _asked(where: Where) -> str | None:
    if where.everything:
        return None
    asked = {
        "ids": where.ids,
        "session_id": where.session_id,
        "source": where.source,
        "since": where.since and where.since.isoformat(),
        "until": where.until and where.until.isoformat(),
        "path": where.filter and jsonpath(where.filter),
    }
    return json.dumps(asked, ensure_ascii=False)


def _moment(text: str) -> datetime:
    """In UTC, whatever zone the database thinks in."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _record(user_id: str, row: Sequence[Any]) -> Record:
    identity, content, extra, session_id, source, role, name, importance, created_at, revision = row
    return Record(
        id=identity,
        content=content,
        created_at=_moment(created_at),
        user_id=user_id,
        metadata=loads(extra),
        session_id=session_id,
        source=source,
        role=role,
        name=name,
        importance=importance,
        revision=revision,
    )


def _pool(user_id: str, probe: Probe, answer: Mapping[str, Any] | None) -> Pool:
    if answer is None:
        answer = _NOTHING | {"held": [0] * len(probe.terms)}
    cosines = {pk: cosine for pair in answer["cosines"] or () for pk, cosine in _zipped(pair)}
    counts: dict[int, list[int]] = {}
    for pk, place, count in _zipped(answer["counts"]):
        counts.setdefault(pk, [0] * len(probe.terms))[place] = count
    none = (0,) * len(probe.terms)
    found = {str(fields[0]): fields for fields in answer["rows"] or ()}

    def record(row: Row) -> Record:
        fields = found[row.id]
        made = _record(user_id, fields[8:])
        if fields[6] is None:
            return made
        number, start, stop = fields[6]
        return replace(made, passage=Passage(number, start, stop, row.text))

    return Pool(
        rows=tuple(
            _row(fields, cosines.get(fields[0], math.nan), tuple(counts.get(fields[0], none)))
            for fields in found.values()
        ),
        corpus=Corpus(answer["passages"], answer["length"] / max(answer["passages"], 1), tuple(answer["held"] or ())),
        speakers=tuple(answer["speakers"]),
        embedders=tuple(answer["embedders"]),
        record=record,
    )


def _zipped(columns: Sequence[Sequence[Any] | None] | None) -> Iterable[tuple[Any, ...]]:
    """The rows of an aggregate; where there are none, its columns are null."""
    return zip(*(column or () for column in columns or ()), strict=True)


def _row(fields: Sequence[Any], cosine: float, counts: tuple[int, ...]) -> Row:
    pk, length, tokens, thread, position, telling, _, tokenizer = fields[:8]
    identity, text, _, _, _, role, name, importance, created_at, _ = fields[8:]
    return Row(
        id=str(pk),
        text=text,
        cosine=cosine,
        counts=counts,
        length=length,
        tokens=tokens,
        session=thread or "",
        position=position,
        speaker=name or role or "",
        created_at=_moment(created_at),
        telling=telling,
        importance=importance,
        record=identity,
        tokenizer=tokenizer,
    )
