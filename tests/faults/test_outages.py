"""One server is down, both are, and they come back: what a caller then gets, how soon, and what is left behind."""

import asyncio
import time
from collections import Counter

import psycopg
import pytest
from pydantic import SecretStr
from tests.faults.worker import Counting

from llm_memory_plugins.errors import StoreUnavailable
from llm_memory_plugins.stores.cached import CachedMessageLog
from llm_memory_plugins.stores.postgres import PostgresTransport
from llm_memory_plugins.stores.redis import RedisClient, RedisHotTier
from llm_memory_plugins.stores.sql_functions import SqlMessageLog
from llm_memory_plugins.testing.message_log import ONE, contents, say, talk
from llm_memory_plugins.types import Window

pytestmark = pytest.mark.slow

FIVE = Window("turns", 5)
TIMEOUT = 1.0  # of a call of the database
SLACK = 1.0  # seconds, on a machine that does much else
HEALED = 10.0
ROWS = "select id from llm_memory.messages order by seq"


class Stack:
    """The objects of one process."""

    def __init__(self, stores, **options):
        self.transport = PostgresTransport(SecretStr(stores.url), **{"timeout": TIMEOUT, **options})
        self.counting = Counting(self.transport)
        self.client = RedisClient(SecretStr(stores.redis.url))

    async def open(self, ttl=60):
        await self.transport.open()
        self.log = CachedMessageLog(SqlMessageLog(self.counting), RedisHotTier(self.client, ttl_seconds=ttl))
        return self.log

    async def close(self):
        await self.client.close()
        await self.transport.close()


@pytest.fixture
async def stack(stores):
    stack = Stack(stores)
    await stack.open()
    yield stack
    await stack.close()


@pytest.fixture
async def other(stores):
    """Another process."""
    stack = Stack(stores)
    await stack.open()
    yield stack
    await stack.close()


@pytest.fixture(autouse=True)
def _empty(stores):
    stores.redis.call("FLUSHALL")
    with psycopg.connect(stores.behind, autocommit=True) as connection:
        connection.execute("truncate llm_memory.sessions cascade")


def stored(stores):
    with psycopg.connect(stores.behind) as connection:
        return [identity for (identity,) in connection.execute(ROWS)]


async def timed(call):
    """What came of it, an error too, and the seconds it took."""
    begun = time.monotonic()
    result = (await asyncio.gather(call, return_exceptions=True))[0]
    return result, time.monotonic() - begun


async def healed(log):
    """Wait until a write is acknowledged and a read is served by its copy."""
    begun = time.monotonic()
    while time.monotonic() - begun < HEALED:
        try:
            await log.append([say("healed", id="healed")])
            if (await log.recent(ONE, FIVE)).error is None:
                return
        except StoreUnavailable:
            pass
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {HEALED} s")


async def hot(stack):
    """Whether a read asks the database nothing."""
    before = Counter(stack.counting.calls)
    tail = await stack.log.recent(ONE, FIVE)
    return tail.error is None and stack.counting.calls == before


async def test_five_hundred_cold_readers_cause_one_query(stores, stack):
    with psycopg.connect(stores.behind, autocommit=True) as connection:
        connection.execute("alter database memory set track_functions = 'all'")
        connection.execute("select pg_stat_reset()")
    reader = Stack(stores)
    await stack.log.append(talk(3))
    stores.redis.call("FLUSHALL")
    await reader.open()
    try:
        tails = await asyncio.gather(*(reader.log.recent(ONE, FIVE) for _ in range(500)))
    finally:
        await reader.close()
    assert {len(tail.messages) for tail in tails} == {6}
    assert reader.counting.calls["recent_messages"] == 1
    with psycopg.connect(stores.behind) as connection:
        connection.execute("alter database memory reset track_functions")
        # A connection reports what it did when it ends, which it does in its own time.
        for _ in range(100):
            calls = connection.execute(
                "select coalesce(sum(calls), 0) from pg_stat_user_functions where funcname = 'recent_messages'"
            ).fetchone()
            connection.commit()
            if calls != (0,):
                break
            await asyncio.sleep(0.05)
    assert calls == (1,)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_while_the_database_is_down_copies_are_read_and_nothing_is_acknowledged(stores, stack, how):
    log = stack.log
    await log.append(talk(2))
    await log.recent(ONE, FIVE)
    assert await hot(stack)
    getattr(stores.postgres, how)()
    error, seconds = await timed(log.append([say("lost", id="lost")]))
    assert isinstance(error, StoreUnavailable)
    assert seconds < TIMEOUT + SLACK
    tail, seconds = await timed(log.recent(ONE, FIVE))
    assert seconds < SLACK
    assert contents(tail.messages) == ["user 0", "assistant 0", "user 1", "assistant 1"]
    assert "may be stale" in tail.error
    error, seconds = await timed(log.page(ONE))
    assert isinstance(error, StoreUnavailable)
    assert seconds < TIMEOUT + SLACK
    stores.heal()
    await healed(log)
    assert await hot(stack)
    # One whose answer was only late may have been carried out; said again it is one.
    again = (await log.append([say("lost", id="lost")])).messages[0]
    assert stored(stores)[again.seq - 1] == "lost"
    assert stored(stores).count("lost") == 1


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_while_redis_is_down_everything_goes_on_and_says_so(stores, stack, how):
    log = stack.log
    await log.append(talk(2))
    await log.recent(ONE, FIVE)
    getattr(stores.redis, how)()
    for number in range(10):
        done, seconds = await timed(log.append([say(f"n{number}")]))
        assert done.messages[0].seq == 5 + number
        assert seconds < SLACK
        tail, seconds = await timed(log.recent(ONE, FIVE))
        assert contents(tail.messages)[-1] == f"n{number}"
        assert "Redis" in tail.error
        assert seconds < SLACK
    stores.heal()
    await healed(log)
    assert await hot(stack)
    assert contents((await log.recent(ONE, FIVE)).messages)[-1] == "healed"


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_while_both_are_down_both_raise_and_nothing_is_acknowledged(stores, stack, how):
    log = stack.log
    await log.append(talk(2))
    await log.recent(ONE, FIVE)
    getattr(stores.redis, how)()
    getattr(stores.postgres, how)()
    for _ in range(3):
        calls = [timed(log.append([say("x")])), *(timed(log.recent(ONE, FIVE)) for _ in range(5))]
        for error, seconds in await asyncio.gather(*calls):
            assert isinstance(error, StoreUnavailable)
            assert seconds < TIMEOUT + SLACK
    stores.heal()
    await healed(log)
    assert await hot(stack)


async def test_a_process_that_missed_a_write_reads_it_when_the_copy_ends(stores, stack):
    ttl = 2.5
    late = Stack(stores)
    await late.open(ttl)
    await stack.open(ttl)
    try:
        await stack.log.append(talk(1))
        assert contents((await late.log.recent(ONE, FIVE)).messages) == ["user 0", "assistant 0"]
        stores.redis.stop()
        for text in ("first", "second", "third", "missed"):  # of these Redis hears nothing in time
            await stack.log.append([say(text)])
        acknowledged = time.monotonic()
        missed, seen = 0, None
        stores.redis.cont()
        while time.monotonic() - acknowledged < ttl + HEALED:
            begun = time.monotonic()
            tail = await late.log.recent(ONE, FIVE)
            if contents(tail.messages)[-1] == "missed":
                seen = begun
                break
            missed += 1
            await asyncio.sleep(0.05)
        assert missed
        assert seen is not None
        assert seen - acknowledged < ttl + SLACK
        assert contents((await stack.log.recent(ONE, FIVE)).messages)[-1] == "missed"
    finally:
        await late.close()


async def test_cancelled_callers_leave_no_connection_behind(stores):
    stack = Stack(stores, pool_size=2, timeout=5.0)
    log = await stack.open()
    try:
        for number in range(100):
            task = asyncio.create_task(log.append([say(id=f"c{number}")]))
            # At once, while it waits for a connection, in the middle of the call, while the copy follows.
            await asyncio.sleep(number % 10 / 2000)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        results = await asyncio.gather(*(timed(log.append([say(id=f"k{number}")])) for number in range(10)))
        assert all(not isinstance(done, Exception) and seconds < 5 for done, seconds in results)
        pool = stack.transport._pool
        for _ in range(100):
            if pool.get_stats()["pool_available"] == pool.get_stats()["pool_size"]:
                break
            await asyncio.sleep(0.02)
        stats = pool.get_stats()
        assert (stats["pool_size"], stats["pool_available"]) == (2, 2)
        assert not stats.get("requests_waiting")
        assert not stats.get("connections_lost")
    finally:
        await stack.close()
    with psycopg.connect(stores.behind) as connection:
        for _ in range(100):
            left = connection.execute(
                "select count(*) from pg_stat_activity where usename = 'authenticator'"
            ).fetchone()
            connection.commit()
            if left == (0,):
                break
            await asyncio.sleep(0.02)
    assert left == (0,)
    kept = stored(stores)
    assert len(kept) == len(set(kept))
    assert {f"k{number}" for number in range(10)} <= set(kept)


async def test_a_caller_cancelled_in_a_frozen_call_frees_its_connection_with_the_time_out(stores):
    stack = Stack(stores, pool_size=2)
    log = await stack.open()
    try:
        await log.append(talk(1))
        stores.postgres.stop()
        tasks = [asyncio.create_task(log.append([say()])) for _ in range(20)]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stores.postgres.cont()
        await healed(log)
    finally:
        await stack.close()


@pytest.mark.parametrize("callers", [1, 20])
async def test_a_frozen_database_holds_nobody_longer_than_the_time_out(stores, stack, callers):
    log = stack.log
    await log.append(talk(1))
    stores.postgres.stop()
    calls = [timed(log.append([say(id=f"f{n}")])) for n in range(callers)]
    calls += [timed(log.page(ONE)) for _ in range(callers)]
    for error, seconds in await asyncio.gather(*calls):
        assert isinstance(error, StoreUnavailable)
        assert seconds < TIMEOUT + SLACK
    stores.postgres.cont()
    await healed(log)
    before = len(stored(stores))
    done = await asyncio.gather(*(log.append([say(id=f"f{n}")]) for n in range(callers)))
    kept = stored(stores)
    assert all(kept[each.messages[0].seq - 1] == f"f{n}" for n, each in enumerate(done))
    assert len(kept) == len(set(kept)) <= before + callers


async def test_a_long_freeze_holds_nobody_longer_and_is_over_for_all_as_soon_as_it_ends(stores, stack, other):
    async def call(log, number):
        await asyncio.sleep(number * TIMEOUT / 20)  # so that some begin while the others' calls fail
        took = []
        while time.monotonic() - begun < 4.5:  # longer than it takes to find that nobody can connect
            result, seconds = await timed(log.append([say(id=f"l{number}")]))
            assert isinstance(result, StoreUnavailable)
            took.append(seconds)
            await asyncio.sleep(0.05)
        return took

    await stack.log.append(talk(1))
    stores.postgres.stop()
    begun = time.monotonic()
    took = await asyncio.gather(*(call(each.log, number) for each in (stack, other) for number in range(20)))
    stores.postgres.cont()
    over = time.monotonic()
    await healed(stack.log)
    await healed(other.log)
    assert time.monotonic() - over < 5
    assert min(map(len, took)) >= 2
    assert max(map(max, took)) < TIMEOUT + SLACK


async def test_two_refusals_at_once_are_told_to_all_who_wait(stores):
    stack = Stack(stores, timeout=5.0, pool_size=2)
    log = await stack.open()
    try:
        await log.append(talk(1))
        stores.postgres.stop()
        calls = [asyncio.create_task(timed(log.append([say(id=f"r{n}")]))) for n in range(12)]
        await asyncio.sleep(0.2)
        for _ in range(5):
            await stack.transport._refused(None)
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        stores.postgres.cont()
        results = await asyncio.gather(*calls)
        assert all(seconds < 5 for _, seconds in results)
        await healed(log)
    finally:
        await stack.close()
