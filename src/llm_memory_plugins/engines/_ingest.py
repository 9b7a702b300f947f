"""Writing many records: what is known is skipped, and while one batch is written the next ones are embedded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from llm_memory_plugins.engines._embedding import Embedding
from llm_memory_plugins.ports import VectorIndex
from llm_memory_plugins.records import Entry, Record, Where

BATCH = 256  # records written in one call
_AHEAD = 2  # batches read and embedded while an earlier one is written


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one user that are written in one call.

    Attributes:
        places: Theirs in the caller's list.
        named: Whether any has an id that may be known.
    """

    user_id: str
    places: list[int]
    records: list[Record]
    named: bool


def batches(owned: Sequence[tuple[str, Record, bool]]) -> list[Batch]:
    """Records with their users, and whether they were named, in batches of one user each."""
    by_user: dict[str, list[int]] = {}
    for place, (user, _, _) in enumerate(owned):
        by_user.setdefault(user, []).append(place)
    return [
        Batch(user, part, [owned[place][1] for place in part], any(owned[place][2] for place in part))
        for user, places in by_user.items()
        for part in (places[start : start + BATCH] for start in range(0, len(places), BATCH))
    ]


async def ingest(
    work: Sequence[Batch], index: VectorIndex, embedding: Embedding
) -> AsyncIterator[tuple[list[int], list[Record]]]:
    """Write batch by batch, so that a conversation keeps its order; yields places and records as stored."""
    coming = iter(work)
    ahead: deque[tuple[Batch, asyncio.Task[list[Entry | Record]]]] = deque()
    try:
        while True:
            for batch in islice(coming, _AHEAD + 1 - len(ahead)):
                ahead.append((batch, asyncio.create_task(_prepared(batch, index, embedding))))
            if not ahead:
                return
            batch, preparing = ahead.popleft()
            prepared = await preparing
            entries = [item for item in prepared if isinstance(item, Entry)]
            stored = iter(await index.put(batch.user_id, entries) if entries else ())
            yield batch.places, [next(stored) if isinstance(item, Entry) else item for item in prepared]
    finally:
        for _, preparing in ahead:
            preparing.cancel()


async def _prepared(batch: Batch, index: VectorIndex, embedding: Embedding) -> list[Entry | Record]:
    """What is there already, as it is; the rest read and embedded."""
    known: dict[str, Record] = {}
    if batch.named:
        ids = tuple(dict.fromkeys(record.id for record in batch.records))
        known = {record.id: record for record in await index.page(batch.user_id, Where(ids=ids), limit=len(ids))}
    fresh = [record for record in batch.records if not _same(record, known.get(record.id))]
    entries = iter(await embedding.entries(fresh))
    return [known[r.id] if _same(r, known.get(r.id)) else next(entries) for r in batch.records]


def _same(new: Record, held: Record | None) -> bool:
    """Whether storing a record would change nothing."""
    if held is None:
        return False
    return replace(new, user_id=held.user_id, created_at=held.created_at, revision=held.revision) == held
