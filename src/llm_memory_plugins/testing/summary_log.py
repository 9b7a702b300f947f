"""What every `SummaryLog` must hold: once per range, whoever comes first, and gone with its session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from llm_memory_plugins.errors import Conflict
from llm_memory_plugins.ports import MessageLog, SummaryLog
from llm_memory_plugins.testing.message_log import ONE, START, talk
from llm_memory_plugins.types import Summary, SummaryLine

MINUTE = timedelta(minutes=1)


def node(from_seq: int, to_seq: int, level: int = 0, text: str = "said") -> Summary:
    """A summary of a range, with two lines."""
    lines = (
        SummaryLine(f"{text} {from_seq}", (from_seq,), START, 0.25, 3),
        SummaryLine(f"{text} {to_seq} ⟨ü⟩", (from_seq, to_seq), START + MINUTE, 1.0, 4),
    )
    return Summary(
        from_seq=from_seq,
        to_seq=to_seq,
        level=level,
        lines=lines,
        tokens=7,
        tokenizer="estimate",
        model="test/1",
        created_at=START,
        model_tokens=42,
    )


async def commit(summaries: SummaryLog, written: Summary, holder: str = "writer") -> None:
    """Claim what follows the summarised part, then commit."""
    covered = (await summaries.read(ONE)).covered
    await summaries.claim(ONE, after=covered, holder=holder, until=START + MINUTE, now=START)
    await summaries.commit(ONE, written, holder=holder)


class SummaryLogSuite:
    """Compare-and-set over ranges, claims, rolling up, erasure."""

    @pytest.fixture
    async def logs(self) -> AsyncIterator[tuple[MessageLog, SummaryLog]]:
        """An empty message log and the summary log beside it. Override."""
        raise NotImplementedError("give the suite its logs")
        yield

    @pytest.fixture
    async def summaries(self, logs: tuple[MessageLog, SummaryLog]) -> SummaryLog:
        """The log of summaries over a session of 40 messages of 10 tokens."""
        await logs[0].append(talk(20))
        return logs[1]

    async def test_a_node_comes_back_as_it_went_in(self, summaries: SummaryLog) -> None:
        assert (await summaries.read(ONE)).pending_tokens == 400
        await commit(summaries, node(1, 10))
        state = await summaries.read(ONE)
        assert state.nodes == (node(1, 10),)
        assert (state.covered, state.pending_tokens) == (10, 300)

    @pytest.mark.parametrize(("first", "last"), [(1, 10), (5, 20), (12, 20), (11, 41)])
    async def test_a_leaf_must_follow_what_is_covered(self, summaries: SummaryLog, first: int, last: int) -> None:
        await commit(summaries, node(1, 10))
        with pytest.raises(Conflict):
            await commit(summaries, node(first, last, text="wrong"))
        assert (await summaries.read(ONE)).nodes == (node(1, 10),)

    async def test_of_many_who_commit_a_range_one_wins(self, summaries: SummaryLog) -> None:
        tries = [commit(summaries, node(1, 10, text=f"writer {i}"), f"writer {i}") for i in range(10)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert results.count(None) == 1
        assert all(isinstance(r, Conflict) for r in results if r is not None)
        winner = results.index(None)
        assert (await summaries.read(ONE)).nodes == (node(1, 10, text=f"writer {winner}"),)

    async def test_a_claim_keeps_others_out_until_it_runs_out(self, summaries: SummaryLog) -> None:
        until = START + MINUTE
        assert await summaries.claim(ONE, after=0, holder="a", until=until, now=START)
        assert not await summaries.claim(ONE, after=0, holder="b", until=until, now=START)
        assert await summaries.claim(ONE, after=0, holder="a", until=until, now=START), "again, by its holder"
        assert await summaries.claim(ONE, after=0, holder="b", until=until + MINUTE, now=until), "it has run out"
        await summaries.release(ONE, holder="a")
        assert not await summaries.claim(ONE, after=0, holder="a", until=until, now=until), "not a's to release"
        await summaries.release(ONE, holder="b")
        assert await summaries.claim(ONE, after=0, holder="a", until=until, now=START)

    async def test_without_the_claim_nothing_is_committed(self, summaries: SummaryLog) -> None:
        with pytest.raises(Conflict):
            await summaries.commit(ONE, node(1, 10), holder="a")
        assert await summaries.claim(ONE, after=0, holder="b", until=START + MINUTE, now=START)
        with pytest.raises(Conflict):
            await summaries.commit(ONE, node(1, 10), holder="a")
        assert (await summaries.read(ONE)).nodes == ()

    async def test_an_erased_session_s_summary_does_not_reach_its_next_life(
        self, logs: tuple[MessageLog, SummaryLog]
    ) -> None:
        log, summaries = logs
        await log.append(talk(20))
        assert await summaries.claim(ONE, after=0, holder="a", until=START + MINUTE, now=START)
        await log.delete(user_id="u", session_id="s")
        await log.append(talk(20))
        with pytest.raises(Conflict):
            await summaries.commit(ONE, node(1, 10, text="of the old life"), holder="a")
        assert (await summaries.read(ONE)).nodes == ()

    async def test_what_is_covered_cannot_be_claimed(self, summaries: SummaryLog) -> None:
        await commit(summaries, node(1, 10))
        assert not await summaries.claim(ONE, after=0, holder="a", until=START + MINUTE, now=START)
        assert await summaries.claim(ONE, after=10, holder="writer", until=START + MINUTE, now=START)

    async def test_a_parent_covers_exactly_its_children(self, summaries: SummaryLog) -> None:
        for first in (1, 6, 11, 16):
            await commit(summaries, node(first, first + 4))
        for first, last in ((1, 8), (2, 10), (1, 25), (1, 5)):
            with pytest.raises(Conflict):
                await commit(summaries, node(first, last, level=1))
        await commit(summaries, node(1, 10, level=1))
        with pytest.raises(Conflict):
            await commit(summaries, node(1, 10, level=1, text="again"))
        with pytest.raises(Conflict):
            await commit(summaries, node(6, 15, level=1, text="overlapping"))
        ranges = [(n.level, n.from_seq, n.to_seq) for n in (await summaries.read(ONE)).nodes]
        assert ranges == [(0, 1, 5), (1, 1, 10), (0, 6, 10), (0, 11, 15), (0, 16, 20)]
        assert [(n.level, n.from_seq) for n in (await summaries.read(ONE, finest=0)).nodes] == [
            (1, 1),
            (0, 11),
            (0, 16),
        ]
        assert [(n.level, n.from_seq) for n in (await summaries.read(ONE, finest=1)).nodes][:2] == [(1, 1), (0, 6)]

    async def test_summaries_go_with_their_session(self, logs: tuple[MessageLog, SummaryLog]) -> None:
        log, summaries = logs
        await log.append(talk(20))
        await commit(summaries, node(1, 10))
        assert (await log.delete(user_id="u", session_id="s")).removed["summaries"] == 1
        assert (await summaries.read(ONE)).nodes == ()
        with pytest.raises(Conflict):
            await commit(summaries, node(11, 20))
        await log.append(talk(3))
        assert (await summaries.read(ONE)).nodes == ()

    async def test_summaries_go_with_the_last_of_their_messages(self, logs: tuple[MessageLog, SummaryLog]) -> None:
        log, summaries = logs
        await log.append(talk(20))
        await commit(summaries, node(1, 10))
        await commit(summaries, node(11, 20))
        assert (await log.prune(START + 6 * MINUTE)).removed["summaries"] == 1
        state = await summaries.read(ONE)
        assert [n.from_seq for n in state.nodes] == [11]
        assert state.covered == 20
