"""What the measuring scripts plug in: `--plugin benchmarks.plugins:summariser`, `--plugin benchmarks.plugins:memory`.

Where the memory is kept is read from the usual variables: `LLM_MEMORY_DATABASE_URL`, or `LLM_MEMORY_SUPABASE_URL` and
`LLM_MEMORY_SUPABASE_KEY`; in memory when nothing is set. So is the embedder, `LLM_MEMORY_EMBEDDING_MODEL`: offline.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from llm_memory_plugins.compression import compress
from llm_memory_plugins.engines.vector import VectorDatabaseMemory
from llm_memory_plugins.runner import run

_DATES = ("%I:%M %p on %d %B, %Y", "%B-%d-%Y", "%d.%m.%Y, %H:%M:%S")
_ROLES = {"user", "assistant"}


class _Summariser:
    def summarise(self, turns: Sequence[str], max_chars: int) -> str:
        return compress(turns, max_chars)


def summariser() -> _Summariser:
    """The offline summariser, measured in characters."""
    return _Summariser()


class _Memory:
    """The vector memory: a user a conversation, a record a turn."""

    name = "llm_memory_plugins"

    def __init__(self) -> None:
        config: dict[str, Any] = {"tokenizer": "estimate", "max_message_bytes": 1_000_000}
        if not {"LLM_MEMORY_DATABASE_URL", "LLM_MEMORY_SUPABASE_URL"} & set(os.environ):
            config["database_url"] = "sqlite:///:memory:"
        config["embedding_model"] = os.environ.get("LLM_MEMORY_EMBEDDING_MODEL", "offline")
        self._memory = VectorDatabaseMemory(config)

    def ingest(self, conversation: Any) -> None:
        user = f"bench-{conversation.id}"
        run(self._memory.forget, user_id=user)
        run(self._memory.store, [self._record(turn, user) for turn in conversation.turns])

    def _record(self, turn: Any, user: str) -> dict[str, Any]:
        said = turn.when or _moment(turn.date)
        return {
            "id": turn.id,
            "user_id": user,
            "content": f"{turn.text} [image: {turn.extra}]" if turn.extra else turn.text or "-",
            **({"session_id": f"{turn.session:04d}"} if turn.session is not None else {}),
            **({"role" if turn.speaker in _ROLES else "name": turn.speaker} if turn.speaker else {}),
            **({"created_at": said} if said else {}),
        }

    def retrieve(self, conversation_id: str, question: str, k: int) -> list[str]:
        user = f"bench-{conversation_id}"
        return [r.id for r in run(self._memory.search, question, user_id=user, max_results=k)]

    def context(self, conversation_id: str, question: str, budget: int) -> str:
        asked = {"query": question, "user_id": f"bench-{conversation_id}", "max_tokens": budget}
        return run(self._memory.get_context, asked).text

    def close(self) -> None:
        run(self._memory.close)


def memory() -> _Memory:
    """The vector memory with its embedded defaults, or as the environment says."""
    return _Memory()


def _moment(text: str) -> datetime | None:
    for form in _DATES:
        try:
            return datetime.strptime(text.strip(), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    return None
