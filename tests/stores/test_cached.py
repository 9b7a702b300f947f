"""The log behind a hot tier: what is believed, when, and what becomes of failures and cancellations."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from cachetools import LRUCache

from llm_memory_plugins.errors import AmbiguousSession, InvalidInput, StoreUnavailable
from llm_memory_plugins.stores import cached
from llm_memory_plugins.testing.message_log import ONE, START, contents, say, talk
from llm_memory_plugins.types import SessionRef, SessionStats, Window

FIVE = Window("turns", 5)


async def test_a_hot_read_asks_the_log_nothing(cache, log):
    await cache.append(talk(3))
    await cache.recent(ONE, FIVE)
    log.calls.clear()
    await cache.append([say("next")])
    assert contents((await cache.recent(ONE, FIVE)).messages)[-1] == "next"
    assert log.calls == ["append"]


async def test_a_copy_older_than_what_this_process_wrote_is_not_believed(cache, elsewhere, tier):
    await cache.append(talk(1))
    await cache.recent(ONE, FIVE)
    tier.lose_pushes = True
    await cache.append([say("own write")])
    assert contents((await elsewhere.recent(ONE, FIVE)).messages) == ["user 0", "assistant 0"], "stale, till its end"
    assert contents((await cache.recent(ONE, FIVE)).messages)[-1] == "own write"
    assert contents((await elsewhere.recent(ONE, FIVE)).messages)[-1] == "own write", "that read has refilled it"


async def test_a_life_begun_again_elsewhere_is_newer_however_short(cache, elsewhere):
    await cache.append(talk(5))
    await cache.recent(ONE, FIVE)
    await elsewhere.delete(user_id="u", session_id="s")
    await elsewhere.append([say("again")])
    await elsewhere.recent(ONE, FIVE)
    assert contents((await cache.recent(ONE, FIVE)).messages) == ["again"]


async def test_a_copy_of_an_earlier_life_is_not_believed(cache, tier):
    await cache.append(talk(5))
    old = await cache.recent(ONE, FIVE)
    await cache.delete(user_id="u", session_id="s")
    tier._dropped.clear()
    await tier.fill(old)
    assert (await cache.recent(ONE, FIVE)).messages == ()
    await cache.append([say("again")])
    assert contents((await cache.recent(ONE, FIVE)).messages) == ["again"]


async def test_deleting_removes_copies_before_and_after_the_rows(cache, log, tier):
    for user in ("a", "b"):
        for name in ("1", "2"):
            await cache.append([say(session=SessionRef(name, user))])
            await cache.recent(SessionRef(name, user), FIVE)
    tier.calls.clear()
    receipt = await cache.delete(user_id="a")
    assert receipt.removed["hot_copies"] == 2
    assert {s.session_id for s in receipt.sessions} == {"1", "2"}
    assert all(s.epoch and s.last_seq == 1 for s in receipt.sessions)
    assert tier.calls == ["drop", "drop"]
    assert set(tier._copies) == {SessionRef("1", "b"), SessionRef("2", "b")}


async def test_deleting_goes_through_all_pages(cache, tier, monkeypatch):
    monkeypatch.setattr(cached, "_PAGE", 3)
    for n in range(8):
        await cache.append([say(session=SessionRef(str(n), "a"))])
        await cache.recent(SessionRef(str(n), "a"), FIVE)
    receipt = await cache.delete(user_id="a")
    assert (receipt.removed["hot_copies"], len(receipt.sessions), len(tier._copies)) == (8, 8, 0)


async def test_while_the_tier_is_down_nothing_is_erased_and_the_same_call_does_it_later(cache, log, tier):
    await cache.append(talk(1))
    await cache.recent(ONE, FIVE)
    tier.down = True
    with pytest.raises(StoreUnavailable):
        await cache.delete(user_id="u")
    assert len(await log.page(ONE)) == 2
    tier.down = False
    receipt = await cache.delete(user_id="u")
    assert (receipt.removed["messages"], receipt.removed["hot_copies"]) == (2, 1)


async def test_copies_left_behind_by_a_failure_after_the_erasure_go_with_the_next_call(cache, log, tier):
    await cache.append(talk(1))
    old = await cache.recent(ONE, FIVE)
    log.gate.clear()
    erasure = asyncio.create_task(cache.delete(user_id="u"))
    await log.called("sessions")
    log.gate.set()
    await log.called("delete")
    tier._dropped.clear()
    await tier.fill(old)  # somebody else's, late
    tier.down = True
    with pytest.raises(StoreUnavailable):
        await erasure
    assert await log.page(ONE) == ()
    tier.down = False
    assert (await cache.recent(ONE, FIVE)).messages == (), "erased, whatever copy there is"
    assert (await cache.delete(user_id="u")).removed["hot_copies"] == 1
    assert not tier._copies


async def test_a_named_session_whose_rows_are_gone_still_loses_its_copy(elsewhere, cache, log, tier):
    await cache.append(talk(1))
    await cache.recent(ONE, FIVE)
    await log.delete(user_id="u")
    assert (await elsewhere.delete(user_id="u", session_id="s")).removed["hot_copies"] == 1
    assert not tier._copies


async def test_what_delete_refuses_touches_no_copy(cache, tier):
    for user in ("a", "b"):
        await cache.append([say(session=SessionRef("s", user))])
        await cache.recent(SessionRef("s", user), FIVE)
    with pytest.raises(AmbiguousSession):
        await cache.delete(session_id="s")
    with pytest.raises(InvalidInput):
        await cache.delete()
    assert len(tier._copies) == 2


async def test_pruning_drops_the_copies_of_what_it_touched_and_again_after_a_failure(cache, tier):
    old, new = SessionRef("old", "u"), SessionRef("new", "u")
    await cache.append([say("o", session=old), say("n", session=new, created_at=START.replace(year=2027))])
    await cache.append([say("kept", session=old, created_at=START.replace(year=2027))])
    for ref in (old, new):
        await cache.recent(ref, FIVE)
    tier.down = True
    with pytest.raises(StoreUnavailable):
        await cache.prune(START.replace(month=12))
    tier.down = False
    assert contents((await cache.recent(old, FIVE)).messages) == ["kept"]
    await tier.fill(await cache.recent(old, FIVE))
    assert (await cache.prune(START.replace(month=12))).removed["hot_copies"] == 1
    assert set(tier._copies) == {new}


async def test_five_hundred_cold_readers_cause_one_query(cache, log):
    await cache.append(talk(3))
    log.calls.clear()
    tails = await asyncio.gather(*(cache.recent(ONE, FIVE) for _ in range(500)))
    assert log.calls == ["recent"]
    assert {len(t.messages) for t in tails} == {6}


async def test_a_failure_reaches_all_who_wait_and_the_next_reader_tries_again(cache, log):
    await cache.append(talk(1))
    log.calls.clear()
    log.down = True
    results = await asyncio.gather(*(cache.recent(ONE, FIVE) for _ in range(20)), return_exceptions=True)
    assert {type(r) for r in results} == {StoreUnavailable}
    assert log.calls == ["recent"]
    log.down = False
    assert len((await cache.recent(ONE, FIVE)).messages) == 2


async def test_a_cancelled_reader_cancels_nobody_else(cache, log):
    await cache.append(talk(1))
    log.gate.clear()
    readers = [asyncio.create_task(cache.recent(ONE, FIVE)) for _ in range(5)]
    await asyncio.sleep(0.01)
    readers[0].cancel()
    log.gate.set()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert [len(r.messages) for r in results[1:]] == [2] * 4


async def test_a_failure_nobody_waits_for_any_more_is_no_complaint(cache, log):
    complaints = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    await cache.append(talk(1))
    reader = asyncio.create_task(cache.recent(ONE, FIVE))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    reader.cancel()
    log.down = True
    await asyncio.sleep(0.02)
    assert complaints == []


async def test_no_reader_gets_what_is_older_than_its_own_write(cache, log):
    await cache.append(talk(1))
    log.gate.clear()
    early = asyncio.create_task(cache.recent(ONE, FIVE))
    await asyncio.sleep(0.01)
    log.gate.set()
    written = asyncio.create_task(cache.append([say("new")]))
    log.gate.clear()
    await asyncio.sleep(0.01)
    log.gate.set()
    await written
    late = await cache.recent(ONE, FIVE)
    assert contents(late.messages)[-1] == "new"
    await early


async def test_many_late_readers_share_the_second_read_too(cache, log):
    await cache.append(talk(1))
    log.calls.clear()
    log.gate.clear()
    early = asyncio.create_task(cache.recent(ONE, FIVE))
    await asyncio.sleep(0.01)
    cache._note(replace((await log._log.append([say("new")])).stats[0]))
    late = [asyncio.create_task(cache.recent(ONE, FIVE)) for _ in range(50)]
    await asyncio.sleep(0.01)
    log.gate.set()
    assert {contents(t.messages)[-1] for t in await asyncio.gather(*late)} == {"new"}
    assert log.calls == ["recent", "recent"]
    await early


async def test_reading_a_session_that_was_erased_costs_one_read(cache, log):
    await cache.append(talk(1))
    await cache.delete(user_id="u")
    log.calls.clear()
    assert (await cache.recent(ONE, FIVE)).messages == ()
    assert log.calls == ["recent"]


async def test_a_slow_read_is_not_put_into_the_tier(cache, log, tier, monkeypatch):
    await cache.append(talk(1))
    monkeypatch.setattr(cached, "FILL_SECONDS", -1.0)
    assert len((await cache.recent(ONE, FIVE)).messages) == 2
    assert "fill" not in tier.calls


async def test_a_retry_of_a_lost_push_is_pushed(cache, elsewhere, tier):
    await cache.append(talk(1))
    await cache.recent(ONE, FIVE)
    tier.lose_pushes = True
    message = say("pushed at last")
    await cache.append([message])
    tier.lose_pushes = False
    await cache.append([message])
    assert contents((await elsewhere.recent(ONE, FIVE)).messages)[-1] == "pushed at last"


async def test_a_write_cancelled_between_commit_and_push_is_known_here(cache, log, tier):
    await cache.append(talk(1))
    await cache.recent(ONE, FIVE)
    push, reached = tier.push, asyncio.Event()

    async def slow(stats, messages):
        reached.set()
        await asyncio.sleep(9)

    tier.push = slow
    task = asyncio.create_task(cache.append([say("committed")]))
    await reached.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    tier.push = push
    assert contents((await cache.recent(ONE, FIVE)).messages)[-1] == "committed"


async def test_while_the_log_is_down_hot_reads_go_on_and_say_so(cache, log):
    await cache.append(talk(1))
    await cache.recent(ONE, FIVE)
    assert (await cache.recent(ONE, FIVE)).error is None
    log.down = True
    with pytest.raises(StoreUnavailable):
        await cache.append([say("not acknowledged")])
    copy = await cache.recent(ONE, FIVE)
    assert contents(copy.messages) == ["user 0", "assistant 0"]
    assert "may be stale" in copy.error
    log.down = False
    await cache.sessions()
    assert (await cache.recent(ONE, FIVE)).error is None


async def test_while_the_tier_is_down_reads_and_writes_go_on_and_say_so(cache, log, tier):
    tier.down = True
    await cache.append(talk(1))
    cold = await cache.recent(ONE, FIVE)
    assert len(cold.messages) == 2
    assert cold.error == "the tier is down"
    log.down = True
    with pytest.raises(StoreUnavailable):
        await cache.recent(ONE, FIVE)


async def test_a_session_that_does_not_exist_is_not_filled_in(cache, tier):
    assert (await cache.recent(SessionRef("nowhere", "u"), FIVE)).stats == SessionStats(
        session_id="nowhere", user_id="u"
    )
    assert "fill" not in tier.calls


async def test_a_write_whose_copy_was_lost_is_remembered_however_many_sessions_follow(cache, tier):
    cache._floor = LRUCache(2)
    await cache.append(talk(1))
    await cache.recent(ONE, FIVE)
    tier.down = True
    push = tier.push
    tier.push = lambda *_: lost()
    await cache.append([say("own write")])
    tier.down, tier.push = False, push
    for n in range(5):
        await cache.append([say(session=SessionRef(f"other {n}", "u"))])
    assert contents((await cache.recent(ONE, FIVE)).messages)[-1] == "own write"


async def lost():
    raise StoreUnavailable("the tier is down")


async def test_what_a_cancelled_caller_has_committed_reaches_the_copy(cache, elsewhere, log):
    await cache.append(talk(1))
    await cache.recent(ONE, FIVE)
    log.gate.clear()
    task = asyncio.create_task(cache.append([say("committed")]))
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    log.gate.set()
    await asyncio.sleep(0.05)
    for each in (cache, elsewhere):
        assert contents((await each.recent(ONE, FIVE)).messages)[-1] == "committed"


async def test_a_read_that_began_before_an_erasure_is_not_joined_after_it(cache, log):
    await cache.append([say("old", created_at=START), say("new", created_at=START + timedelta(days=2))])
    log.gate.clear()
    early = asyncio.create_task(cache.recent(ONE, FIVE))
    await log.called("recent")
    await asyncio.sleep(0.05)
    pruning = asyncio.create_task(cache.prune(START + timedelta(days=1)))
    await asyncio.sleep(0.05)
    log.gate.set()
    await pruning
    assert contents((await cache.recent(ONE, FIVE)).messages) == ["new"]
    await early
