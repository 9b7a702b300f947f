"""A `MessageLog` in front of another one: the ends of sessions come from a hot tier while its copy is true.

The log is the truth and is written first. A copy is believed only when it is at least as new as anything this
process has seen or written; of a tier that other processes write past, only when the log confirms it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from cachetools import LRUCache, TTLCache

from llm_memory_plugins.errors import AmbiguousSession, StoreUnavailable
from llm_memory_plugins.keyvalue_ports import UserCopies
from llm_memory_plugins.ports import HotTier, MessageLog
from llm_memory_plugins.stores.whole import Whole, mark_seen
from llm_memory_plugins.telemetry import logger
from llm_memory_plugins.types import Appended, Message, Receipt, SessionRef, SessionStats, Tail, Window
from llm_memory_plugins.windows import covers

FILL_SECONDS = 5.0
"""A read of the log that took longer is not put into the tier: what forbids it there lives only twice as long."""

_MARKED_SECONDS = 60.0
"""So long after a call of the log that failed hot reads say so; a process that only reads hears of no recovery."""

_REMEMBERED = 10_000  # sessions whose newest known state is kept
_PAGE = 500
_OVER = 2**63  # a seq no message of an erased life comes up to
_STALE = "the durable store is unavailable: this is its hot copy, which may be stale"

T = TypeVar("T")
State = tuple[int, int]
"""Epoch and last seq: which of two states of a session is newer."""


class CachedMessageLog:
    """Writes through to `hot` after each commit and reads from it where that is as good as reading the log.

    Args:
        log: The truth.
        hot: The copies of it.
        others: Copies of other memories in the same store, which are erased with their user.
    """

    def __init__(self, log: MessageLog, hot: HotTier, others: Sequence[UserCopies] = ()) -> None:
        self._log = log
        self._hot = hot
        self._others = others
        self._log_failed_at: float | None = None  # at the last call
        self._floor = LRUCache[SessionRef, State](_REMEMBERED)
        # Of copies that a push did not reach, for longer than they may live, however many sessions come between.
        self._behind = TTLCache[SessionRef, State](1_000_000, 86_400)
        self._whole = Whole()  # what is committed reaches the copies too, even when the caller is cancelled
        self._owed = dict[SessionRef, SessionStats]()  # copies an erasure has still to remove
        self._reading: dict[tuple[SessionRef, Window], asyncio.Task[Tail]] = {}

    async def append(self, messages: Sequence[Message]) -> Appended:
        """See `MessageLog.append`."""
        return await self._whole.run(self._append(messages))

    async def _append(self, messages: Sequence[Message]) -> Appended:
        done = await self._ask(self._log.append(messages))
        for stats in done.stats:  # all of them before anything can be cancelled: the floor tells that a push was lost
            self._note(stats)
        for stats in done.stats:
            of_session = [m for m in done.messages if (m.session_id, m.user_id) == (stats.session_id, stats.user_id)]
            try:
                await self._hot.push(stats, of_session)
            except StoreUnavailable as error:  # the messages are durable; the copy is only speed
                self._behind[_ref(stats)] = _state(stats)
                logger.warning("the hot copy was not written: %s", error)
        return done

    async def recent(self, session: SessionRef, window: Window) -> Tail:
        """See `MessageLog.recent`."""
        head = None
        if session.user_id is None or not self._hot.shared:
            found = await self.sessions(session_id=session.session_id, user_id=session.user_id, limit=2)
            if len(found) > 1:
                raise AmbiguousSession
            if not found:
                return Tail(stats=SessionStats(session_id=session.session_id, user_id=session.user_id or ""))
            head = found[0]
            session = _ref(head)
        problem = None
        try:
            copy = await self._hot.read(session, window)
        except StoreUnavailable as error:
            copy, problem = None, str(error)
        if copy is not None and covers(copy, window) and self._is_true(copy, head):
            self._note(copy.stats)
            failed = self._log_failed_at is not None and time.monotonic() - self._log_failed_at < _MARKED_SECONDS
            return replace(copy, error=_STALE) if failed else copy
        tail = await self._read_log(session, window)
        return replace(tail, error=problem) if problem else tail

    async def page(self, session: SessionRef, *, after: int = 0, limit: int = 1000) -> tuple[Message, ...]:
        """See `MessageLog.page`."""
        return await self._ask(self._log.page(session, after=after, limit=limit))

    async def sessions(
        self,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        after: SessionRef | None = None,
        limit: int = 100,
    ) -> tuple[SessionStats, ...]:
        """See `MessageLog.sessions`."""
        return await self._ask(self._log.sessions(user_id=user_id, session_id=session_id, after=after, limit=limit))

    async def delete(self, *, user_id: str | None = None, session_id: str | None = None) -> Receipt:
        """See `MessageLog.delete`. Erased means everywhere; `removed["hot_copies"]` counts the copies.

        Raises:
            StoreUnavailable: When log or copies cannot be reached. The same call again completes the erasure.
        """
        return await self._whole.run(self._delete(user_id, session_id))

    async def _delete(self, user_id: str | None, session_id: str | None) -> Receipt:
        copies = 0
        if user_id is not None or session_id is not None:  # else the log says what is wrong with that
            copies = await self._forget_those_going(user_id, session_id)
        whole = user_id if session_id is None else None
        copies += await self._forget_others(whole)
        receipt = await self._ask(self._log.delete(user_id=user_id, session_id=session_id))
        for stats in receipt.sessions:
            self._floor[_ref(stats)] = (stats.epoch, _OVER)
        self._no_longer_joined(receipt.sessions)
        copies += await self._forget(receipt.sessions)  # a reader may have refilled one meanwhile
        copies += await self._forget_others(whole)
        return replace(receipt, removed={**receipt.removed, "hot_copies": copies})

    async def prune(self, before: datetime, *, user_id: str | None = None) -> Receipt:
        """See `MessageLog.prune`. The copies of the sessions it touched go too.

        Raises:
            StoreUnavailable: When log or copies cannot be reached. The same call again completes it.
        """
        return await self._whole.run(self._prune(before, user_id))

    async def _prune(self, before: datetime, user_id: str | None) -> Receipt:
        receipt = await self._ask(self._log.prune(before, user_id=user_id))
        self._no_longer_joined(receipt.sessions)
        copies = await self._forget(receipt.sessions)
        return replace(receipt, removed={**receipt.removed, "hot_copies": copies})

    def _no_longer_joined(self, sessions: Sequence[SessionStats]) -> None:
        """Reads that began before an erasure are not for who asks after it."""
        gone = {_ref(stats) for stats in sessions}
        for key in [key for key in self._reading if key[0] in gone]:
            del self._reading[key]

    async def _forget_those_going(self, user_id: str | None, session_id: str | None) -> int:
        """Drop the copies before anything is erased: when that fails, the caller can still name what to erase."""
        copies = 0
        after: SessionRef | None = None
        while page := await self.sessions(user_id=user_id, session_id=session_id, after=after, limit=_PAGE):
            if user_id is None and len(page) > 1:
                raise AmbiguousSession
            copies += await self._forget(page)
            after = _ref([*page][-1])
        if after is None and user_id is not None and session_id is not None:  # its rows may have gone some time ago
            epoch, _ = self._floor.get(SessionRef(session_id, user_id), (0, 0))
            copies += await self._forget([SessionStats(session_id=session_id, user_id=user_id, epoch=epoch)])
        return copies

    async def _forget_others(self, user_id: str | None) -> int:
        return 0 if user_id is None else sum([await copies.forget(user_id) for copies in self._others])

    async def _forget(self, sessions: Sequence[SessionStats]) -> int:
        """Drop copies, and those a failure left behind; what fails now is tried again with the next erasure."""
        self._owed |= {_ref(stats): stats for stats in sessions}
        owed = tuple(self._owed.values())
        copies = await self._hot.drop(owed) if owed else 0
        for stats in owed:
            self._owed.pop(_ref(stats), None)
        return copies

    def _is_true(self, copy: Tail, head: SessionStats | None) -> bool:
        if not self._hot.shared:
            return copy.stats == head
        session = _ref(copy.stats)
        known = max(self._floor.get(session, (0, 0)), self._behind.get(session, (0, 0)))
        return session not in self._owed and _state(copy.stats) >= known

    def _note(self, stats: SessionStats) -> None:
        if stats.epoch:
            session = _ref(stats)
            self._floor[session] = max(_state(stats), self._floor.get(session, (0, 0)))

    async def _read_log(self, session: SessionRef, window: Window) -> Tail:
        """Read the log and refill the copy: one read for all who wait for the same window."""
        key = (session, replace(window, now=None))
        floor = self._floor.get(session, (0, 0))
        began_before = key in self._reading
        tail = await asyncio.shield(self._reader(key, window))  # whoever stops waiting stops nobody else
        if began_before and _state(tail.stats) < floor:  # before this process's newest write, that is
            tail = await asyncio.shield(self._reader(key, window))
        return tail

    def _reader(self, key: tuple[SessionRef, Window], window: Window) -> asyncio.Task[Tail]:
        """The read that is under way, or a new one."""
        task = self._reading.get(key)
        if task is None or task.done():  # one that has just ended may be older than what is known by now
            task = self._reading[key] = asyncio.create_task(self._read_and_fill(key[0], window))
            task.add_done_callback(lambda done: self._read(key, done))
        return task

    def _read(self, key: tuple[SessionRef, Window], task: asyncio.Task[Tail]) -> None:
        if self._reading.get(key) is task:
            del self._reading[key]
        mark_seen(task)

    async def _read_and_fill(self, session: SessionRef, window: Window) -> Tail:
        started = time.monotonic()
        tail = await self._ask(self._log.recent(session, window))
        self._note(tail.stats)
        known = self._floor.get(session, (0, 0))
        if not tail.stats.epoch or _state(tail.stats) < known or time.monotonic() - started > FILL_SECONDS:
            return tail
        try:
            await self._hot.fill(tail)
        except StoreUnavailable as error:
            logger.warning("the hot copy was not filled: %s", error)
        return tail

    async def _ask(self, answer: Awaitable[T]) -> T:
        """Await the log, and remember whether it could be reached."""
        try:
            result = await answer
        except StoreUnavailable:
            self._log_failed_at = time.monotonic()
            raise
        self._log_failed_at = None
        return result


def _ref(stats: SessionStats) -> SessionRef:
    return SessionRef(stats.session_id, stats.user_id)


def _state(stats: SessionStats) -> State:
    return stats.epoch, stats.last_seq
