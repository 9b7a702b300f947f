"""The `HotTier` port in this process: no server, no decoding, gone with the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cachetools import TTLCache

from llm_memory_plugins.types import Message, SessionRef, SessionStats, Tail, Window

_FEWEST = 64  # messages a copy may grow to before its front is cut, however short the window it was filled for
_TOMBSTONE_SECONDS = 10.0  # outlives the slowest fill, as on Redis


class LocalHotTier:
    """Copies of the ends of the most recently used sessions.

    Other processes write past it, so it is not `shared`: whoever reads it compares its `stats` with the log's.
    """

    shared = False

    def __init__(self, *, ttl_seconds: float, max_sessions: int = 1000) -> None:
        self._copies = TTLCache[SessionRef, tuple[Tail, int]](max_sessions, ttl_seconds)
        self._dropped = TTLCache[SessionRef, int](max_sessions, _TOMBSTONE_SECONDS)  # the epoch that is over

    async def read(self, session: SessionRef, window: Window) -> Tail | None:
        """See `HotTier.read`. The whole copy: cutting it would cost more."""
        found = self._copies.get(session)
        return found[0] if found else None

    async def push(self, stats: SessionStats, messages: Sequence[Message]) -> None:
        """See `HotTier.push`."""
        key = SessionRef(stats.session_id, stats.user_id)
        found = self._copies.get(key)
        if found is None or _state(stats) < _state(found[0].stats):
            return
        tail, size = found
        new = {m.seq: m for m in messages if m.seq > tail.stats.last_seq}
        seqs = range(tail.stats.last_seq + 1, stats.last_seq + 1)
        if tail.stats.epoch != stats.epoch or new.keys() != set(seqs):
            del self._copies[key]
            return
        kept = (*tail.messages, *(new[seq] for seq in seqs))
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
        newer = found is not None and _state(found[0].stats) > _state(tail.stats)
        if not newer and tail.stats.epoch > self._dropped.get(key, 0):
            self._copies[key] = (tail, max(_FEWEST, 2 * len(tail.messages)))

    async def drop(self, sessions: Sequence[SessionStats]) -> int:
        """See `HotTier.drop`."""
        dropped = 0
        for stats in sessions:
            key = SessionRef(stats.session_id, stats.user_id)
            found = self._copies.pop(key, None)
            self._dropped[key] = max(stats.epoch, self._dropped.get(key, 0), found[0].stats.epoch if found else 0)
            dropped += found is not None
        return dropped


def _state(stats: SessionStats) -> tuple[int, int]:
    return stats.epoch, stats.last_seq
