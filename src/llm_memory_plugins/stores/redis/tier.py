"""The `HotTier` port on Redis or Valkey: one list a session, changed by one script a verb.

What the scripts keep true, in any order they run: a list is a true end of its session, without gaps; it is never
replaced by an older one; and what was dropped or overtaken leaves a tombstone that outlives every fill from before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import cast

from llm_memory_plugins.stores.redis.client import RedisClient, Refused
from llm_memory_plugins.stores.redis.encoding import decode_copy, encode_copy, encode_counts, encode_message, forget
from llm_memory_plugins.stores.redis.keys import tail_key
from llm_memory_plugins.stores.redis.script import load
from llm_memory_plugins.types import Message, SessionRef, SessionStats, Tail, Window

TOMBSTONE_MS = 10_000
"""Life of a tombstone. Must outlive the slowest fill: see `FILL_SECONDS` of `CachedMessageLog`."""

_LAST = 2**53 - 1  # the highest seq Lua can tell from its neighbours
_AT_ONCE = 500
_PUSH, _FILL, _DROP = load("push"), load("fill"), load("drop")


class RedisHotTier:
    """Copies of the ends of sessions, shared by all processes on one Redis. Every key expires.

    Args:
        client: Where the copies are kept.
        ttl_seconds: Life of a copy after the last write to it.
        prefix: What all keys begin with, or tells it once the durable store is open: two stores must not share one.
    """

    shared = True

    def __init__(self, client: RedisClient, *, ttl_seconds: float, prefix: str | Callable[[], str] = "llmm") -> None:
        self._client = client
        self._ahead: float | None = None  # seconds by which the server's clock is ahead of this process's
        self._ttl_ms = max(1, round(ttl_seconds * 1000))
        self._prefix = prefix if callable(prefix) else lambda: prefix

    async def read(self, session: SessionRef, window: Window) -> Tail | None:
        """See `HotTier.read`."""
        try:
            elements = await self._client.call("LRANGE", tail_key(self._prefix(), session), 0, -1)
        except Refused as error:
            if error.reason == "WRONGTYPE":  # somebody else's; the next fill replaces it
                return None
            raise
        return decode_copy(cast("list[bytes]", elements), session, window)

    async def push(self, stats: SessionStats, messages: Sequence[Message]) -> None:
        """See `HotTier.push`."""
        entries = [encode_message(m) for m in sorted(messages, key=lambda m: m.seq)]
        lives = (self._ttl_ms, TOMBSTONE_MS)
        await self._client.run(
            _PUSH, self._key(stats), stats.epoch, stats.last_seq, *lives, encode_counts(stats), *entries
        )

    async def fill(self, tail: Tail) -> None:
        """See `HotTier.fill`."""
        stats = tail.stats
        if stats.epoch:  # there is no such session
            await self._client.run(
                *(_FILL, self._key(stats), stats.epoch, stats.last_seq, self._ttl_ms, await self._deadline()),
                *encode_copy(tail),
            )

    async def drop(self, sessions: Sequence[SessionStats]) -> int:
        """See `HotTier.drop`."""
        forget()  # what is erased shall not linger in this process either
        dropped = 0
        for start in range(0, len(sessions), _AT_ONCE):
            calls = [
                (self._key(stats), stats.epoch, _LAST, TOMBSTONE_MS) for stats in sessions[start : start + _AT_ONCE]
            ]
            dropped += sum(await self._client.run_many(_DROP, calls))
        return dropped

    async def _deadline(self) -> int:
        """Until when a fill sent now may be carried out, in milliseconds by the server's clock."""
        if self._ahead is None:  # asked once: clocks drift less than a tombstone lives
            seconds, micros = cast("tuple[bytes, bytes]", await self._client.call("TIME"))
            self._ahead = int(seconds) + int(micros) / 1e6 - time.monotonic()
        return round(1000 * (self._ahead + time.monotonic())) + TOMBSTONE_MS // 2

    def _key(self, stats: SessionStats) -> str:
        return tail_key(self._prefix(), SessionRef(stats.session_id, stats.user_id))
