"""Working memory in Redis: shared by engines, and gone when Redis is."""

import asyncio
import random
import uuid

import pytest
from tests.engines.test_working import example, note
from tests.servers import Redis

from llm_memory_plugins import WorkingMemory
from llm_memory_plugins.errors import StoreUnavailable

pytestmark = pytest.mark.slow

PATIENT = 5.0


@pytest.fixture
def config(redis_server):
    return {"redis_url": redis_server.url, "redis_timeout": PATIENT, "tokenizer": "estimate", "capacity_limit": 20}


@pytest.fixture
def space():
    """The Redis of the tests is not emptied."""
    return f"test-{uuid.uuid4().hex}"


async def test_the_example(redis_server):
    working_memory = WorkingMemory(
        {
            "redis_url": redis_server.url,
            "ttl_seconds": 1800,
            "capacity_limit": 100,
            "eviction_policy": "importance",
            "enable_reasoning_chain": True,
            "redis_timeout": PATIENT,
        }
    )
    await working_memory.clear("reasoning_session")
    await example(working_memory)


async def test_engines_share_it(config, space):
    async with WorkingMemory(config) as one, WorkingMemory(config) as two:
        root = await one.store(note({"a": [1, None, "ü"]}, space, step="root"))
        tip = await two.store(note(b"\x00", space, step="tip", parent_id=root.id, tags=["x"], ttl_seconds=60))
        assert [step.id for step in await one.get_reasoning_chain(space)] == [root.id, tip.id]
        assert (await one.get(space, tip.id)).content == b"\x00"
        await one.conclude(space, tip.id, "done so")
        assert (await two.get(space, tip.id)).conclusion == "done so"
        assert 'root: {"a": [1, null, "ü"]}' in (await two.get_context({"namespace": space, "max_tokens": 200})).text
        assert (await two.get(space, root.id)).uses == 2
        assert (await one.get_namespace_stats(space)).done_count == 1
        assert (await two.delete(space, root.id, cascade=True)).total == 2
        user = uuid.uuid4().hex
        await one.store([note("x", space, user_id=user), note("y", space, user_id=user)])
        assert (await two.forget(user_id=user)).removed == {"items": 2, "namespaces": 1}


async def test_a_hundred_writers_of_four_engines_never_exceed_the_capacity(config, space):
    engines = [WorkingMemory(config) for _ in range(4)]
    seen = []

    async def write(writer):
        engine = engines[writer % 4]
        above = None
        for n in range(4):
            parent = {"parent_id": above} if above and n % 2 else {}
            item = note(n, space, importance=random.random(), **parent)
            try:
                above = (await engine.store(item)).id
            except ValueError:  # what it was to follow from has gone already
                above = None
            stats = await engine.get_namespace_stats(space)
            seen.append(stats.item_count)

    await asyncio.gather(*(write(writer) for writer in range(100)))
    assert max(seen) == 20
    stats = await engines[0].get_namespace_stats(space)
    assert stats.item_count == 20
    assert stats.evicted["capacity"] > 200
    context = await engines[1].get_context({"namespace": space})
    assert len(context.pieces) == 20
    for engine in engines:
        await engine.close()


async def test_a_cancelled_store_is_whole_or_not_there(config, space):
    async with WorkingMemory(config) as memory:
        for n in range(30):
            batch = [note(n, space, key=f"{n}.{i}", **({"parent_id": f"{n}.{i - 1}"} if i else {})) for i in range(3)]
            task = asyncio.create_task(memory.store(batch))
            await asyncio.sleep(random.random() * 0.003)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            there = [await memory.get(space, f"{n}.{i}") is not None for i in range(3)]
            assert len(set(there)) == 1
        assert (await memory.get_namespace_stats(space)).item_count <= 20


async def test_without_redis_every_call_says_so():
    with Redis() as gone:
        url = gone.url
    memory = WorkingMemory({"redis_url": url})
    for call in (
        memory.store(note("x")),
        memory.get("trip", "k"),
        memory.update("trip", "k", status="done"),
        memory.delete("trip", "k"),
        memory.clear("trip"),
        memory.forget(user_id="u"),
        memory.get_reasoning_chain("trip"),
        memory.get_namespace_stats("trip"),
        memory.get_context("trip"),
    ):
        with pytest.raises(StoreUnavailable, match="Redis"):
            await call
    health = await memory.health_check()
    assert health.status == "unhealthy"
    assert "redis_url" in health.backends["redis"].detail
    await memory.close()


async def test_a_context_that_was_read_is_given_even_when_its_use_cannot_be_counted():
    with Redis() as server:
        async with WorkingMemory({"redis_url": server.url, "redis_timeout": PATIENT}) as memory:
            await memory.store(note("kept", key="k"))
            server.call("CONFIG", "SET", "min-replicas-to-write", "1")
            context = await memory.get_context("trip")
            assert "- kept\n" in context.text
            assert "refused" in context.errors["working_memory"]
            with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
                await memory.store(note("new"))
            server.call("CONFIG", "SET", "min-replicas-to-write", "0")
            assert (await memory.get_context("trip")).errors == {}
            assert (await memory.get("trip", "k")).uses == 2


async def test_a_full_server_refuses_and_keeps_what_is_there():
    with Redis(maxmemory="100mb", maxmemory_policy="noeviction") as server:
        async with WorkingMemory({"redis_url": server.url, "redis_timeout": PATIENT, "capacity_limit": 2}) as memory:
            await memory.store([note(1, key="a"), note(2, key="b")])
            server.call("CONFIG", "SET", "maxmemory", "1")
            for item in (note(3, key="c"), note(3, key="a"), [note(3, key="a"), note(4, key="d")]):
                with pytest.raises(StoreUnavailable, match="OOM"):
                    await memory.store(item)
            server.call("CONFIG", "SET", "maxmemory", "0")
            assert [(await memory.get("trip", key)).content for key in "ab"] == [1, 2]
            assert (await memory.get_namespace_stats("trip")).open_count == 2


async def test_losing_redis_s_data_begins_anew(config):
    with Redis() as server:
        async with WorkingMemory({**config, "redis_url": server.url}) as memory:
            await memory.store(note("x", key="k"))
            server.call("FLUSHALL")
            assert await memory.get("trip", "k") is None
            assert (await memory.store(note("y", key="k"))).seq == 1
            assert (await memory.forget(user_id="")).total == 2
