"""The `HotTier` port in this process: no server, no decoding, gone with the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cachetools import TTLCache

from llm_memory_plugins.types import Message, SessionRef, SessionStats, Tail

_FEWEST = 64  # messages a copy may grow to before its front is cut, however short the window it was filled for


class LocalHotTier:
    """Copies of the ends of the most recently used sessions.

    Other processes write past it, so it is not `shared`: whoever reads it compares its `stats` with the log's.
    """

    shared = False

    def __init__(self, *, ttl_seconds: float, max_sessions: int = 1000) -> None:
        self._copies = TTLCache[SessionRef, tuple[Tail, int]](max_sessions, ttl_seconds)

    async def read(self, session: SessionRef) -> Tail | None:
        """See `HotTier.read`."""
        found = self._copies.get(session)
        return found[0] if found else None

    async def push(self, stats: SessionStats, messages: Sequence[Message]) -> None:
        """See `HotTier.push`."""
        key = SessionRef(stats.session_id, stats.user_id)
        if (found := self._copies.get(key)) is None:
            return
        tail, size = found
        new = sorted((m for m in messages if m.seq > tail.stats.last_seq), key=lambda m: m.seq)
        seqs = range(tail.stats.last_seq + 1, stats.last_seq + 1)
        if tail.stats.epoch != stats.epoch or [m.seq for m in new] != list(seqs):
            del self._copies[key]
            return
        kept = (*tail.messages, *new)
        gone, kept = kept[: max(0, len(kept) - size)], kept[-size:]
        opening = next((m for m in reversed(gone) if m.role == "user"), tail.opening)
        self._copies[key] = (
            replace(
                tail,
                stats=stats,
                messages=kept,
                opening=None if kept[:1] and kept[0].role == "user" else opening,
                system=next((m for m in reversed(gone) if m.role == "system"), tail.system),
            ),
            size,
        )

    async def fill(self, tail: Tail) -> None:
        """See `HotTier.fill`."""
        key = SessionRef(tail.stats.session_id, tail.stats.user_id)
        found = self._copies.get(key)
        newer = found and found[0].stats.epoch == tail.stats.epoch and found[0].stats.last_seq > tail.stats.last_seq
        if not newer and tail.stats.epoch:
            self._copies[key] = (tail, max(_FEWEST, 2 * len(tail.messages)))

    async def drop(self, *, user_id: str | None = None, session_id: str | None = None) -> None:
        """See `HotTier.drop`."""
        for key in list(self._copies):
            if user_id in {None, key.user_id} and session_id in {None, key.session_id}:
                self._copies.pop(key, None)
