"""Conversation buffer: the last turns of a session, verbatim."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_memory_plugins import boundary, windows
from llm_memory_plugins.config import BufferConfig
from llm_memory_plugins.context import Context
from llm_memory_plugins.engines._conversation import ConversationMemory
from llm_memory_plugins.telemetry import span
from llm_memory_plugins.types import ContextRequest, Window

_UNITS = {"turns": "turns", "tokens": "tokens", "time": "seconds"}


class ConversationBufferMemory(ConversationMemory[BufferConfig]):
    """Remembers what was said and gives back the end of it, by turns, tokens or time.

    ```python
    async with ConversationBufferMemory({"window_size": 10}) as memory:
        await memory.store({"session_id": "s1", "role": "user", "content": "Hello"})
        context = await memory.get_context({"session_id": "s1"})
    ```
    """

    config_type = BufferConfig

    async def get_context(self, request: ContextRequest | Mapping[str, Any] | str) -> Context:
        """The window of a session's end: always a valid conversation, never above its budget.

        Args:
            request: `session_id`, and optionally `user_id` and `max_total_tokens`.

        Raises:
            InvalidInput: When a field is unknown or malformed.
            AmbiguousSession: When no user is named and several have a session of this name.
            BudgetError: When the budget cannot hold even the newest user message, shortened.
            StoreUnavailable: When the session can be read from nowhere.
        """
        await self.initialize()
        asked = boundary.context_request(request)
        ref = self._session(asked.session_id, asked.user_id)
        budget, room = self._room(asked, "messages")
        kind, size = self.config.window_type, self.config.window_size
        window = Window(kind, size, now=self._clock() if kind == "time" else None, max_tokens=budget)
        with span("get_context", kind="conversation_buffer"):
            tail = await self._ports.log.recent(ref, window)
            chosen = windows.select(
                tail, window, counter=self._counter, max_tokens=room, not_before=self._expired_before()
            )
        return self._context(asked, tail, chosen, budget=budget, why=f"within the last {size} {_UNITS[kind]}")
