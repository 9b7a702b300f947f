"""The copies of values on Redis 6.2, on Valkey 9 and on a Cluster: versions, tombstones, ends, garbage, erasure."""

import asyncio
import random
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import redis.asyncio
from pydantic import SecretStr
from tests.servers import Redis

from llm_memory_plugins.errors import StoreUnavailable
from llm_memory_plugins.key_values import SealedValue, Space
from llm_memory_plugins.stores.redis import Breaker, RedisClient, RedisValues
from llm_memory_plugins.stores.redis import keyvalue as tier
from llm_memory_plugins.testing.message_log import HOSTILE

pytestmark = pytest.mark.slow

PATIENT = 5.0
NOW = datetime(2026, 3, 1, 9, tzinfo=UTC)
HERE = Space("u", "n")
DAY = timedelta(days=1)
GARBAGE = [
    b"", b"x", b"E", b"E;", b"E;1", b"E;x;99999999999999;1;1;;0;json;1", b"E;1;99999999999999;1;1;;0;json;1",
    b"E;1;99999999999999;y;1;;2143416117;json;1", b"T;1", b"E;1;99999999999999;1;1;;4294967295;\xff\xfe",
    b"E;" * 50_000, b"E;1;99999999999999;999999999999999999999;1;;2143416117;json;1",
]  # fmt: skip


def value(version, body="1", key="k", **more):
    return SealedValue(key, body, "json", version, NOW, NOW, **more)


@pytest.fixture
def prefix():
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(params=["redis_server", "valkey_server"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
async def client(server):
    opened = RedisClient(SecretStr(server.url), timeout=PATIENT)
    yield opened
    await opened.close()


@pytest.fixture
async def hot(client, prefix):
    return RedisValues(client, ttl_seconds=60, prefix=prefix)


@pytest.fixture
async def behind(server):
    raw = redis.asyncio.from_url(server.url)
    yield raw
    await raw.aclose()


@pytest.fixture
def brief(monkeypatch):
    """Tombstones that live a fifth of a second."""
    monkeypatch.setattr(tier, "TOMBSTONE_MS", 200)


async def seen(hot, key="k", space=HERE):
    copy = (await hot.read(space, [key])).get(key)
    return copy and copy.version


async def push(hot, *values, space=HERE):
    await hot.put(space, values, written=True, now=NOW)


async def fill(hot, *values, space=HERE):
    await hot.put(space, values, written=False, now=NOW)


async def the_key(behind, prefix):
    (key,) = [key async for key in behind.scan_iter(f"{prefix}:*")]
    return key


async def test_copies_come_back_as_they_were(hot):
    whole = SealedValue(
        "k:é\n;",
        'te;xt\n日本"🙂',
        "json+zstd+aes.01",
        2**53 - 1,
        NOW,
        NOW + timedelta(microseconds=1),
        NOW + timedelta(days=9),
    )
    await push(hot, whole, value(1, key="other"))
    assert await hot.read(HERE, ["k:é\n;", "other", "nothing"]) == {"k:é\n;": whole, "other": value(1, key="other")}


async def test_no_copy_is_replaced_by_an_older_one(hot):
    await push(hot, value(5))
    for put in (push, fill):
        await put(hot, value(4, "old"))
        assert await hot.read(HERE, ["k"]) == {"k": value(5)}
    await fill(hot, value(6, "new"))
    assert await seen(hot) == 6
    await fill(hot, value(6, "as it really is"))
    assert (await hot.read(HERE, ["k"]))["k"].body == "as it really is"


async def test_what_was_dropped_is_not_filled_again_for_a_moment(hot, brief):
    await push(hot, value(5))
    await hot.drop(HERE, {"k": 5})
    assert await seen(hot) is None
    await fill(hot, value(5))
    await push(hot, value(5))
    assert await seen(hot) is None
    await push(hot, value(6))
    assert await seen(hot) == 6
    await hot.drop(HERE, {"k": 6})
    await asyncio.sleep(0.25)
    await fill(hot, value(7))
    assert await seen(hot) == 7


async def test_a_drop_leaves_what_is_newer(hot):
    await push(hot, value(7))
    await hot.drop(HERE, {"k": 6})
    assert await seen(hot) == 7
    await hot.drop(HERE, {"k": 0})
    assert await seen(hot) is None
    await push(hot, value(7))
    assert await seen(hot) is None, "dropped whatever it was, and it was that"
    await push(hot, value(8))
    assert await seen(hot) == 8


async def test_what_was_not_there_is_not_filled_either_but_written(hot):
    await hot.drop(HERE, {"k": 0})
    await fill(hot, value(1))
    assert await seen(hot) is None
    await push(hot, value(1))
    assert await seen(hot) == 1


async def test_a_copy_ends_with_its_entry_and_keeps_older_ones_away(hot):
    await push(hot, value(2, expires_at=NOW + timedelta(milliseconds=50)))
    assert await seen(hot) == 2
    await asyncio.sleep(0.1)
    assert await seen(hot) is None
    await fill(hot, value(1))
    assert await seen(hot) is None
    await fill(hot, value(3))
    assert await seen(hot) == 3


async def test_every_copy_ends_though_the_others_are_renewed(client, prefix, behind, brief):
    hot = RedisValues(client, ttl_seconds=0.3, prefix=prefix)
    await push(hot, value(1, key="a"))
    for n in range(8):
        await asyncio.sleep(0.1)
        await push(hot, value(n + 2, key="b"))
    assert await seen(hot, "a") is None
    assert await seen(hot, "b") == 9
    key = await the_key(behind, prefix)
    assert await behind.hkeys(key) == [b"1:nb"], "what has ended was removed on the way"
    assert 0 < await behind.pttl(key) <= 600
    await asyncio.sleep(0.8)
    assert [key async for key in behind.scan_iter(f"{prefix}:*")] == []


async def test_little_stays_of_what_has_ended(client, prefix, behind, brief):
    hot = RedisValues(client, ttl_seconds=60, prefix=prefix)
    for n in range(600):
        await push(hot, value(n + 1, key=f"k{n}", expires_at=NOW + timedelta(milliseconds=1)))
        if n == 300:
            await asyncio.sleep(0.25)
    assert await behind.hlen(await the_key(behind, prefix)) < 400


async def test_erasing_a_user_leaves_nothing_and_refuses_what_is_on_its_way(hot, behind, prefix, brief):
    for user in ("u", "v"):
        for name in ("m", "n"):
            await push(hot, value(1), space=Space(user, name))
    assert await hot.forget("u") == 1
    assert await hot.forget("u") == 0
    assert [await seen(hot, space=Space("u", name)) for name in "mn"] == [None, None]
    assert await seen(hot, space=Space("v", "m")) == 1
    for put in (push, fill):
        await put(hot, value(2))
        assert await seen(hot) is None
    await asyncio.sleep(0.25)
    await push(hot, value(3))
    assert await seen(hot) == 3


async def test_what_a_network_held_back_comes_too_late(hot, brief):
    await push(hot, value(1))
    hot._ahead -= 1  # as if it had been sent a second ago
    await push(hot, value(2))
    await fill(hot, value(2))
    hot._ahead += 1
    assert await seen(hot) == 1


async def test_a_late_push_meets_the_tombstone_of_an_erasure(hot):
    await hot.forget("u")
    await push(hot, value(1))
    assert await seen(hot) is None


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda raw: repr(raw[:20]))
async def test_what_is_no_copy_of_ours_is_a_miss_and_is_replaced(hot, behind, prefix, garbage):
    await push(hot, value(1))
    key = await the_key(behind, prefix)
    await behind.hset(key, "1:nk", garbage)
    assert await hot.read(HERE, ["k"]) == {}
    assert [keys async for keys in hot.keys(HERE)] == []
    await push(hot, value(2))
    assert await seen(hot) == 2


async def test_a_changed_body_is_a_miss(hot, behind, prefix):
    await push(hot, value(1, '"limit 100"'))
    key = await the_key(behind, prefix)
    await behind.hset(key, "1:nk", (await behind.hget(key, "1:nk")).replace(b"100", b"999"))
    assert await hot.read(HERE, ["k"]) == {}


async def test_a_key_of_another_type_is_replaced(hot, behind, prefix):
    await push(hot, value(1))
    key = await the_key(behind, prefix)
    for work in (lambda: push(hot, value(2)), lambda: hot.drop(HERE, {"k": 0}), lambda: hot.forget("u")):
        await behind.delete(key)
        await behind.rpush(key, "somebody else's")
        assert await hot.read(HERE, ["k"]) == {}
        await work()
        assert await behind.type(key) == b"hash"


async def test_hostile_names_never_meet_and_keys_tell_nothing(hot, behind, prefix):
    names = [*HOSTILE[:-1], "1:a", "11", "!", "1"]
    spaces = [Space(user, name) for user in random.sample(names, 4) for name in random.sample(names, 4)]
    for place, space in enumerate(spaces):
        await push(hot, *(value(n + 1, f'"{place} {n}"', key) for n, key in enumerate(names)), space=space)
    for place, space in enumerate(spaces):
        copies = await hot.read(space, names)
        assert [copies[key].body for key in names] == [f'"{place} {n}"' for n in range(len(names))]
        listed = [key async for page in hot.keys(space) for key in page]
        assert sorted(set(listed)) == sorted(names)
    async for key in behind.scan_iter(f"{prefix}:*"):
        assert not any(name.encode() in key.removeprefix(prefix.encode()) for name in names if len(name) > 3)


async def test_thousands_of_values_are_one_round_trip(hot, client):
    sent = []
    original, pipeline = client.call, client._pipeline

    async def call(*command):
        sent.append(command[0])
        return await original(*command)

    async def many(commands):
        sent.append(f"{len(commands)} at once")
        return await pipeline(commands)

    client.call, client._pipeline = call, many
    await push(hot, value(1))
    sent.clear()
    many_values = [value(n + 1, key=f"k{n}") for n in range(1200)]
    await push(hot, *many_values)
    assert len(await hot.read(HERE, [each.key for each in many_values])) == 1200
    await hot.drop(HERE, {each.key: each.version for each in many_values})
    assert [step for step in sent if "at once" in step or step == "HMGET"] == ["3 at once", "HMGET", "3 at once"]
    assert await hot.read(HERE, [each.key for each in many_values]) == {}


async def test_a_full_server_loses_the_copy_that_cannot_follow():
    with Redis(maxmemory="100mb", maxmemory_policy="noeviction") as server:
        client = RedisClient(SecretStr(server.url), timeout=PATIENT)
        hot = RedisValues(client, ttl_seconds=60)
        await push(hot, value(1), value(2, key="other"))
        server.call("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreUnavailable, match="OOM"):
            await push(hot, value(3))
        await hot.drop(HERE, {"other": 2})
        assert await hot.read(HERE, ["k", "other"]) == {}, "not the old ones"
        await client.close()


async def test_a_server_that_is_gone_is_told_soon():
    client = RedisClient(SecretStr("redis://127.0.0.1:1"), timeout=0.25, breaker=Breaker(delay=60))
    hot = RedisValues(client, ttl_seconds=60)
    begun = time.monotonic()
    for work in (hot.read(HERE, ["k"]), push(hot, value(1)), hot.drop(HERE, {"k": 1}), hot.forget("u")):
        with pytest.raises(StoreUnavailable):
            await work
    with pytest.raises(StoreUnavailable):
        [keys async for keys in hot.keys(HERE)]
    assert time.monotonic() - begun < 2
    await client.close()


async def test_on_a_cluster(redis_cluster, prefix):
    client = RedisClient(SecretStr(redis_cluster.url), timeout=PATIENT)
    hot = RedisValues(client, ttl_seconds=60, prefix=prefix)
    for n in range(20):
        space = Space(f"u{n}", "n")
        await push(hot, *(value(i + 1, key=f"k{i}") for i in range(600)), space=space)
        assert len(await hot.read(space, [f"k{i}" for i in range(600)])) == 600
        await hot.drop(space, {"k0": 1})
        assert {key async for page in hot.keys(space) for key in page} == {f"k{i}" for i in range(1, 600)}
        assert await hot.forget(space.user_id) == 1
        assert await seen(hot, "k1", space) is None
    await client.close()


async def test_in_any_order_the_newest_wins(hot, brief):
    for _ in range(20):
        await hot.forget("u")
        await asyncio.sleep(0.21)
        states = [value(n, str(n)) for n in range(1, 8)]
        order = random.sample(states, 7)
        await asyncio.gather(*(push(hot, each) if random.random() < 0.5 else fill(hot, each) for each in order))
        assert await seen(hot) == 7
        assert await hot.read(HERE, ["k"]) == {"k": replace(states[-1])}
