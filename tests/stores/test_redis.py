"""The hot tier on Redis 6.2, on Valkey 9, over a Cluster and over Sentinels."""

import asyncio
import random
import time
import uuid

import pytest
import redis.asyncio
from pydantic import SecretStr
from tests.servers import Redis
from tests.stores.test_conformance import ROWS

from llm_memory_plugins.errors import StoreUnavailable
from llm_memory_plugins.stores.cached import FILL_SECONDS, CachedMessageLog
from llm_memory_plugins.stores.redis import Breaker, RedisClient, RedisHotTier
from llm_memory_plugins.stores.redis.client import Refused
from llm_memory_plugins.stores.redis.encoding import decode_copy, encode_copy
from llm_memory_plugins.stores.redis.keys import tail_key
from llm_memory_plugins.stores.redis.tier import TOMBSTONE_MS
from llm_memory_plugins.stores.sqlite import Database, SqliteMessageLog
from llm_memory_plugins.testing.hot_tier import ALL, SharedHotTierSuite, numbered, seen, stats, tail
from llm_memory_plugins.testing.message_log import ONE, MessageLogSuite, contents, say, talk
from llm_memory_plugins.types import SessionRef, Window

pytestmark = pytest.mark.slow

PATIENT = 5.0  # seconds: these tests are about what is answered, not how soon, on a machine that does much else
GARBAGE = [
    b"", b"x", b"[]", b"{}", b"nonsense", b"\xff\xfe\xfd", b'["H"', b'["H"]', b'["H",1]', b'["H",1,2,3,4,5,6,7]',
    b'["H",1,1,20,1,1,1,"yesterday",null]', b'["H",1,1,20,1,1,1,5,5]', b'["T",1]', b'["u",1]', b'["u",1,2,3,4,5,6,7,8]',
    b'["?",1,"i","c","2026-03-01T09:00:00+00:00",1,"t",null,null]', b"[" * 100_000,
    b'["u",1,"i","c","2026-03-01T09:00:00+00:00",1,"t",null,"{\\"payload\\":{\\"$decimal\\":\\"x\\"}}"]',
    b'["u",1,"i","c","2026-03-01T09:00:00+00:00",1,"t",null,"[1]"]',
]  # fmt: skip


@pytest.fixture
def prefix():
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
async def client(server):
    opened = RedisClient(SecretStr(server.url), timeout=PATIENT)
    yield opened
    await opened.close()


@pytest.fixture
async def hot(client, prefix):
    return RedisHotTier(client, ttl_seconds=60, prefix=prefix)


@pytest.fixture
async def behind(server):
    """redis-py itself, on the same server: what is really there."""
    raw = redis.asyncio.from_url(server.url)
    yield raw
    await raw.aclose()


class TestOnRedis(SharedHotTierSuite):
    @pytest.fixture
    def server(self, redis_server):
        return redis_server

    @pytest.fixture
    async def hot(self, client, prefix):
        return RedisHotTier(client, ttl_seconds=60, prefix=prefix)

    async def test_every_key_has_an_end(self, hot, behind, prefix):
        for n in range(1, 40):
            await hot.fill(tail(n, SessionRef(str(n % 7), "u"), epoch=n))
            await hot.push(stats(n + 1, session=SessionRef(str(n % 5), "u"), epoch=n), numbered(n + 1, n + 1))
            await hot.drop([stats(n, session=SessionRef(str(n % 3), "v"))])
        lives = [await behind.pttl(key) async for key in behind.scan_iter(f"{prefix}:*")]
        assert len(lives) > 7
        assert all(0 < life <= 60_000 for life in lives)

    async def test_reading_does_not_lengthen_a_copy_s_life(self, hot, behind, prefix):
        await hot.fill(tail(3))
        key = tail_key(prefix, ONE)
        await behind.pexpire(key, 1000)
        await hot.read(ONE, ALL)
        assert await behind.pttl(key) <= 1000
        await hot.push(stats(4), numbered(4, 4))
        assert await behind.pttl(key) > 1000

    async def test_a_copy_ends(self, client, prefix):
        brief = RedisHotTier(client, ttl_seconds=0.05, prefix=prefix)
        await brief.fill(tail(3))
        assert await seen(brief) == 3
        await asyncio.sleep(0.1)
        assert await seen(brief) is None

    async def test_keys_show_no_ids(self, hot, behind, prefix):
        await hot.fill(tail(1, SessionRef("secret-session", "ada@example.org")))
        keys = [key async for key in behind.scan_iter(f"{prefix}:*")]
        assert len(keys) == 1
        assert b"secret" not in keys[0]
        assert b"ada" not in keys[0]

    @pytest.mark.parametrize("wrong", ["text", "hash", "set", "empty list"])
    async def test_what_is_no_copy_counts_as_none_and_makes_room(self, hot, behind, prefix, wrong):
        key = tail_key(prefix, ONE)

        async def put():
            if wrong == "text":
                await behind.set(key, "x")
            elif wrong == "hash":
                await behind.hset(key, "a", "b")
            elif wrong == "set":
                await behind.sadd(key, "a")
            else:
                await behind.rpush(key, "")

        await put()
        assert await hot.read(ONE, ALL) is None
        await hot.fill(tail(3))
        assert await seen(hot) == 3
        await behind.delete(key)
        await put()
        await hot.push(stats(4), numbered(4, 4))
        assert await seen(hot) is None
        await hot.fill(tail(4))
        await behind.delete(key)
        await put()
        assert await hot.drop([stats(4)]) == 0
        assert 0 < await behind.pttl(key) <= TOMBSTONE_MS

    async def test_garbage_in_the_list(self, hot, behind, prefix):
        key = tail_key(prefix, ONE)
        for last in GARBAGE:
            for elements in ([last], [*GARBAGE[:3], last], [GARBAGE[-1], encode_copy(tail(1))[-1], last]):
                await behind.delete(key)
                await behind.rpush(key, *elements)
                assert await hot.read(ONE, ALL) is None
                assert await hot.read(ONE, Window("turns", 1)) is None
                await hot.push(stats(4, epoch=3), numbered(4, 4))
                await hot.fill(tail(5, epoch=3))
                assert await seen(hot) == 5

    async def test_a_server_that_has_forgotten_the_scripts_is_sent_them_again(self, hot, behind, prefix):
        for _ in range(2):
            await behind.script_flush()
            await hot.fill(tail(3))
            await behind.script_flush()
            await hot.push(stats(4), numbered(4, 4))
            assert await seen(hot) == 4
            await behind.script_flush()
            assert await hot.drop([stats(4), stats(4, session=SessionRef("t", "u"))]) == 1
            await behind.script_flush()
            await hot.fill(tail(1, epoch=2))
            assert await seen(hot) == 1
            await hot.drop([stats(4, epoch=2)])
            await behind.delete(*[key async for key in behind.scan_iter(f"{prefix}:*")])

    async def test_ping(self, client):
        await client.open()
        await client.ping()


class TestOnValkey(TestOnRedis):
    @pytest.fixture
    def server(self, valkey_server):
        return valkey_server


class TestOverSentinels(SharedHotTierSuite):
    @pytest.fixture
    async def hot(self, redis_sentinel, prefix):
        opened = RedisClient(SecretStr(redis_sentinel.url), timeout=PATIENT)
        await opened.ping()
        yield RedisHotTier(opened, ttl_seconds=60, prefix=prefix)
        await opened.close()


class TestOverACluster(SharedHotTierSuite):
    @pytest.fixture
    async def hot(self, redis_cluster, prefix):
        opened = RedisClient(SecretStr(redis_cluster.url), timeout=PATIENT)
        await opened.ping()
        yield RedisHotTier(opened, ttl_seconds=60, prefix=prefix)
        await opened.close()

    async def test_the_sessions_are_spread_and_nodes_forget_scripts(self, hot, redis_cluster):
        nodes = [redis.asyncio.from_url(node.url) for node in redis_cluster.nodes]
        refs = [SessionRef(str(n), "u") for n in range(60)]
        for ref in refs[:30]:
            await hot.fill(tail(2, ref))
        for node in nodes:
            await node.script_flush()
            assert await node.dbsize() > 0
        assert await hot.drop([stats(2, session=ref) for ref in refs]) == 30
        for node in nodes:
            await node.aclose()

    async def test_more_readers_than_connections(self, hot):
        await hot.fill(tail(3))
        assert await asyncio.gather(*(seen(hot) for _ in range(500))) == [3] * 500


class TestCachedMessageLogOnRedis(MessageLogSuite):
    @pytest.fixture
    def server(self, redis_server):
        return redis_server

    @pytest.fixture
    async def log(self, hot):
        self.database = Database(None)
        await self.database.open()
        yield CachedMessageLog(SqliteMessageLog(self.database), hot)
        await self.database.close()

    async def rows(self, log):
        return await self.database.read(lambda connection: connection.execute(ROWS).fetchall())

    async def test_hot_reads_are_what_the_log_says(self, log, hot):
        await log.append([say("rules", role="system"), *talk(30)])
        for window in (Window("turns", 5), Window("tokens", 100), Window("turns", 3, max_tokens=30)):
            cold = await log.recent(ONE, window)
            copy = await hot.read(ONE, window)
            assert copy is not None
            assert copy.stats == cold.stats
            assert copy.messages[-len(cold.messages) :] == cold.messages
            assert await log.recent(ONE, window) == copy

    async def test_losing_everything_at_any_time_loses_nothing(self, log, behind, prefix):
        for n in range(60):
            await log.append([say(str(n))])
            if n % 7 == 0:
                await behind.delete(tail_key(prefix, ONE))
            newest = await log.recent(ONE, Window("turns", 4))
            assert contents(newest.messages)[-4:] == [str(i) for i in range(max(0, n - 3), n + 1)]

    async def test_processes_that_share_it_lose_and_reorder_nothing(self, server, log, prefix):
        """Three processes' worth of caches over one log and one Redis, which loses the copy now and then."""
        dice = random.Random(5)
        clients = [RedisClient(SecretStr(server.url), timeout=PATIENT) for _ in range(3)]
        caches = [
            CachedMessageLog(SqliteMessageLog(self.database), RedisHotTier(c, ttl_seconds=60, prefix=prefix))
            for c in clients
        ]

        async def write(writer):
            for n in range(25):
                cache = dice.choice(caches)
                message = say(f"{writer}-{n}", id=f"{writer}-{n}")
                for _ in range(dice.choice((1, 1, 2))):  # delivered twice
                    (stored,) = (await cache.append([message])).messages
                own = await cache.recent(ONE, Window("turns", 3))
                assert own.stats.last_seq >= stored.seq, "its own write"

        async def read(cache):
            newest = 0
            while newest < 150:
                copy = await cache.recent(ONE, Window("turns", 5))
                assert copy.stats.last_seq >= newest, "backwards"
                newest = copy.stats.last_seq
                seqs = [m.seq for m in copy.messages]
                assert seqs == list(range(newest - len(seqs) + 1, newest + 1))
                if dice.random() < 0.01:
                    await clients[0].call("DEL", tail_key(prefix, ONE))
                await asyncio.sleep(0.001)

        await asyncio.gather(*(write(w) for w in range(6)), *(read(c) for c in caches))
        stored = await log.page(ONE)
        assert [m.seq for m in stored] == list(range(1, 151))
        for client in clients:
            await client.close()


def test_no_fill_outlives_the_tombstone_it_must_meet():
    assert FILL_SECONDS * 1000 <= TOMBSTONE_MS / 2


def test_decoding_never_raises():
    dice = random.Random(1)
    whole = [element.encode() for element in encode_copy(tail(3))]
    for _ in range(3000):
        elements = [dice.choice((*GARBAGE[:-3], *whole)) for _ in range(dice.randint(0, 5))]
        if elements and dice.random() < 0.5:
            broken = bytearray(dice.choice(whole))
            broken[dice.randrange(len(broken))] = dice.randrange(256)
            elements[-1] = bytes(broken)
        decode_copy(elements, ONE, Window("turns", dice.randint(1, 3)))


async def test_a_dead_server_is_reported_at_once_and_stops_nothing():
    with Redis() as gone:
        url = gone.url
    client = RedisClient(SecretStr(url))
    await client.open()
    hot = RedisHotTier(client, ttl_seconds=60)
    for call in (hot.read(ONE, ALL), hot.fill(tail(1)), hot.push(stats(1), numbered(1, 1)), hot.drop([stats(1)])):
        started = time.perf_counter()
        with pytest.raises(StoreUnavailable):
            await call
        assert time.perf_counter() - started < 0.2
    with pytest.raises(StoreUnavailable, match="ConnectionError"):
        await client.ping()
    await client.close()


async def test_a_hung_server_costs_one_timeout_then_nothing_and_is_found_again():
    with Redis() as server:
        client = RedisClient(SecretStr(server.url), timeout=0.2, breaker=Breaker(failures=2, delay=0.1))
        hot = RedisHotTier(client, ttl_seconds=60)
        await hot.fill(tail(3))
        server.stop()
        for longest in (0.6, 0.6, 0.05, 0.05):
            started = time.perf_counter()
            with pytest.raises(StoreUnavailable):
                await hot.read(ONE, ALL)
            assert time.perf_counter() - started < longest
        server.cont()
        await asyncio.sleep(0.15)
        assert await seen(hot) == 3
        assert await asyncio.gather(*(seen(hot) for _ in range(200))) == [3] * 200, "no reply went to another caller"
        await client.close()


async def test_cancelled_calls_do_not_mix_up_replies():
    with Redis() as server:
        client = RedisClient(SecretStr(server.url), timeout=PATIENT)
        hot = RedisHotTier(client, ttl_seconds=60)
        refs = [SessionRef(str(n), "u") for n in range(20)]
        for n, ref in enumerate(refs, 1):
            await hot.fill(tail(n, ref))
        dice = random.Random(2)
        for _ in range(30):
            tasks = [asyncio.create_task(seen(hot, ref)) for ref in refs]
            await asyncio.sleep(dice.random() * 0.003)
            for task in dice.sample(tasks, 10):
                task.cancel()
            for n, got in enumerate(await asyncio.gather(*tasks, return_exceptions=True), 1):
                assert got == n or isinstance(got, asyncio.CancelledError)
        await client.close()


async def test_a_full_server_refuses_and_the_log_goes_on():
    with Redis(maxmemory="100mb", maxmemory_policy="noeviction") as server:
        database = Database(None)
        await database.open()
        client = RedisClient(SecretStr(server.url), timeout=PATIENT)
        hot = RedisHotTier(client, ttl_seconds=60)
        log = CachedMessageLog(SqliteMessageLog(database), hot)
        await log.append(talk(3))
        await log.recent(ONE, Window("turns", 3))
        server.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(Refused, match="OOM"):
            await hot.push(stats(7), numbered(7, 7))
        assert await hot.read(ONE, ALL) is None, "what cannot follow goes"
        with pytest.raises(Refused):
            await hot.fill(tail(7))
        for n in range(5):
            await log.append([say(str(n))])
            newest = await log.recent(ONE, Window("turns", 9))
            assert contents(newest.messages)[-1] == str(n)
        await client.close()
        await database.close()


async def test_a_read_only_server_serves_reads():
    with Redis() as server:
        client = RedisClient(SecretStr(server.url), timeout=PATIENT)
        hot = RedisHotTier(client, ttl_seconds=60)
        await hot.fill(tail(3))
        server.call("CONFIG", "SET", "min-replicas-to-write", "1")
        for _ in range(9):
            with pytest.raises(Refused):
                await hot.push(stats(4), numbered(4, 4))
            assert await seen(hot) == 3, "errors of a server that answers do not open the breaker"
        await client.close()


async def test_the_list_is_read_with_one_plain_command(redis_server, prefix):
    client = RedisClient(SecretStr(redis_server.url), timeout=PATIENT)
    sent = []
    original = client._found.driver.execute_command
    client._found.driver.execute_command = lambda *words: (sent.append(words[0]), original(*words))[1]
    hot = RedisHotTier(client, ttl_seconds=60, prefix=prefix)
    await hot.fill(tail(3))
    sent.clear()
    await hot.read(ONE, ALL)
    await hot.push(stats(4), numbered(4, 4))
    assert sent == ["LRANGE", "EVALSHA"]
    await client.close()
