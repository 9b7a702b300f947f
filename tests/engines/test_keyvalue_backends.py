"""Key-value memory on Redis with PostgreSQL, and on Redis with Supabase's API: real servers, real drivers."""

import asyncio
import base64
import json
import logging
import os
import time

import psycopg
import pytest
import redis.asyncio
from tests.engines.test_backends import direct, redis_url, residue, settings
from tests.servers import Proxy, Redis

from llm_memory_plugins import ConversationBufferMemory, KeyValueStoreMemory
from llm_memory_plugins.errors import AccessDenied, ConfigError, StoreUnavailable

pytestmark = pytest.mark.slow

__all__ = ["direct", "redis_url", "settings"]

SLACK = 1.0  # seconds, on a machine that does much else


@pytest.fixture(autouse=True)
def empty(database_url, monkeypatch):
    for variable in ("OPENAI_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY", "LLM_MEMORY_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("truncate llm_memory.key_values, llm_memory.sessions cascade")
        connection.execute("update llm_memory.store set hot = false")


async def test_the_key_value_example(settings):
    kv_memory = KeyValueStoreMemory({**settings, "namespace": "user_context", "serialize_json": True})
    await kv_memory.initialize()
    stored = await kv_memory.store({"key": "preferences", "value": {"theme": "dark"}, "user_id": "user_456"})
    assert stored["version"] > 0
    assert await kv_memory.get("preferences", user_id="user_456") == {"theme": "dark"}
    context = await kv_memory.get_context({"user_id": "user_456"})
    assert context["text"] == '<memory source="key_value">\n- preferences: {"theme": "dark"}\n</memory>\n'
    health = await kv_memory.health_check()
    assert health["status"] == "healthy"
    assert set(health["backends"]) == {"redis", "postgresql" if "database_url" in settings else "supabase"}
    await kv_memory.close()


async def test_two_processes_see_the_same_whatever_redis_loses(settings, redis_server):
    config = {**settings, "redis_timeout": 2, "compression_threshold": 100}
    async with KeyValueStoreMemory(config) as one, KeyValueStoreMemory(config) as two:
        for n in range(30):
            writer, reader = ((one, two), (two, one))[n % 2]
            await writer.mset({"a": n, "b": f"{n} " * 100}, user_id="u")
            if n % 5 == 0:
                redis_server.call("FLUSHALL")
            assert await reader.mget(["a", "b", "c"], user_id="u") == [n, f"{n} " * 100, None]
            assert (await reader.increment("count", user_id="u")).value == n + 1
            assert await writer.get("count", user_id="u") == n + 1
        assert await one.delete(["a", "b"], user_id="u") == 2
        assert await two.mget(["a", "b", "count"], user_id="u") == [None, None, 30]
        await asyncio.gather(*((one, two)[n % 2].update("p", {f"m{n}": n}) for n in range(10)))
        assert await one.get("p") == await two.get("p") == {f"m{n}": n for n in range(10)}


async def test_round_trips(direct):
    with Proxy(direct["database_url"]) as database, Proxy(direct["redis_url"]) as hot:

        async def trips(work):
            database.reset()
            hot.reset()
            await work
            return database.round_trips, hot.round_trips

        config = {"redis_url": hot.url, "database_url": database.url, "redis_timeout": 2}
        many = {f"k{n}": "x" * 100 for n in range(100)}
        raw = redis.asyncio.from_url(direct["redis_url"])
        async with KeyValueStoreMemory(config) as memory:
            for _ in range(2):  # connections are open, scripts and plans are known
                await memory.mset(many)
                await memory.increment("n")
                await memory.update("p", {"a": 1})
                await memory.delete("gone")
                await memory.mget([*many, "nope"])
            assert await trips(memory.set("k1", 1)) == (1, 1)
            assert await trips(memory.get("k1")) == (0, 1)
            assert await trips(memory.mset(many)) == (1, 1)
            assert await trips(memory.mget([*many])) == (0, 1)
            assert await trips(memory.exists("k1")) == (0, 1)
            assert await trips(memory.increment("n")) == (1, 1)
            assert await trips(memory.compare_and_set("k1", 2, (await memory.get_entry("k1")).version)) == (1, 1)
            assert await trips(memory.update("p", {"b": 1})) == (1, 2)
            assert await trips(memory.delete([*many])) == (1, 1)
            assert await trips(memory.get_context({"keys": ["n", "p"]})) == (0, 1)
            assert await trips(memory.get_context()) == (1, 0)
            await raw.flushdb()
            assert await trips(memory.mget(["n", "p"])) == (1, 2)
        await raw.aclose()


@pytest.mark.parametrize("by", ["values", "conversations"])
async def test_erasing_a_user_leaves_no_trace_anywhere(settings, database_url, redis_server, by):
    async with KeyValueStoreMemory(settings) as memory, ConversationBufferMemory(settings) as conversations:
        for user in ("erased-user", "kept"):
            for namespace in ("one", "two"):
                values = {f"{user}-key": f"{user}-words", "k": 1}
                await memory.mset(values, user_id=user, namespace=namespace)
                await memory.mget([*values], user_id=user, namespace=namespace)
        if by == "values":
            assert (await memory.forget(user_id="erased-user")).total == 4
        else:
            receipt = await conversations.forget(user_id="erased-user")
            assert receipt.removed["key_values"] == 4
            assert receipt.removed["hot_copies"] == 1
        assert "erased" not in await residue(database_url, redis_server.url)
        assert await memory.get("erased-user-key", user_id="erased-user", namespace="one") is None
        assert await memory.get("kept-key", user_id="kept", namespace="two") == "kept-words"


async def test_who_cannot_reach_the_copies_erases_nothing(settings):
    async with KeyValueStoreMemory(settings) as memory:
        await memory.set("k", 1, user_id="u")
        async with KeyValueStoreMemory({**settings, "redis_url": None}) as other:
            for erasing in (other.forget(user_id="u"), other.delete("k", user_id="u")):
                with pytest.raises(ConfigError, match="redis_url"):
                    await erasing
            assert await other.get("k", user_id="u") == 1
        async with ConversationBufferMemory({**settings, "redis_url": None}) as other:
            with pytest.raises(ConfigError, match="redis_url"):
                await other.forget(user_id="u")
        assert (await memory.forget(user_id="u")).total == 1


async def test_two_stores_on_one_redis_never_meet(direct, tmp_path):
    stores = [direct["database_url"], *(f"sqlite:///{tmp_path}/{name}.db" for name in "ab")]
    for name, store in enumerate(stores):
        async with KeyValueStoreMemory({**direct, "database_url": store}) as memory:
            assert await memory.get("k") is None
            await memory.set("k", name)
    for name, store in enumerate(stores):
        async with KeyValueStoreMemory({**direct, "database_url": store}) as memory:
            assert await memory.get("k") == name


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_reads_and_writes_go_on_without_redis(direct, how):
    with Redis() as server:
        config = {**direct, "redis_url": server.url}
        async with KeyValueStoreMemory(config) as memory, KeyValueStoreMemory(config) as other:
            await memory.mset({"a": 1, "b": 1, "c": 1})
            assert await other.mget([*"abc"]) == [1, 1, 1]
            getattr(server, how)()
            begun = time.monotonic()
            await memory.set("a", 2)
            assert await memory.delete("b") == 1
            assert (await memory.increment("c")).value == 2
            for process in (memory, other):
                assert await process.mget([*"abc"]) == [2, None, 2]
            assert time.monotonic() - begun < 2 + SLACK, "a few deadlines, then nobody waits"
            begun = time.monotonic()
            for _ in range(20):
                assert await memory.get("a") == 2
            assert time.monotonic() - begun < SLACK
            assert (await memory.health_check()).backends["redis"].status == "unhealthy"
            with pytest.raises(StoreUnavailable):
                await memory.forget(user_id="")
            assert await memory.get("a") == 2, "erased everywhere or nowhere"
            if how == "kill":
                server.restart()
            else:
                server.cont()
            for _ in range(100):
                await memory.set("d", 1)
                if not memory._ports.cached._owed:
                    break
                await asyncio.sleep(0.1)
            assert await other.mget([*"abcd"]) == [2, None, 2, 1]
            report = await memory.sync()
            assert (report.stale, report.deleted) == (0, 0)
            assert (await memory.sync()).stale == 0
            assert (await memory.health_check()).status == "healthy"


async def test_a_redis_that_was_never_there_stops_nothing(direct):
    async with KeyValueStoreMemory({**direct, "redis_url": "redis://127.0.0.1:1"}) as memory:
        await memory.set("k", 1)
        assert await memory.get("k") == 1
        assert await memory.delete("k") == 1


async def test_the_copies_are_compared_without_being_asked(direct, database_url, caplog):
    async with KeyValueStoreMemory({**direct, "sync_seconds": 0.1}) as memory:
        await memory.mset({"a": 1, "b": 1, "c": 1}, user_id="u")
        with psycopg.connect(database_url, autocommit=True) as connection:  # by somebody who knows of no Redis
            connection.execute("delete from llm_memory.key_values where key = 'a'")
            connection.execute("update llm_memory.key_values set body = '2', version = default where key = 'b'")
        assert await memory.mget([*"abc"], user_id="u") == [1, 1, 1]
        await asyncio.sleep(0.15)
        with caplog.at_level(logging.WARNING):
            await memory.get("c", user_id="u")
            await memory.drain()
        assert await memory.mget([*"abc"], user_id="u") == [None, 2, 1]
        assert "of 3 copies of values 2 differed and were repaired" in caplog.text


async def test_encrypted_values_are_encrypted_everywhere(settings, database_url, redis_server):
    keys = [base64.b64encode(os.urandom(32)).decode()]
    async with KeyValueStoreMemory({**settings, "encryption_keys": keys}) as memory:
        await memory.set("k", {"card": "the-secret"})
        await memory.update("k", {"name": "the-secret"})
        assert (await memory.increment("n", 5)).value == 5
        assert await memory.mget(["k", "n"]) == [{"card": "the-secret", "name": "the-secret"}, 5]
        assert "the-secret" not in await residue(database_url, redis_server.url)
    async with KeyValueStoreMemory(settings) as memory:
        with pytest.raises(ConfigError, match="encryption_keys"):
            await memory.get("k")


async def test_a_user_s_token_makes_an_engine_of_that_user(supabase_api, redis_url):
    ada, bob = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"

    def of(user):
        keys = {"supabase_url": supabase_api.url, "supabase_key": supabase_api.anon_key, "redis_url": redis_url}
        return KeyValueStoreMemory({**keys, "supabase_user_token": supabase_api.token(user)})

    async with of(ada) as hers, of(bob) as his:
        assert (await hers.set("k", "only mine", ttl_seconds=100)).user_id == ada
        await hers.drain()
        assert await hers.get("k") == "only mine"
        assert await his.get("k") is None
        async for key in his.keys():
            pytest.fail(f"his has {key}")
        for call in (his.get("k", user_id=ada), his.set("k", 1, user_id=ada)):
            with pytest.raises(AccessDenied):
                await call
        assert (await hers.forget()).total == 1


async def test_the_log_shows_no_content(settings, caplog):
    with caplog.at_level(logging.DEBUG):
        async with KeyValueStoreMemory(settings) as memory:
            await memory.set("between-us", "between us")
            await memory.get("between-us")
            await memory.delete("between-us")
    told = json.dumps([record.getMessage() for record in caplog.records])
    assert "between us" not in told
    assert "between-us" not in told
