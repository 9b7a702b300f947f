"""What the conversational memories share: writing messages, sessions, erasure, export and import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, overload
from uuid import NAMESPACE_URL, uuid5

import anyio

from llm_memory_plugins import boundary, windows, wiring
from llm_memory_plugins.codec import loads, message_to_line
from llm_memory_plugins.config import BufferConfig, SummaryConfig
from llm_memory_plugins.context import Context, Pieces
from llm_memory_plugins.engines._engine import Engine
from llm_memory_plugins.errors import AmbiguousSession, BudgetError, InvalidInput
from llm_memory_plugins.ports import TokenCounter
from llm_memory_plugins.rendering import CLOSING, message_line, opening, section
from llm_memory_plugins.telemetry import span
from llm_memory_plugins.types import (
    EMPTY,
    Appended,
    ContextRequest,
    Dropped,
    Message,
    Piece,
    Receipt,
    SessionRef,
    SessionStats,
    Tail,
)
from llm_memory_plugins.wiring import ConversationPorts

ConfigT = TypeVar("ConfigT", BufferConfig, SummaryConfig)
MessageLike = Message | Mapping[str, Any]

_BATCH = 500  # messages stored or read at a time by import and export
_COUNTED_AT_ONCE = 20_000  # characters whose tokens are counted on the event loop: a few milliseconds
_PRUNE_EVERY = timedelta(minutes=1)


class ConversationMemory(Engine[ConfigT, ConversationPorts]):
    """Messages of conversations, in a durable log."""

    _pruned_at: datetime | None = None

    def _connect(self) -> ConversationPorts:
        return wiring.conversations(self.config)

    @overload
    async def store(self, message: MessageLike) -> Message: ...
    @overload
    async def store(self, message: Sequence[MessageLike]) -> tuple[Message, ...]: ...
    async def store(self, message: MessageLike | Sequence[MessageLike]) -> Message | tuple[Message, ...]:
        """Store one message or many: all or none, durable when this returns.

        Args:
            message: A mapping (or a list of them) with `session_id`, `role` (`user`, `assistant`, `system` or
                `tool`) and `content`, and optionally `user_id`, `id`, `name`, `created_at`, `tool_calls`,
                `tool_call_id`, `metadata`, `payload`. The same `id` twice in a session is one message.

        Returns:
            The message, or messages in their order, as stored: with `id`, `seq` and `tokens`.

        Raises:
            InvalidInput: Names the field and the fix; nothing was stored.
            AccessDenied: When the engine is for another user.
            StoreUnavailable: When the message could not be made durable.
        """
        await self.initialize()
        one = isinstance(message, Mapping)
        built = boundary.messages(message, now=self._clock(), max_bytes=self.config.max_message_bytes)
        with span("store", messages=len(built)):
            done = await self._append(built)
        return done.messages[0] if one else done.messages

    async def _append(self, built: Sequence[Message]) -> Appended:
        owned = [m if m.user_id == (user := self._user(m.user_id)) else replace(m, user_id=user) for m in built]
        count = partial(_counted, owned, self._counter)
        large = sum(len(m.content) for m in owned) > _COUNTED_AT_ONCE
        done = await self._ports.log.append(await anyio.to_thread.run_sync(count) if large else count())
        self._after_append(done)
        return done

    def _after_append(self, done: Appended) -> None:
        """Start what has to follow a write; never a model call before the write has returned."""
        if self.config.retention_seconds is None:
            return
        if self._pruned_at is None or self._clock() - self._pruned_at >= _PRUNE_EVERY:
            self._pruned_at = self._clock()
            self._spawn(self.prune())

    def _expired_before(self) -> datetime | None:
        seconds = self.config.retention_seconds
        return None if seconds is None else self._clock() - timedelta(seconds=seconds)

    async def prune(self) -> Receipt:
        """Remove messages older than `retention_seconds`, and summaries of nothing else. Also runs by itself."""
        await self.initialize()
        before = self._expired_before()
        if before is None:
            return Receipt({})
        return await self._ports.log.prune(before, user_id=self.config.user_id)

    async def get_session_stats(self, session_id: str, user_id: str | None = None) -> SessionStats:
        """Counts, tokens and times of a session, without reading it; all zero when there is none.

        Raises:
            AmbiguousSession: When no user is named and several have a session of this name.
        """
        await self.initialize()
        ref = self._session(session_id, user_id)
        found = await self._ports.log.sessions(user_id=ref.user_id, session_id=ref.session_id, limit=2)
        if len(found) > 1:
            raise AmbiguousSession
        return found[0] if found else SessionStats(session_id=ref.session_id, user_id=ref.user_id or "")

    async def list_sessions(
        self, user_id: str | None = None, *, limit: int = 100, after: SessionStats | SessionRef | None = None
    ) -> tuple[SessionStats, ...]:
        """Sessions, of one user or of all, ordered by user and name; go on with `after=` the last one."""
        await self.initialize()
        if isinstance(after, SessionStats):
            after = SessionRef(after.session_id, after.user_id)
        return await self._ports.log.sessions(user_id=self._user(user_id), after=after, limit=limit)

    async def clear(self, session_id: str, user_id: str | None = None) -> Receipt:
        """Erase a session: messages, summaries, copies.

        Raises:
            AmbiguousSession: When no user is named and several have a session of this name.
        """
        await self.initialize()
        ref = self._session(session_id, user_id)
        return await self._ports.log.delete(user_id=ref.user_id, session_id=ref.session_id)

    async def forget(self, *, user_id: str) -> Receipt:
        """Erase everything of a user."""
        await self.initialize()
        return await self._ports.log.delete(user_id=self._user(boundary.check_id(user_id, "user_id", empty=True)))

    async def messages(self, session_id: str, user_id: str | None = None) -> AsyncIterator[Message]:
        """Every message of a session, in order, read page by page."""
        await self.initialize()
        ref = self._session(session_id, user_id)
        after = 0
        while page := await self._ports.log.page(ref, after=after, limit=_BATCH):
            for message in page:
                yield message
            after = page[-1].seq

    async def export_lines(self, session_id: str | None = None, user_id: str | None = None) -> AsyncIterator[str]:
        """Messages as lines of JSON: of a session, of a user, or of everyone this engine may see."""
        await self.initialize()
        user = self._user(user_id)
        if session_id is not None:
            stats = await self.get_session_stats(session_id, user)
            async for message in self.messages(stats.session_id, stats.user_id):
                yield message_to_line(message)
            return
        last: SessionStats | None = None
        while found := await self.list_sessions(user, after=last):
            last = found[-1]
            for stats in found:
                async for message in self.messages(stats.session_id, stats.user_id):
                    yield message_to_line(message)

    async def export(self, path: str | Path, *, session_id: str | None = None, user_id: str | None = None) -> int:
        """Write messages to a JSONL file, which appears only when it is complete. Returns their number."""
        target = anyio.Path(path)
        partial = target.with_name(target.name + ".partial")
        count = 0
        try:
            async with await anyio.open_file(partial, "w", encoding="utf-8") as file:
                async for line in self.export_lines(session_id, user_id):
                    await file.write(line + "\n")
                    count += 1
            await partial.rename(target)
        finally:
            await partial.unlink(missing_ok=True)
        return count

    async def import_(self, path: str | Path, *, session_id: str | None = None, user_id: str | None = None) -> int:
        """Store the messages of a JSONL file, one a line, as `store` takes them. Returns their number.

        The whole file is checked before anything is stored. Doing it again, or going on after a crash, stores
        nothing twice: a line without an `id` gets one made from its place and content.

        Args:
            path: The file.
            session_id, user_id: For lines that name none.

        Raises:
            InvalidInput: Names the line and the field.
        """
        await self.initialize()
        defaults = {k: v for k, v in (("session_id", session_id), ("user_id", user_id)) if v is not None}
        async for _ in self._import_batches(path, defaults):
            pass
        count = 0
        async for batch in self._import_batches(path, defaults):
            count += len((await self._append(batch)).messages)
        return count

    async def _import_batches(self, path: str | Path, defaults: Mapping[str, str]) -> AsyncIterator[list[Message]]:
        batch: list[Message] = []
        number = 0
        async with await anyio.open_file(path, "rb") as file:
            async for line in file:
                number += 1
                if line.strip():
                    batch.append(self._parsed(line, number, defaults))
                if len(batch) == _BATCH:
                    yield batch
                    batch = []
        if batch:
            yield batch

    def _parsed(self, raw: bytes, number: int, defaults: Mapping[str, str]) -> Message:
        try:
            line = raw.decode("utf-8-sig").strip()
            fields = loads(line)
        except UnicodeDecodeError:
            raise InvalidInput(f"line {number}", "is not UTF-8") from None
        except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
            raise InvalidInput(f"line {number}", "is not a JSON object") from None
        if not isinstance(fields, dict):
            raise InvalidInput(f"line {number}", "is not a JSON object")
        made = {"id": str(uuid5(NAMESPACE_URL, f"{number}:{line}"))}
        try:
            return boundary.message(
                {**made, **defaults, **fields},
                now=self._clock(),
                max_bytes=self.config.max_message_bytes,
            )
        except InvalidInput as error:
            raise InvalidInput(f"line {number}: {error.field}", str(error).removeprefix(f"{error.field}: ")) from None

    def _room(self, request: ContextRequest, *sources: str) -> tuple[int | None, int | None]:
        """The budget of a request, and what the tags of its sections leave of it."""
        budget = request.max_total_tokens or self.config.max_total_tokens
        if budget is None:
            return None, None
        return budget, budget - sum(map(self._overhead, sources))

    def _overhead(self, source: str) -> int:
        return _tag_tokens(self._counter, source)

    def _context(
        self,
        request: ContextRequest,
        tail: Tail,
        selection: windows.Selection,
        *,
        budget: int | None,
        why: str,
        recalled: Sequence[Piece] = (),
        summary: str = "",
        dropped: Sequence[Dropped] = (),
        errors: Mapping[str, str] = EMPTY,
    ) -> Context:
        """A context of what was recalled, then the messages."""
        before = section("summary", (piece.text for piece in recalled))
        tokens = selection.tokens + sum(piece.tokens for piece in recalled)
        tokens += self._overhead("summary") * bool(recalled) + self._overhead("messages") * bool(selection.messages)
        if budget is not None and tokens > budget:
            raise BudgetError(f"max_total_tokens={budget} cannot hold any memory; raise it")
        return Context(
            session_id=request.session_id,
            user_id=tail.stats.user_id,
            messages=selection.messages,
            summary=summary,
            recalled=before,
            tokens=tokens,
            max_total_tokens=budget,
            pieces=Pieces(partial(_pieces, tuple(recalled), selection.messages, self._counter, why)),
            dropped=(*dropped, *selection.dropped),
            errors={**errors, **({"messages": tail.error} if tail.error else {})},
        )


def _pieces(
    recalled: tuple[Piece, ...], messages: Sequence[Message], counter: TokenCounter, why: str
) -> tuple[Piece, ...]:
    said = (
        Piece(
            text=message_line(m),
            tokens=windows.cost(m, counter),
            source="messages",
            reason="the system message" if m.role == "system" else why,
            ids=(m.id,),
        )
        for m in messages
    )
    return (*recalled, *said)


@cache
def _tag_tokens(counter: TokenCounter, source: str) -> int:
    return counter.count(opening(source)) + counter.count(CLOSING)


def _counted(messages: Sequence[Message], counter: TokenCounter) -> list[Message]:
    return [windows.counted(message, counter) for message in messages]
