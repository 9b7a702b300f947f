"""The conversation memories on Redis with PostgreSQL, and on Redis with Supabase's API: real servers, real drivers."""

import asyncio
import json
import logging
import time

import psycopg
import pytest
import redis.asyncio
from tests.conftest import migrated
from tests.engines.test_examples import summary_example
from tests.servers import Postgres, Proxy, Redis, bootstrap

from llm_memory_plugins import ConversationBufferMemory, ConversationSummaryMemory
from llm_memory_plugins.errors import AccessDenied, ConfigError, StoreUnavailable

pytestmark = pytest.mark.slow

TALK = [
    {"session_id": "s", "user_id": "u", "role": role, "content": f"{role} says {n}"}
    for n in range(12)
    for role in ("user", "assistant")
]


@pytest.fixture(autouse=True)
def empty(database_url, monkeypatch):
    for variable in ("OPENAI_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY", "LLM_MEMORY_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("truncate llm_memory.sessions cascade")
        connection.execute("update llm_memory.store set hot = false")


@pytest.fixture
async def redis_url(redis_server):
    client = redis.asyncio.from_url(redis_server.url)
    await client.flushall()
    await client.aclose()
    return redis_server.url


@pytest.fixture
def direct(redis_url, authenticator_url):
    return {"redis_url": redis_url, "database_url": authenticator_url}


@pytest.fixture(params=["postgresql", "supabase"])
def settings(request, redis_url):
    if request.param == "postgresql":
        return request.getfixturevalue("direct")
    api = request.getfixturevalue("supabase_api")
    return {"redis_url": redis_url, "supabase_url": api.url, "supabase_key": api.service_key}


async def test_the_buffer_example(settings):
    buffer_memory = ConversationBufferMemory(
        {**settings, "window_size": 10, "window_type": "turns", "ttl_seconds": 3600}
    )
    stats = await buffer_memory.get_session_stats("session_123")
    assert stats["message_count"] == 0
    await buffer_memory.close()


async def test_the_summary_example(settings):
    memory = await summary_example(settings)
    health = await memory.health_check()
    assert set(health["backends"]) == {"redis", "postgresql" if "database_url" in settings else "supabase"}
    assert all(backend["latency_ms"] > 0 for backend in health["backends"].values())
    await memory.close()


async def test_a_long_conversation_is_summarised_and_another_process_sees_it(settings):
    config = {**settings, "summary_trigger_tokens": 200, "summarization_model": "offline", "buffer_window_size": 2}
    async with ConversationSummaryMemory(config) as first, ConversationSummaryMemory(config) as second:
        for n in range(8):
            said = f"order {1000 + n} goes to Ada Lovelace in Turin. " * 4
            await first.store([{**m, "content": said} for m in TALK[:2]])
        await first.drain()
        await first.compact("s", "u")
        here, there = [await m.get_context({"session_id": "s", "user_id": "u"}) for m in (first, second)]
        assert here.text == there.text
        assert "Turin" in here.summary
        assert len(here.messages) == 4


async def test_erasing_a_user_leaves_no_trace_anywhere(settings, database_url, redis_server):
    async with ConversationSummaryMemory({**settings, "summary_trigger_tokens": 20, "buffer_window_size": 1}) as memory:
        await memory.store([{**m, "user_id": "erased-user", "content": f"erased-words {m['content']}"} for m in TALK])
        await memory.store([{**m, "user_id": "kept"} for m in TALK])
        for user in ("erased-user", "kept"):
            await memory.compact("s", user)
            await memory.get_context({"session_id": "s", "user_id": user})
        receipt = await memory.forget(user_id="erased-user")
        assert receipt.removed["messages"] == 24
        assert receipt.removed["sessions"] == receipt.removed["hot_copies"] == 1
        assert receipt.removed["summaries"] > 0
        assert "erased" not in await residue(database_url, redis_server.url)
        assert len((await memory.get_context({"session_id": "s", "user_id": "kept"})).messages) > 0
        assert (await memory.clear("s", "kept")).removed["messages"] == 24
        assert "says" not in await residue(database_url, redis_server.url)


async def test_who_cannot_reach_the_copies_erases_nothing(settings):
    asked = {"session_id": "s", "user_id": "u"}
    async with ConversationBufferMemory(settings) as memory:
        await memory.store(TALK)
        await memory.get_context(asked)
        async with ConversationBufferMemory({**settings, "redis_url": None}) as other:
            for erasing in (other.forget(user_id="u"), other.clear("s", "u")):
                with pytest.raises(ConfigError, match="redis_url"):
                    await erasing
            assert (await other.get_session_stats("s", "u")).message_count == 24
        assert (await memory.forget(user_id="u")).removed["messages"] == 24


async def test_two_stores_on_one_redis_never_meet(direct, tmp_path, postgres):
    url = postgres.create_database("second")
    bootstrap(url)
    await migrated(url)
    asked = {"session_id": "s", "user_id": "u"}
    said = []
    stores = [direct["database_url"], url, *(f"sqlite:///{tmp_path}/{name}.db" for name in "ab")]
    for name, store in enumerate(stores):
        async with ConversationBufferMemory({**direct, "database_url": store}) as memory:
            await memory.store({**asked, "role": "user", "content": f"of {name}"})
            for _ in range(2):
                said.append([m.content for m in (await memory.get_context(asked)).messages])
    assert said == [[f"of {name}"] for name in range(len(stores)) for _ in range(2)]


async def residue(database_url, redis_url):
    """Every row of every table and every key and value of Redis, as text."""
    found = []
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("select oid::regclass::text from pg_class where relkind in ('r', 'v', 'm')")
        for (table,) in tables.fetchall():
            if not table.startswith(("pg_", "information_schema.")):
                found += [str(row) for row in connection.execute(f"select * from {table}")]
    client = redis.asyncio.from_url(redis_url)
    async for key in client.scan_iter(count=1000):
        values = await (client.hgetall(key) if await client.type(key) == b"hash" else client.lrange(key, 0, -1))
        found += [repr(key), repr(values)]
        assert await client.pttl(key) > 0
    await client.aclose()
    return "\n".join(found)


async def test_round_trips(direct):
    with Proxy(direct["database_url"]) as database, Proxy(direct["redis_url"]) as hot:

        async def trips(work):
            database.reset()
            hot.reset()
            await work
            return database.round_trips, hot.round_trips

        config = {"redis_url": hot.url, "database_url": database.url, "redis_timeout": 2}
        asked = {"session_id": "s", "user_id": "u"}
        async with ConversationBufferMemory(config) as memory:
            await memory.store(TALK)
            await memory.get_context(asked)  # connections are open, scripts and plans are known
            assert await trips(memory.store(TALK[:2])) == (1, 1)
            assert await trips(memory.get_context(asked)) == (0, 1)
            client = redis.asyncio.from_url(direct["redis_url"])
            await client.flushdb()
            assert await trips(memory.get_context(asked)) == (1, 2)
            await client.flushdb()
            await client.script_flush()
            await client.aclose()
            assert await trips(memory.get_context(asked)) == (1, 3), "once, after Redis has forgotten the script"


async def test_without_redis_it_is_slower_and_says_so(direct):
    with Redis() as server:
        async with ConversationBufferMemory({**direct, "redis_url": server.url}) as memory:
            await memory.store(TALK)
            assert (await memory.get_context({"session_id": "s", "user_id": "u"})).errors == {}
            server.kill()
            await memory.store(TALK[:2])
            context = await memory.get_context({"session_id": "s", "user_id": "u"})
            assert context.messages[-1].seq == 26
            assert "Redis" in context.errors["messages"]
            health = await memory.health_check()
            assert health.status == "degraded"
            assert health.backends["redis"].status == "unhealthy"
            assert health.backends["postgresql"].status == "healthy"
            with pytest.raises(StoreUnavailable):
                await memory.forget(user_id="u")
            assert (await memory.get_session_stats("s", "u")).message_count == 26, "erased everywhere or nowhere"
            server.restart()
            await asyncio.sleep(0.1)
            for _ in range(100):
                if not (context := await memory.get_context({"session_id": "s", "user_id": "u"})).errors:
                    break
                await asyncio.sleep(0.1)
            assert context.errors == {}
            assert (await memory.health_check()).status == "healthy"


async def test_a_redis_that_was_never_there_stops_nothing(direct):
    async with ConversationBufferMemory({**direct, "redis_url": "redis://127.0.0.1:1"}) as memory:
        await memory.store(TALK)
        assert len((await memory.get_context({"session_id": "s", "user_id": "u"})).messages) == 20


async def test_without_the_database_nothing_is_acknowledged_and_hot_reads_are_marked(redis_url, postgres):
    with Postgres() as server:
        bootstrap(server.url)
        await migrated(server.url)
        config = {"redis_url": redis_url, "database_url": server.url, "database_timeout": 1}
        asked = {"session_id": "s", "user_id": "u"}
        async with ConversationBufferMemory(config) as memory, ConversationSummaryMemory(config) as summary:
            await memory.store(TALK)
            await memory.get_context(asked)
            await summary.get_context(asked)
            server.kill()
            begun = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await memory.store(TALK[:2])
            assert time.monotonic() - begun < 10
            context = await memory.get_context(asked)
            assert len(context.messages) == 20
            assert "unavailable" in context.errors["messages"]
            assert "summary" in (await summary.get_context(asked)).errors
            health = await memory.health_check()
            assert (health.status, health.backends["redis"].status) == ("unhealthy", "healthy")
            with pytest.raises(StoreUnavailable):
                await memory.get_context({"session_id": "cold", "user_id": "u"})
            server.restart()
            await memory.store(TALK[:2])
            assert (await memory.get_context(asked)).errors == {}
            assert (await memory.get_context(asked)).messages[-1].seq == 26


async def test_a_user_s_token_makes_an_engine_of_that_user(supabase_api, redis_url):
    ada, bob = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"

    def of(user):
        keys = {"supabase_url": supabase_api.url, "supabase_key": supabase_api.anon_key, "redis_url": redis_url}
        return ConversationBufferMemory({**keys, "supabase_user_token": supabase_api.token(user)})

    async with of(ada) as hers, of(bob) as his:
        await hers.store({"session_id": "s", "role": "user", "content": "only mine"})
        assert (await hers.get_context({"session_id": "s"})).messages[0].user_id == ada
        assert (await his.get_context({"session_id": "s"})).messages == ()
        with pytest.raises(AccessDenied):
            await his.get_context({"session_id": "s", "user_id": ada})
        with pytest.raises(AccessDenied):
            await his.store({"session_id": "s", "user_id": ada, "role": "user", "content": "not mine"})
        assert await his.list_sessions() == ()


async def test_a_publishable_key_alone_is_refused(supabase_api):
    memory = ConversationBufferMemory({"supabase_url": supabase_api.url, "supabase_key": supabase_api.anon_key})
    with pytest.raises(AccessDenied):
        await memory.initialize()
    assert (await memory.health_check()).status == "unhealthy"


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "e30.e30.e30"])
def test_what_is_no_token_is_refused_by_name(token):
    config = {"supabase_url": "http://localhost:1", "supabase_key": "k", "supabase_user_token": token or "x"}
    with pytest.raises(ConfigError, match="supabase_user_token"):
        ConversationBufferMemory(config)


async def test_the_log_shows_no_content(settings, caplog):
    with caplog.at_level(logging.DEBUG):
        async with ConversationBufferMemory(settings) as memory:
            await memory.store({**TALK[0], "content": "between us"})
            await memory.get_context({"session_id": "s", "user_id": "u"})
    assert "between us" not in json.dumps([record.getMessage() for record in caplog.records])
