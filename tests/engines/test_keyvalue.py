"""Key-value memory on SQLite: what it keeps, for whom and how long, what it refuses, and what a model is shown."""

import asyncio
import base64
import os
import sqlite3
import sys

import pytest

from llm_memory_plugins import ConversationBufferMemory, KeyValueStoreMemory
from llm_memory_plugins.errors import (
    AccessDenied,
    ConfigError,
    Conflict,
    InvalidInput,
    MissingExtra,
)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "memory.sqlite3"


@pytest.fixture
async def memory(config, clock):
    async with KeyValueStoreMemory(config, clock=clock) as opened:
        yield opened


def rows(file, what="*"):
    connection = sqlite3.connect(file)
    try:
        return connection.execute(f"select {what} from key_values order by user_id, namespace, key").fetchall()
    finally:
        connection.close()


def key():
    return base64.b64encode(os.urandom(32)).decode()


async def all_keys(memory, *args, **kwargs):
    return [name async for name in memory.keys(*args, **kwargs)]


async def test_the_key_value_example(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for variable in ("LLM_MEMORY_DATABASE_URL", "LLM_MEMORY_REDIS_URL", "LLM_MEMORY_SUPABASE_URL"):
        monkeypatch.delenv(variable, raising=False)
    kv_memory = KeyValueStoreMemory({"namespace": "user_context", "serialize_json": True})
    await kv_memory.initialize()
    await kv_memory.store({"key": "preferences", "value": {"theme": "dark"}, "user_id": "user_456"})
    assert await kv_memory.get("preferences", user_id="user_456") == {"theme": "dark"}
    assert "dark" in (await kv_memory.get_context({"user_id": "user_456"}))["text"]
    assert (await kv_memory.health_check())["status"] == "healthy"
    await kv_memory.close()


# --- what is kept


async def test_values_come_back_as_they_went_in(memory, clock):
    value = {
        "theme": "dark",
        "n": [1, 2.5, None, True],
        "raw": b"\0\xff",
        "at": clock(),
        "tags": {"a", "b"},
        "pair": (1, 2),
    }
    stored = await memory.store({"key": "settings", "value": value, "user_id": "u"})
    assert (stored.key, stored.value, stored.user_id, stored.namespace) == ("settings", value, "u", "default")
    assert stored["created_at"] == stored["updated_at"] == clock()
    assert stored.expires_at is None
    assert await memory.get("settings", user_id="u") == value
    assert await memory.get_entry("settings", user_id="u") == stored
    assert await memory.get("settings") is None
    assert await memory.get("settings", "fallback") == "fallback"
    assert await memory.get_entry("settings") is None
    await memory.set("nothing", None)
    assert await memory.get("nothing", "fallback") is None, "None is a value"


async def test_later_changes_by_the_caller_miss_what_is_stored(memory):
    value = {"list": [1]}
    stored = await memory.set("k", value)
    value["list"].append(2)
    (await memory.get("k"))["list"].append(3)
    assert stored.value == await memory.get("k") == {"list": [1]}


async def test_many_at_once(memory, file):
    stored = await memory.store(
        [
            {"key": "b", "value": 1, "user_id": "u"},
            {"key": "a", "value": 2},
            {"key": "a", "value": 3, "user_id": "u", "namespace": "m"},
            {"key": "c", "value": 4, "user_id": "u", "ttl_seconds": 60},
        ]
    )
    assert [(e.user_id, e.namespace, e.key, e.value) for e in stored] == [
        ("u", "default", "b", 1), ("", "default", "a", 2), ("u", "m", "a", 3), ("u", "default", "c", 4),
    ]  # fmt: skip
    assert await memory.store([]) == ()
    assert [e.value for e in await memory.mset({"x": 1, "y": 2}, user_id="u")] == [1, 2]
    assert await memory.mget(["y", "nope", "x", "y", "b"], user_id="u") == [2, None, 1, 2, 1]
    assert await memory.mget([], user_id="u") == []
    assert await memory.mset({}) == ()
    assert await all_keys(memory, user_id="u") == ["b", "c", "x", "y"]
    assert await all_keys(memory, "x", user_id="u") == ["x"]
    assert await memory.delete(["x", "y", "nope"], user_id="u") == 2
    assert await memory.delete("b", user_id="u") == 1
    assert await memory.delete([], user_id="u") == 0
    assert not await memory.exists("b", user_id="u")
    assert await memory.exists("c", user_id="u")
    await memory.mset({f"k{n:04}": n for n in range(2500)})
    assert await all_keys(memory, "k") == [f"k{n:04}" for n in range(2500)]


async def test_namespaces_and_users_never_meet(memory, config, clock):
    for user in (None, "u", "v"):
        for namespace in (None, "n"):
            await memory.set("k", [user, namespace], user_id=user, namespace=namespace)
    for user in (None, "u", "v"):
        for namespace in (None, "n"):
            assert await memory.get("k", user_id=user, namespace=namespace) == [user, namespace]
    async with KeyValueStoreMemory({**config, "namespace": "n"}) as other:
        assert await other.get("k", user_id="u") == ["u", "n"]
        assert await other.get("k", user_id="u", namespace="default") == ["u", None]
    async with KeyValueStoreMemory({**config, "user_id": "u"}) as hers:
        assert await hers.get("k") == await hers.get("k", user_id="u") == ["u", None]
        for call in (hers.get("k", user_id="v"), hers.set("k", 1, user_id="v"), hers.forget(user_id="v")):
            with pytest.raises(AccessDenied):
                await call
        with pytest.raises(AccessDenied):
            await hers.store([{"key": "k", "value": 1}, {"key": "k", "value": 1, "user_id": "v"}])
        assert await hers.get("k") == ["u", None]
    async with KeyValueStoreMemory({**config, "require_user": True}) as many:
        with pytest.raises(InvalidInput, match="user_id"):
            await many.get("k")


async def test_versions_decide_who_writes(memory):
    first = await memory.compare_and_set("k", 1, None)
    for wrong in (None, 0, first.version + 1):
        with pytest.raises(Conflict, match="key 'k'"):
            await memory.compare_and_set("k", 2, wrong)
    assert (await memory.get_entry("k")) == first
    second = await memory.compare_and_set("k", 2, first.version)
    assert second.version > first.version
    await memory.delete("k")
    with pytest.raises(Conflict):
        await memory.compare_and_set("k", 3, second.version)
    assert (await memory.compare_and_set("k", 3, 0)).version > second.version


@pytest.mark.parametrize("encrypted", [False, True])
async def test_changes_of_many_at_once_all_count(config, encrypted):
    settings = {**config, "encryption_keys": [key()]} if encrypted else config
    async with KeyValueStoreMemory(settings) as one, KeyValueStoreMemory(settings) as two:
        await asyncio.gather(*((one, two)[n % 2].update("k", {f"m{n}": n, "same": n}) for n in range(12)))
        value = await one.get("k")
        assert {name: value[name] for name in value if name != "same"} == {f"m{n}": n for n in range(12)}
        await asyncio.gather(*((one, two)[n % 2].increment("count", n) for n in range(12)))
        assert await two.get("count") == 66
        assert (await one.increment("count", 0.5)).value == 66.5


async def test_merge_patches(memory):
    assert (await memory.update("p", {"name": "Ada", "city": {"now": "London"}})).value["name"] == "Ada"
    changed = await memory.update("p", {"name": None, "city": {"next": "Turin"}, "tags": {"x"}})
    assert changed.value == await memory.get("p") == {"city": {"now": "London", "next": "Turin"}, "tags": {"x"}}
    assert (await memory.update("p", ["anything"])).value == ["anything"]
    assert (await memory.update("p", {"a": None})).value == {}


# --- how long


async def test_entries_end(config, clock, file):
    async with KeyValueStoreMemory({**config, "ttl_seconds": 100}, clock=clock) as memory:
        await memory.set("usual", 1)
        await memory.set("brief", 1, ttl_seconds=10)
        await memory.store({"key": "ever", "value": 1, "ttl_seconds": None})
        await memory.increment("count", ttl_seconds=10)
        await memory.update("patched", {"a": 1}, ttl_seconds=10)
        clock.forward(seconds=9)
        await memory.increment("count", ttl_seconds=1000)
        await memory.update("patched", {"b": 1}, ttl_seconds=1000)
        await memory.update("ever", 2)
        assert await memory.mget(["usual", "brief", "ever", "count"]) == [1, 1, 2, 2]
        clock.forward(seconds=1)
        assert await all_keys(memory) == ["ever", "usual"]
        assert await memory.get("brief") is await memory.get("count") is await memory.get("patched") is None
        assert (await memory.increment("count")).value == 1
        assert len(rows(file)) == 5
        clock.forward(seconds=100)
        assert await all_keys(memory) == ["ever"]
        assert await memory.prune() == 4
        assert [row[3] for row in rows(file)] == ["ever"]
        clock.forward(seconds=100)
        await memory.set("brief", 1, ttl_seconds=10)
        clock.forward(seconds=100)
        await memory.set("usual", 1)
        await memory.drain()
        assert [row[3] for row in rows(file)] == ["ever", "usual"], "writing removes what has expired"


async def test_a_value_written_anew_has_a_new_end(memory, clock):
    await memory.set("k", 1, ttl_seconds=10)
    assert (await memory.set("k", 2)).expires_at is None
    clock.forward(seconds=11)
    assert await memory.get("k") == 2


# --- what is refused

DEEP = {"a": 1}
for _ in range(100):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize("encrypted", [False, True])
async def test_bad_input_names_the_key_and_leaves_the_old_value(config, clock, encrypted):
    settings = {**config, "max_value_bytes": 1000, **({"encryption_keys": [key()]} if encrypted else {})}
    async with KeyValueStoreMemory(settings, clock=clock) as memory:
        await memory.mset({"limit": {"max": 1}, "text": "x"})
        before = [await memory.get_entry(name) for name in ("limit", "text")]
        for bad, field in (
            (object(), "limit"), ({"max": {1, float("nan")}}, "limit.max"), (float("inf"), "limit"),
            ({"x": "\0"}, "limit.x"),
            ("\ud800", "limit"), ("x" * 1000, "limit"), (DEEP, "limit"), ({2: 1}, "limit"), ({"f": print}, "limit.f"),
        ):  # fmt: skip
            for call in (
                memory.set("limit", bad),
                memory.store([{"key": "text", "value": "new"}, {"key": "limit", "value": bad}]),
                memory.mset({"text": "new", "limit": bad}),
                memory.compare_and_set("limit", bad, before[0].version),
                memory.update("limit", bad),
            ):
                with pytest.raises(InvalidInput) as caught:
                    await call
                assert caught.value.field.startswith(field), bad
        with pytest.raises(InvalidInput, match=r"^limit: takes"):
            await memory.update("limit", {"more": "x" * 990})
        for name in ("limit", "text"):
            with pytest.raises(InvalidInput, match=f"^{name}: holds no number"):
                await memory.increment(name)
        for call, field in (
            (memory.set("", 1), "key"), (memory.set("x" * 257, 1), "key"), (memory.get(5), "key"),
            (memory.mget("text"), "keys"),
            (memory.mget(["text", ""]), "keys.1"), (memory.set("limit", 1, ttl_seconds=0), "ttl_seconds"),
            (memory.set("limit", 1, namespace=""), "namespace"), (memory.compare_and_set("limit", 1, "1"), "version"),
            (memory.increment("limit", "1"), "by"), (memory.store("limit"), "value"),
            (memory.store([{"key": "limit"}]), "0.value"),
            (memory.store({"key": "limit", "value": 1, "tll_seconds": 5}), "tll_seconds"),
            (memory.mset([1]), "entries"),
            (memory.store([{"key": "limit", "value": 1}, {"key": "limit", "value": 2}]), "limit"),
            (memory.get_context({"key": "limit"}), "key"), (memory.forget(), "user_id"),
            (all_keys(memory, 5), "prefix"),
        ):  # fmt: skip
            with pytest.raises(InvalidInput) as caught:
                await call
            assert caught.value.field == field
        assert [await memory.get_entry(name) for name in ("limit", "text")] == before


async def test_a_number_that_cannot_hold_the_sum_stays(memory):
    await memory.set("n", 1.7e308)
    with pytest.raises(InvalidInput, match=r"^n: "):
        await memory.increment("n", 1.7e308)
    assert await memory.get("n") == 1.7e308


@pytest.mark.parametrize(
    "wrong",
    [
        {"encryption_keys": ["hunter2"]},
        {"encryption_keys": "hunter2"},
        {"compression_threshold": 0},
        {"max_value_bytes": -1},
        {"namespace": ""},
        {"namespace": "x" * 257},
        {"sync_seconds": 0},
    ],
    ids=str,
)
def test_a_bad_setting_is_refused_without_being_told(config, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))) as caught:
        KeyValueStoreMemory({**config, **wrong})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "module"), [({"encryption_keys": [key()]}, "cryptography"), ({"compression_threshold": 5}, "backports")]
)
def test_a_setting_says_what_to_install(config, monkeypatch, setting, module):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"{next(iter(setting))}.*pip install 'llm-memory-plugins\["):
        KeyValueStoreMemory({**config, **setting})


# --- erasure


async def test_forgetting_a_user_leaves_nothing(memory, config, file):
    for user in ("", "u", "v"):
        for namespace in ("m", "n"):
            await memory.mset({"a": f"of-{user}", "b": 1}, user_id=user, namespace=namespace)
    assert (await memory.forget(user_id="u", namespace="m")).removed == {"key_values": 2}
    assert await memory.get("a", user_id="u", namespace="n") == "of-u"
    assert (await memory.forget(user_id="u")).total == 2
    assert (await memory.forget(user_id="")).total == 4
    assert {row[1] for row in rows(file)} == {"v"}
    async with ConversationBufferMemory(config) as conversations:
        await conversations.store({"session_id": "s", "user_id": "v", "role": "user", "content": "hello"})
        receipt = await conversations.clear("s", "v")
        assert "key_values" not in receipt.removed
        receipt = await conversations.forget(user_id="v")
        assert receipt.removed["key_values"] == 4
    assert rows(file) == []


async def test_without_copies_there_is_nothing_to_compare(memory):
    await memory.set("k", 1)
    assert (await memory.sync()).checked == 0


async def test_health(memory):
    health = await memory.health_check()
    assert health["status"] == "healthy"
    assert set(health.backends) == {"sqlite"}
