"""Records as rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from llm_memory_plugins.codec import dumps, loads
from llm_memory_plugins.records import Record
from llm_memory_plugins.stores.sqlite.messages import from_micros
from llm_memory_plugins.types import EMPTY


class RecordRow(NamedTuple):
    """A row of the table `records`."""

    pk: int
    corpus_pk: int
    id: str
    revision: int
    created_at: int
    session_id: str | None
    position: int
    first_part: int
    parts: int
    importance: float
    source: str | None
    role: Any
    name: str | None
    tokenizer: str
    metadata: str | None
    content: str

    @property
    def span(self) -> tuple[int, int]:
        """Its first and its last part."""
        return self.first_part, self.first_part + self.parts - 1

    def record(self, user_id: str, metadata: Mapping[str, Any] | None = None) -> Record:
        """What was stored; `metadata` where it is at hand."""
        return Record(
            id=self.id,
            content=self.content,
            created_at=from_micros(self.created_at),
            user_id=user_id,
            metadata=decoded(self.metadata) if metadata is None else metadata,
            session_id=self.session_id,
            source=self.source,
            role=self.role,
            name=self.name,
            importance=self.importance,
            revision=self.revision,
        )


def encoded(metadata: Mapping[str, Any]) -> str | None:
    """Metadata as it is kept."""
    return dumps(dict(metadata), field="metadata") if metadata else None


def decoded(text: str | None) -> Mapping[str, Any]:
    """The metadata again."""
    return cast("Mapping[str, Any]", loads(text)) if text else EMPTY
