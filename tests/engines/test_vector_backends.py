"""The vector memory on PostgreSQL and on Supabase's API, with OpenAI's protocol on loopback."""

import asyncio
import logging

import psycopg
import pytest
from tests.conftest import migrated
from tests.engines.test_backends import residue
from tests.servers import Postgres, Proxy, bootstrap

from llm_memory_plugins import ConversationBufferMemory, VectorDatabaseMemory
from llm_memory_plugins.errors import AccessDenied, StoreUnavailable
from llm_memory_plugins.testing.model_server import ModelServer, Reply

pytestmark = pytest.mark.slow

NOTES = [
    "Python coroutines are awaited by an event loop.",
    "A tomato wants sun and a stick to climb.",
    "The ferry to the island leaves at 7:40 from pier three.",
]
THINGS = ["trains", "boats", "cats", "bread"]


@pytest.fixture(autouse=True)
def empty(database_url, monkeypatch):
    for variable in ("OPENAI_API_KEY", "GOOGLE_API_KEY", "GEMINI_API_KEY", "LLM_MEMORY_DATABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("truncate llm_memory.memories, llm_memory.corpora, llm_memory.terms cascade")
        connection.execute("update llm_memory.store set hot = false")


@pytest.fixture(params=["postgresql", "supabase"])
def settings(request, authenticator_url):
    if request.param == "postgresql":
        return {"database_url": authenticator_url}
    api = request.getfixturevalue("supabase_api")
    return {"supabase_url": api.url, "supabase_key": api.service_key}


async def vector_example(settings):
    vector_memory = VectorDatabaseMemory(
        {**settings, "embedding_model": "text-embedding-3-small", "similarity_threshold": 0.7}
    )
    await vector_memory.initialize()
    for note in NOTES:
        await vector_memory.store({"user_id": "user_456", "session_id": "chat_123", "content": note})
    context = await vector_memory.get_context({"query": "When does the ferry leave?", "user_id": "user_456"})
    assert context["records"][0]["content"] == NOTES[2]
    assert NOTES[2] in context.text
    assert (await vector_memory.health_check())["status"] == "healthy"
    return vector_memory


async def test_the_vector_example_embedded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    memory = await vector_example({})
    assert memory.embedder.identity.startswith("wordllama/")
    await memory.close()


async def test_the_vector_example_with_an_openai_server(settings):
    with ModelServer() as server:
        memory = await vector_example(
            {**settings, "openai_api_key": "example-key", "openai_base_url": server.openai_url}
        )
        assert memory.embedder.identity == "openai/text-embedding-3-small/1536"
        assert memory.usage.calls > 0
        assert set((await memory.stats()).embedders) == {"openai/text-embedding-3-small/1536"}
        exact = await memory.search(NOTES[0], user_id="user_456", max_results=1)
        assert exact[0].similarity == pytest.approx(1, abs=1e-3)
        await memory.close()


async def test_a_model_that_is_down_costs_only_time(settings):
    with ModelServer(Reply(status=503)) as server:
        keys = {"openai_api_key": "example-key", "openai_base_url": server.openai_url, "model_timeout": 5}
        async with VectorDatabaseMemory({**settings, **keys}) as memory:
            await memory.store([{"content": note, "user_id": "u"} for note in NOTES])
            assert (await memory.stats()).pending == 3
            results = await memory.search("the ferry", user_id="u")
            assert results[0].content == NOTES[2]
            assert "embedder" in results.errors
            server.default = None
            await memory._embedding.catch_up()
            await memory.drain()
            assert (await memory.stats()).pending == 0
            assert (await memory.search(NOTES[1], user_id="u"))[0].similarity == pytest.approx(1, abs=1e-3)


async def test_large_vectors_are_found(settings):
    with ModelServer() as server:
        keys = {
            "openai_api_key": "example-key",
            "openai_base_url": server.openai_url,
            "embedding_model": "text-embedding-3-large",
        }
        async with VectorDatabaseMemory({**settings, **keys}) as memory:
            await memory.store([{"content": note, "user_id": "u"} for note in NOTES])
            assert memory.embedder.dimensions == 3072
            assert (await memory.search(NOTES[0], user_id="u"))[0].similarity == pytest.approx(1, abs=1e-3)


async def test_all_stores_answer_alike(settings, config):
    said = [
        {
            "id": f"{session}-{n}",
            "user_id": "u",
            "session_id": f"s{session}",
            "name": ("Ann", "Bob")[n % 2],
            "content": f"{NOTES[n % 3]} Remark {n} of day {session}, about {THINGS[n % 4]}.",
            "created_at": f"2026-0{session + 1}-1{n % 9}T10:00:00Z",
            "metadata": {"n": n},
        }
        for session in range(4)
        for n in range(12)
    ]
    asked = ["What did Bob say of cats?", "the ferry in February", "bread", "Does a tomato need sun?", "Remark 7"]
    answers = []
    for store in (config, settings):
        async with VectorDatabaseMemory({**store, "embedding_model": "offline"}) as memory:
            await memory.store(said)
            answers.append(
                [
                    [(r.id, round(r.score, 4)) for r in await memory.search(q, user_id="u", max_results=20, **more)]
                    for q in asked
                    for more in ({}, {"filter": {"n": {"$gt": 5}}}, {"session_id": "s2"})
                ]
            )
    for here, there in zip(*answers, strict=True):
        assert [round(score, 3) for _, score in here] == [round(score, 3) for _, score in there]
        assert {identity for identity, _ in here} == {identity for identity, _ in there}


async def test_erasing_a_user_erases_the_texts_too(settings, database_url, redis_server):
    async with VectorDatabaseMemory({**settings, "embedding_model": "offline"}) as memory:
        for user in ("erased-user", "kept"):
            said = [{"content": f"words of {user}", "user_id": user, "session_id": s} for s in ("s", "other")]
            await memory.store(said)
        async with ConversationBufferMemory(settings) as buffer:
            await buffer.store({"session_id": "s", "user_id": "erased-user", "role": "user", "content": "hello"})
            await buffer.clear("s", "erased-user")
            assert await memory.count(user_id="erased-user") == 1, "that session's texts are gone"
            receipt = await buffer.forget(user_id="erased-user")
            assert receipt.removed["records"] == 1
        assert "erased" not in await residue(database_url, redis_server.url)
        assert len(await memory.search("words", user_id="kept")) == 2
        await memory.forget(user_id="kept")
        assert "kept" not in await residue(database_url, redis_server.url)


async def test_round_trips(authenticator_url):
    with Proxy(authenticator_url) as database:

        async def trips(work):
            database.reset()
            await work
            return database.round_trips

        config = {"database_url": database.url, "embedding_model": "offline"}
        async with VectorDatabaseMemory(config) as memory:
            await memory.drain()
            await memory.store({"content": NOTES[0], "user_id": "u"})
            await memory.search("coroutines", user_id="u")
            assert await trips(memory.store({"content": NOTES[1], "user_id": "u"})) == 1
            assert await trips(memory.store([{"content": f"{n}", "user_id": "u"} for n in range(200)])) == 1
            assert await trips(memory.store({"id": "mine", "content": NOTES[2], "user_id": "u"})) == 2
            assert await trips(memory.search("ferry", user_id="u")) == 1
            assert await trips(memory.get_context({"query": "ferry", "user_id": "u", "max_tokens": 100})) == 1
            assert await trips(memory.get("mine", user_id="u")) == 1
            assert await trips(memory.delete("mine", user_id="u")) == 1


async def test_a_user_s_token_makes_an_engine_of_that_user(supabase_api):
    ada, bob = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"

    def of(user):
        keys = {"supabase_url": supabase_api.url, "supabase_key": supabase_api.anon_key, "embedding_model": "offline"}
        return VectorDatabaseMemory({**keys, "supabase_user_token": supabase_api.token(user)})

    async with of(ada) as hers, of(bob) as his:
        await hers.store({"content": "only mine", "id": "x"})
        assert (await hers.search("mine"))[0].user_id == ada
        assert await his.search("mine") == ()
        assert await his.get("x") is None
        await his.store({"content": "mine as well", "id": "x"})
        assert (await hers.get("x")).content == "only mine"
        assert (await his.delete("x")).total > 0
        assert await hers.count() == 1
        with pytest.raises(AccessDenied):
            await his.search("mine", user_id=ada)


async def test_without_the_database_nothing_is_acknowledged():
    with Postgres() as server:
        bootstrap(server.url)
        await migrated(server.url)
        config = {"database_url": server.url, "database_timeout": 1, "embedding_model": "offline"}
        async with VectorDatabaseMemory(config) as memory:
            await memory.store({"content": NOTES[0], "user_id": "u"})
            server.kill()
            for work in (memory.store(NOTES[1]), memory.search("python"), memory.get_context({"query": "python"})):
                with pytest.raises(StoreUnavailable):
                    await work
            assert (await memory.health_check()).status == "unhealthy"
            server.restart()
            for _ in range(100):
                if (await memory.health_check()).status == "healthy":
                    break
                await asyncio.sleep(0.1)
            assert (await memory.search("coroutines", user_id="u"))[0].content == NOTES[0]


async def test_the_log_shows_no_content(settings, caplog):
    with caplog.at_level(logging.DEBUG):
        async with VectorDatabaseMemory({**settings, "embedding_model": "offline"}) as memory:
            await memory.store({"content": "between us", "user_id": "u", "metadata": {"whisper": "hush"}})
            await memory.search("between whom", user_id="u", filter={"whisper": "hush"})
    logged = "\n".join(record.getMessage() for record in caplog.records)
    assert "between" not in logged
    assert "hush" not in logged
