"""A `MessageLog` in front of another one: the ends of sessions come from a hot tier while its copy is true.

The log is the truth and is written first. A copy is believed only when it is at least as new as anything this
process has seen or written; of a tier that other processes write past, only when the log confirms it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from cachetools import LRUCache

from llm_memory_plugins.errors import AmbiguousSession, StoreUnavailable
from llm_memory_plugins.ports import HotTier, MessageLog
from llm_memory_plugins.telemetry import logger
from llm_memory_plugins.types import Appended, Message, Receipt, SessionRef, SessionStats, Tail, Window
from llm_memory_plugins.windows import covers

_REMEMBERED = 10_000  # sessions whose newest known `seq` is kept


class CachedMessageLog:
    """Writes through to `hot` after each commit and reads from it where that is as good as reading the log."""

    def __init__(self, log: MessageLog, hot: HotTier) -> None:
        self._log = log
        self._hot = hot
        self._seen = LRUCache[SessionRef, int](_REMEMBERED)
        self._filling: dict[tuple[SessionRef, Window], asyncio.Task[Tail]] = {}

    async def append(self, messages: Sequence[Message]) -> Appended:
        """See `MessageLog.append`."""
        done = await self._log.append(messages)
        for stats in done.stats:
            key = SessionRef(stats.session_id, stats.user_id)
            self._note(key, stats)
            try:
                of_session = [m for m in done.messages if (m.session_id, m.user_id) == (key.session_id, key.user_id)]
                await self._hot.push(stats, of_session)
            except StoreUnavailable as error:  # the messages are durable; the copy is only speed
                logger.warning("the hot copy was not written: %s", error)
        return done

    async def recent(self, session: SessionRef, window: Window) -> Tail:
        """See `MessageLog.recent`."""
        head = None
        if session.user_id is None or not self._hot.shared:
            found = await self._log.sessions(session_id=session.session_id, user_id=session.user_id, limit=2)
            if len(found) > 1:
                raise AmbiguousSession
            if not found:
                return Tail(stats=SessionStats(session_id=session.session_id, user_id=session.user_id or ""))
            head = found[0]
            session = SessionRef(head.session_id, head.user_id)
        problem = None
        try:
            copy = await self._hot.read(session)
        except StoreUnavailable as error:
            copy, problem = None, str(error)
        if copy is not None and covers(copy, window) and self._is_true(copy, session, head):
            self._note(session, copy.stats)
            return copy
        tail = await self._fill(session, window)
        return replace(tail, error=problem) if problem else tail

    async def page(self, session: SessionRef, *, after: int = 0, limit: int = 1000) -> tuple[Message, ...]:
        """See `MessageLog.page`."""
        return await self._log.page(session, after=after, limit=limit)

    async def sessions(
        self,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        after: SessionRef | None = None,
        limit: int = 100,
    ) -> tuple[SessionStats, ...]:
        """See `MessageLog.sessions`."""
        return await self._log.sessions(user_id=user_id, session_id=session_id, after=after, limit=limit)

    async def delete(self, *, user_id: str | None = None, session_id: str | None = None) -> Receipt:
        """See `MessageLog.delete`. Raises when the copy cannot be removed: erased means everywhere."""
        receipt = await self._log.delete(user_id=user_id, session_id=session_id)
        for key in [k for k in self._seen if user_id in {None, k.user_id} and session_id in {None, k.session_id}]:
            del self._seen[key]
        await self._hot.drop(user_id=user_id, session_id=session_id)
        return receipt

    async def prune(self, before: datetime, *, user_id: str | None = None) -> Receipt:
        """See `MessageLog.prune`."""
        receipt = await self._log.prune(before, user_id=user_id)
        if receipt.total:
            await self._hot.drop(user_id=user_id)
        return receipt

    def _is_true(self, copy: Tail, session: SessionRef, head: SessionStats | None) -> bool:
        if not self._hot.shared:
            return copy.stats == head
        return copy.stats.last_seq >= self._seen.get(session, 0)

    def _note(self, session: SessionRef, stats: SessionStats) -> None:
        self._seen[session] = max(stats.last_seq, self._seen.get(session, 0))

    async def _fill(self, session: SessionRef, window: Window) -> Tail:
        """Read the log and refill the copy: one read for all who wait for the same window."""
        key = (session, replace(window, now=None))
        task = self._filling.get(key)
        if task is None:
            task = self._filling[key] = asyncio.create_task(self._read_and_fill(session, window))
            task.add_done_callback(lambda _: self._filling.pop(key, None))
        floor = self._seen.get(session, 0)
        tail = await asyncio.shield(task)
        if tail.stats.last_seq < floor:  # that read had begun before this process's newest write
            tail = await self._read_and_fill(session, window)
        return tail

    async def _read_and_fill(self, session: SessionRef, window: Window) -> Tail:
        tail = await self._log.recent(session, window)
        self._note(session, tail.stats)
        try:
            await self._hot.fill(tail)
        except StoreUnavailable as error:
            logger.warning("the hot copy was not filled: %s", error)
        return tail
