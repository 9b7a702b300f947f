"""Key-value memory while Redis is flushed, frozen and killed: nothing is lost, nothing read backwards."""

import asyncio
import random
import time

import psycopg
import pytest

from llm_memory_plugins import KeyValueStoreMemory
from llm_memory_plugins.errors import StoreUnavailable

pytestmark = pytest.mark.slow

KEYS = [f"k{n}" for n in range(5)]
SECONDS = 6.0
HEALED = 10.0


class Process:
    """An engine, and what it knows: of each key the newest version it has written or seen."""

    def __init__(self, memory):
        self.memory = memory
        self.known = dict.fromkeys(KEYS, 0)
        self.counted = 0
        self.reads = 0

    async def work(self, until):
        while time.monotonic() < until:
            key = random.choice(KEYS)
            what = random.random()
            if what < 0.2:
                self._knows(await self.memory.set(key, ["set", random.random()]))
            elif what < 0.3:
                await self.memory.increment("count")
                self.counted += 1
            elif what < 0.35:
                before = self.known[key]
                if await self.memory.delete(key):
                    self.known[key] = max(before + 1, self.known[key])
            else:
                known = self.known[key]
                entry = await self.memory.get_entry(key)
                self.reads += 1
                if entry is not None:
                    assert entry.version >= known, "read backwards, or an own write was missed"
                    self._knows(entry)
            await asyncio.sleep(random.random() * 0.01)

    def _knows(self, entry):
        self.known[entry.key] = max(entry.version, self.known[entry.key])


async def chaos(server, until):
    while time.monotonic() < until:
        how = random.choice(["flush", "freeze", "kill", "quiet", "quiet"])
        if how == "flush":
            await asyncio.to_thread(server.call, "FLUSHALL")
        elif how == "freeze":
            server.stop()
            await asyncio.sleep(random.random())
            server.cont()
        elif how == "kill":
            server.kill()
            await asyncio.sleep(random.random())
            await asyncio.to_thread(server.restart)
        await asyncio.sleep(0.3 * random.random())


async def test_redis_comes_and_goes(stores):
    with psycopg.connect(stores.behind, autocommit=True) as connection:
        connection.execute("truncate llm_memory.key_values")
    config = {"database_url": stores.url, "redis_url": stores.redis.url, "sync_seconds": 1}
    async with KeyValueStoreMemory(config) as one, KeyValueStoreMemory(config) as two:
        processes = [Process(one), Process(two)]
        until = time.monotonic() + SECONDS
        await asyncio.gather(
            chaos(stores.redis, until), *(process.work(until) for process in processes for _ in range(6))
        )
        stores.heal()
        healed = time.monotonic() + HEALED
        while True:
            try:
                for process in processes:
                    await process.memory.set("healed", 1)
                    await process.memory.sync()
                break
            except StoreUnavailable:
                assert time.monotonic() < healed
                await asyncio.sleep(0.1)
        assert sum(process.reads for process in processes) > 100
        assert await one.get("count") == await two.get("count") == sum(process.counted for process in processes)
        with psycopg.connect(stores.behind) as connection:
            rows = dict(connection.execute("select key, version from llm_memory.key_values").fetchall())
        for process in processes:
            entries = {key: await process.memory.get_entry(key) for key in [*KEYS, "count", "healed"]}
            assert {key: entry.version for key, entry in entries.items() if entry} == rows
        again = await one.sync()
        assert (again.stale, again.deleted) == (0, 0)
