"""From what a search found to the rows of a pool."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from llm_memory_plugins.records import Passage, Pool, Record, Row
from llm_memory_plugins.stores.sqlite.rows import decoded
from llm_memory_plugins.stores.sqlite.shelf import Found


def pool(user_id: str, found: Found, read: Iterable[tuple[Any, ...]]) -> Pool:
    """The pool of a user's search.

    Args:
        user_id: Whose.
        found: The parts.
        read: What is stored of them, in any order.
    """
    stored = {held[0]: held for held in read}
    rows: list[Row] = []
    for part, cosine, counts, length, tokens, session, position, speaker, created_at, telling, importance in zip(
        found.parts, *found.columns, strict=True
    ):
        _, text, record, tokenizer, *_ = stored[part]
        rows.append(
            Row(
                id=str(part),
                text=text,
                cosine=cosine,
                counts=counts,
                length=length,
                tokens=tokens,
                session=session,
                position=position,
                speaker=speaker,
                created_at=created_at,
                telling=telling,
                importance=importance,
                record=record,
                tokenizer=tokenizer,
            )
        )
    return Pool(
        rows=tuple(rows),
        corpus=found.corpus,
        speakers=found.speakers,
        embedders=found.embedders,
        record=lambda row: _record(user_id, row, *stored[int(row.id)][4:]),
    )


def _record(
    user_id: str,
    row: Row,
    revision: int,
    session_id: str | None,
    source: str | None,
    role: Any,
    name: str | None,
    metadata: str | None,
    number: int | None,
    start: int,
    stop: int,
) -> Record:
    assert row.created_at is not None  # noqa: S101 - every record has a time
    return Record(
        id=row.record,
        content=row.text,
        created_at=row.created_at,
        user_id=user_id,
        metadata=decoded(metadata),
        session_id=session_id,
        source=source,
        role=role,
        name=name,
        importance=row.importance,
        revision=revision,
        passage=None if number is None else Passage(number, start, stop, row.text),
    )
