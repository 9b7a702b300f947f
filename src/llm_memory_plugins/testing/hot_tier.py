"""What every `HotTier` must hold: a copy is contiguous, never behind a gap, and may be gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from llm_memory_plugins.ports import HotTier
from llm_memory_plugins.testing.message_log import ONE, contents, say
from llm_memory_plugins.types import Message, SessionRef, SessionStats, Tail


def stats(last_seq: int, *, session: SessionRef = ONE, epoch: int = 1) -> SessionStats:
    """Counters of a session of as many messages."""
    return SessionStats(
        session_id=session.session_id,
        user_id=session.user_id or "",
        epoch=epoch,
        last_seq=last_seq,
        message_count=last_seq,
    )


def numbered(first: int, last: int, session: SessionRef = ONE) -> list[Message]:
    """Stored messages `first..last`."""
    return [replace(say(f"m{n}", session=session, id=f"m{n}"), seq=n) for n in range(first, last + 1)]


def tail(last: int, session: SessionRef = ONE) -> Tail:
    """A whole session of `last` messages."""
    return Tail(stats=stats(last, session=session), messages=tuple(numbered(1, last, session)))


class HotTierSuite:
    """Push, fill, drop."""

    @pytest.fixture
    async def hot(self) -> AsyncIterator[HotTier]:
        """An empty tier. Override."""
        raise NotImplementedError("give the suite a tier")
        yield

    async def test_nothing_is_there_before_a_fill(self, hot: HotTier) -> None:
        assert await hot.read(ONE) is None
        await hot.push(stats(1), numbered(1, 1))
        assert await hot.read(ONE) is None, "a push alone cannot know what came before"

    async def test_a_fill_is_followed_by_pushes(self, hot: HotTier) -> None:
        await hot.fill(tail(3))
        await hot.push(stats(5), numbered(4, 5))
        copy = await hot.read(ONE)
        assert copy is not None
        assert contents(copy.messages) == [f"m{n}" for n in range(1, 6)]
        assert copy.stats == stats(5)

    async def test_a_gap_drops_the_copy(self, hot: HotTier) -> None:
        await hot.fill(tail(3))
        await hot.push(stats(5), numbered(5, 5))
        assert await hot.read(ONE) is None

    async def test_what_is_already_there_changes_nothing(self, hot: HotTier) -> None:
        await hot.fill(tail(5))
        await hot.push(stats(5), numbered(3, 4))
        copy = await hot.read(ONE)
        assert copy is not None
        assert contents(copy.messages) == [f"m{n}" for n in range(1, 6)]

    async def test_an_older_fill_does_not_replace_a_newer_copy(self, hot: HotTier) -> None:
        await hot.fill(tail(5))
        await hot.fill(tail(3))
        copy = await hot.read(ONE)
        assert copy is not None
        assert copy.stats.last_seq == 5

    async def test_long_copies_are_cut_at_the_front_and_stay_contiguous(self, hot: HotTier) -> None:
        await hot.fill(tail(2))
        for n in range(3, 400):
            await hot.push(stats(n), numbered(n, n))
        copy = await hot.read(ONE)
        assert copy is not None
        seqs = [m.seq for m in copy.messages]
        assert seqs == list(range(seqs[0], 400))
        assert 2 <= len(seqs) < 399

    async def test_dropping_forgets_a_user_or_a_session_and_no_more(self, hot: HotTier) -> None:
        refs = [SessionRef(s, u) for u in ("a", "b") for s in ("1", "2")]
        for ref in refs:
            await hot.fill(tail(1, ref))
        await hot.drop(user_id="a", session_id="1")
        assert [await hot.read(r) is None for r in refs] == [True, False, False, False]
        await hot.drop(user_id="b")
        assert [await hot.read(r) is None for r in refs] == [True, False, True, True]
