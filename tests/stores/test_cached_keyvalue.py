"""Values behind hot copies: what is read after writes, losses and outages, by how many reads of the database."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from llm_memory_plugins.errors import Conflict, StoreUnavailable
from llm_memory_plugins.key_values import Newest, SealedValue, Space
from llm_memory_plugins.stores import cached_keyvalue
from llm_memory_plugins.stores.cached_keyvalue import CachedKeyValue
from llm_memory_plugins.testing.key_value import new, values
from llm_memory_plugins.testing.key_value_model import KeyValueModel

NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
HERE = Space("u", "n")
HOUR = timedelta(hours=1)


class WatchedStore(KeyValueModel):
    """A store that counts its reads, can be held up after reading, and can fail."""

    def __init__(self):
        super().__init__()
        self.reads = []
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    def _asked(self):
        if self.down:
            raise StoreUnavailable("the database is down")

    async def read(self, space, which, *, now):
        self._asked()
        self.reads.append(which)
        found = await super().read(space, which, now=now)
        await self.gate.wait()
        return found

    async def write(self, space, values, *, now):
        self._asked()
        return await super().write(space, values, now=now)

    async def remove(self, *args, **kwargs):
        self._asked()
        return await super().remove(*args, **kwargs)


class Copies:
    """Hot copies in a dict, without the life of tombstones; they can be out of reach, or lose what is sent."""

    def __init__(self):
        self.copies = {}
        self.buried = {}
        self.down = self.lossy = False

    async def _called(self):
        await asyncio.sleep(0)
        if self.down:
            raise StoreUnavailable("the copies are out of reach")
        return self.lossy

    async def read(self, space, keys):
        await self._called()
        return {key: self.copies[space, key] for key in keys if (space, key) in self.copies}

    async def put(self, space, values, *, written, now):
        if await self._called():
            return
        for value in values:
            address = (space, value.key)
            there = self.copies.get(address)
            if address in self.buried and (not written or self.buried[address] >= value.version):
                continue
            if there is None or there.version <= value.version:
                self.copies[address] = value

    async def drop(self, space, versions):
        if await self._called():
            return
        for key, version in versions.items():
            there = self.copies.get((space, key))
            if not version or there is None or there.version <= version:
                self.copies.pop((space, key), None)
                self.buried[space, key] = max(version, there.version if there else 0)

    async def forget(self, user_id):
        await self._called()
        gone = [address for address in self.copies if address[0].user_id == user_id]
        for address in gone:
            del self.copies[address]
        return int(bool(gone))

    async def keys(self, space):
        await self._called()
        yield [key for where, key in self.copies if where == space]


@pytest.fixture
def store():
    return WatchedStore()


@pytest.fixture
def hot():
    return Copies()


@pytest.fixture
def cache(store, hot):
    return CachedKeyValue(store, hot)


@pytest.fixture
def elsewhere(store, hot):
    """Another process's cache over the same two."""
    return CachedKeyValue(store, hot)


async def write(cache, value, key="k", **more):
    return (await cache.write(HERE, [new(key, value, **more)], now=NOW))[0]


async def read(cache, *keys, now=NOW):
    found = values(await cache.read(HERE, keys or ["k"], now=now))
    return found if keys else found.get("k")


async def test_what_was_written_or_read_is_not_asked_of_the_database_again(cache, elsewhere, store, hot):
    await write(cache, 1)
    assert await read(cache) == await read(elsewhere) == 1
    assert store.reads == []
    hot.copies.clear()
    assert [await read(cache) for _ in range(3)] == [1, 1, 1]
    assert store.reads == [["k"]]
    await cache.write(HERE, [new(f"k{n}", n) for n in range(5)], now=NOW)
    del hot.copies[HERE, "k3"]
    assert await read(cache, "k1", "k3", "k4", "nothing") == {"k1": 1, "k3": 3, "k4": 4}
    assert store.reads == [["k"], ["k3", "nothing"]]
    assert values(await cache.read(HERE, Newest(limit=2), now=NOW)) == {"k4": 4, "k3": 3}


async def test_own_writes_are_read_though_the_copy_did_not_follow(cache, elsewhere, store, hot):
    await write(cache, 1)
    hot.lossy = True  # acknowledged and lost, as after a failover
    await write(cache, 2)
    assert hot.copies[HERE, "k"].body == "1"
    assert await read(cache) == 2
    await cache.remove(*HERE, ["k"], now=NOW)
    assert await read(cache) is None
    hot.lossy = False
    await write(cache, 3)
    assert await read(cache) == await read(elsewhere) == 3


async def test_what_was_seen_once_is_never_older_later(cache, elsewhere, hot):
    await write(elsewhere, 1)
    old = hot.copies[HERE, "k"]
    await write(elsewhere, 2)
    assert await read(cache) == 2
    hot.copies[HERE, "k"] = old
    assert await read(cache) == 2


async def test_writes_go_on_without_the_copies_and_what_these_missed_goes_when_they_are_back(cache, elsewhere, hot):
    await write(cache, 1, "a")
    await write(cache, 1, "b")
    await write(cache, 1, "c")
    hot.down = True
    await write(cache, 2, "a")
    assert (await cache.remove(*HERE, ["b"], now=NOW)).count == 1
    assert (await cache.increment(HERE, "c", 5, now=NOW)).body == "6"
    assert await read(cache, "a", "b", "c") == {"a": 2, "c": 6}
    hot.down = False
    assert await read(elsewhere, "a", "b", "c") == {"a": 1, "b": 1, "c": 1}, "nobody has told these yet"
    assert await read(cache, "a", "b", "c") == {"a": 2, "c": 6}
    await write(cache, 1, "d")
    assert await read(elsewhere, "a", "b", "c", "d") == {"a": 2, "c": 6, "d": 1}


async def test_a_removal_that_found_nothing_still_goes_for_the_copy(cache, elsewhere, store, hot):
    await write(elsewhere, 1)
    await store.remove(*HERE, ["k"], now=NOW)  # by somebody whose word to the copies was lost
    assert await read(cache) == 1
    hot.down = True
    await cache.remove(*HERE, ["k"], now=NOW)
    hot.down = False
    assert await read(cache) is None
    await cache.remove(*HERE, ["k"], now=NOW)
    assert await read(elsewhere) is None


async def test_many_readers_of_a_cold_key_are_one_read(cache, store, hot):
    await write(cache, 1)
    await write(cache, 1, "other")
    hot.copies.clear()
    store.gate.clear()
    readers = [asyncio.create_task(read(cache)) for _ in range(50)]
    both = [asyncio.create_task(read(cache, "k", "other", "nothing")) for _ in range(50)]
    for _ in range(20):
        await asyncio.sleep(0)
    readers[0].cancel()  # who stops waiting stops nobody else
    store.gate.set()
    assert set(await asyncio.gather(*readers[1:])) == {1}
    assert all(found == {"k": 1, "other": 1} for found in await asyncio.gather(*both))
    assert store.reads == [["k"], ["other", "nothing"]]


async def test_a_read_that_began_before_a_write_is_not_for_who_asks_after_it(cache, store, hot):
    await write(cache, 1)
    hot.copies.clear()
    store.gate.clear()
    early = asyncio.create_task(read(cache))
    for _ in range(5):
        await asyncio.sleep(0)
    hot.lossy = True
    await write(cache, 2)
    late = asyncio.create_task(read(cache))
    for _ in range(5):
        await asyncio.sleep(0)
    hot.lossy = False
    store.gate.set()
    assert (await early, await late) == (1, 2)
    assert await read(cache) == 2
    assert hot.copies[HERE, "k"].body == "2", "what was read early did not get there"


async def test_a_removal_is_not_undone_by_a_read_that_began_before(cache, elsewhere, store, hot):
    await write(cache, 1)
    hot.copies.clear()
    store.gate.clear()
    early = asyncio.create_task(read(elsewhere))
    for _ in range(5):
        await asyncio.sleep(0)
    await cache.remove(*HERE, ["k"], now=NOW)
    store.gate.set()
    assert await early == 1
    assert hot.copies == {}
    assert await read(elsewhere) is await read(cache) is None


async def test_a_slow_read_is_not_put_into_the_copies(cache, hot, monkeypatch):
    await write(cache, 1)
    hot.copies.clear()
    monkeypatch.setattr(cached_keyvalue, "FILL_SECONDS", -1.0)
    assert await read(cache) == 1
    assert hot.copies == {}


async def test_copies_that_have_expired_are_misses(cache, store):
    await write(cache, 1, expires_at=NOW + HOUR)
    assert await read(cache, now=NOW + HOUR - timedelta(microseconds=1)) == 1
    assert await read(cache, now=NOW + HOUR) is None
    await write(cache, 2)
    assert await read(cache, now=NOW + HOUR) == 2


async def test_without_the_database_copies_are_read_and_nothing_is_acknowledged(cache, store, hot):
    await write(cache, 1)
    store.down = True
    with pytest.raises(StoreUnavailable):
        await write(cache, 2)
    with pytest.raises(StoreUnavailable):
        await cache.remove(*HERE, ["k"], now=NOW)
    assert await read(cache) == 1
    with pytest.raises(StoreUnavailable):
        await read(cache, "k", "cold")
    hot.down = True
    with pytest.raises(StoreUnavailable):
        await read(cache)
    store.down = hot.down = False
    assert await read(cache, "k", "cold") == {"k": 1}


async def test_who_was_misled_by_a_copy_does_better_the_next_time(cache, elsewhere, store, hot):
    held = await write(cache, 1)
    hot.lossy = True
    await write(elsewhere, 2)  # of which the copies do not know
    hot.lossy = False
    assert await read(cache) == 1
    with pytest.raises(Conflict):
        await write(cache, 3, expected=held.version)
    assert await read(cache) == 2
    hot.lossy = True
    await elsewhere.remove(*HERE, ["k"], now=NOW)
    hot.lossy = False
    (misled,) = await cache.read(HERE, ["k"], now=NOW)
    with pytest.raises(Conflict):
        await write(cache, 3, expected=misled.version)
    assert await read(cache) is None
    await write(cache, 3, expected=0)


async def test_an_erasure_is_everywhere_or_an_error(cache, elsewhere, store, hot):
    await write(cache, 1)
    hot.down = True
    for namespace in (None, "n"):
        with pytest.raises(StoreUnavailable):
            await cache.remove("u", namespace, now=NOW)
    assert await read(cache) == 1, "nothing has gone"
    hot.down = False
    assert (await cache.remove("u", now=NOW)).count == 1
    assert hot.copies == store.entries == {}
    assert await read(elsewhere) is await read(cache) is None


async def test_a_write_whose_caller_is_gone_reaches_the_copies(cache, hot):
    task = asyncio.create_task(write(cache, 1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for _ in range(10):
        await asyncio.sleep(0)
    assert hot.copies[HERE, "k"].body == "1"


# --- comparing both


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr("llm_memory_plugins.stores.keyvalue_sync._SETTLE_SECONDS", 0)


async def test_sync_finds_and_repairs_every_difference(cache, elsewhere, store, hot, at_once):
    for key in "abcdefg":
        await write(cache, key, key)
    await write(cache, 1, "short", expires_at=NOW + HOUR)
    assert (await elsewhere.sync(HERE, now=NOW)).differences == 0
    await store.write(HERE, [new("a", "newer")], now=NOW)
    await store.remove(*HERE, ["b"], now=NOW)
    del hot.copies[HERE, "c"]
    hot.copies[HERE, "d"] = replace(hot.copies[HERE, "d"], body='"changed"')
    hot.copies[HERE, "e"] = replace(hot.copies[HERE, "e"], version=10**6)  # the database was restored
    hot.copies[HERE, "never"] = SealedValue("never", "1", "json", 1, NOW, NOW)
    await store.write(HERE, [new("f", "f", expires_at=NOW + HOUR)], now=NOW)
    report = await elsewhere.sync(HERE, now=NOW + 2 * HOUR)
    assert dict(report) == {
        "checked": 8, "missing": 1, "stale": 3, "deleted": 4, "complete": True,
        "differing": ("a", "c", "d", "e", "b", "f", "short", "never"),
    }  # fmt: skip
    assert report.differences == 8
    again = await elsewhere.sync(HERE, now=NOW + 2 * HOUR)
    assert (again.stale, again.deleted) == (0, 0)
    expected = {"a": "newer", "c": "c", "d": "d", "e": "e", "g": "g"}
    for process in (cache, elsewhere):
        assert await read(process, *"abcdefg", "short", "never", now=NOW + 2 * HOUR) == expected
    assert {key for _, key in hot.copies} == set("acdg"), "what was ahead is filled again later"


async def test_sync_fills_all_copies(cache, hot, at_once):
    await cache.write(HERE, [new(f"k{n:04}", n) for n in range(1200)], now=NOW)
    hot.copies.clear()
    report = await cache.sync(HERE, now=NOW)
    assert (report.checked, report.missing, len(report.differing)) == (1200, 1200, 100)
    assert len(hot.copies) == 1200
    assert (await cache.sync(HERE, now=NOW)).differences == 0
    assert (await cache.sync(HERE, now=NOW, limit=500)).complete is False


async def test_a_write_on_its_way_is_no_difference(cache, store, hot):
    await write(cache, 1)

    async def slowly():
        (written,) = await store.write(HERE, [new("k", 2)], now=NOW)
        await asyncio.sleep(0.02)
        await hot.put(HERE, [written], written=True, now=NOW)

    report, _ = await asyncio.gather(cache.sync(HERE, now=NOW), slowly())
    assert report.differences == 0


async def test_sync_makes_good_what_an_outage_left_behind(cache, elsewhere, hot, at_once):
    await write(cache, 1)
    hot.down = True
    await write(cache, 2)
    with pytest.raises(StoreUnavailable):
        await cache.sync(HERE, now=NOW)
    hot.down = False
    await cache.sync(HERE, now=NOW)
    assert await read(elsewhere) == 2
