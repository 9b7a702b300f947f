"""Values that are bytes, encrypted or compressed, on SQLite: what the file shows, and what tampering with it does."""

import base64
import sqlite3

import pytest
from tests.engines.test_keyvalue import file, key, rows

from llm_memory_plugins import KeyValueStoreMemory
from llm_memory_plugins.errors import ConfigError, InvalidInput, StoreUnavailable
from llm_memory_plugins.sealing import _zstd

__all__ = ["file"]


def change(file, statement, *parameters):
    connection = sqlite3.connect(file)
    with connection:
        connection.execute(statement, parameters)
    connection.close()


async def test_without_json_bytes_go_in_and_come_out(config):
    async with KeyValueStoreMemory({**config, "serialize_json": False}) as memory:
        await memory.set("raw", b"\0\xff")
        assert await memory.get("raw") == b"\0\xff"
        assert (await memory.get_context()).recalled.splitlines()[1] == '- raw: "(2 bytes)"'
        for call in (memory.update("raw", {}), memory.increment("raw")):
            with pytest.raises(InvalidInput, match="serialize_json"):
                await call
        with pytest.raises(InvalidInput, match=r"^raw: is a str.*bytes"):
            await memory.set("raw", "text")
        assert await memory.get("raw") == b"\0\xff"


async def test_what_is_encrypted_cannot_be_read_in_the_file(config, file, clock):
    old, new_key = key(), key()
    async with KeyValueStoreMemory({**config, "encryption_keys": [old]}) as memory:
        assert old not in repr(memory.config) + repr(vars(memory))
        await memory.mset({"a": "the-secret", "b": {"deep": "the-secret"}})
        await memory.increment("n", 41)
        await memory.increment("n")
        assert await memory.mget(["a", "b", "n"]) == ["the-secret", {"deep": "the-secret"}, 42]
    assert b"the-secret" not in file.read_bytes()
    async with KeyValueStoreMemory({**config, "encryption_keys": [new_key, old]}) as memory:
        assert await memory.mget(["a", "n"]) == ["the-secret", 42]
        await memory.set("a", await memory.get("a"))
        assert (await memory.increment("n")).value == 43
    for keys in ([new_key], []):
        async with KeyValueStoreMemory({**config, "encryption_keys": keys}) as memory:
            with pytest.raises(ConfigError, match=r"encryption_keys: .*'b'"):
                await memory.get("b")
    async with KeyValueStoreMemory({**config, "encryption_keys": [new_key]}) as memory:
        assert await memory.mget(["a", "n"]) == ["the-secret", 43]
    async with KeyValueStoreMemory(config) as memory:
        with pytest.raises(InvalidInput, match=r"^n: holds no number"):
            await memory.increment("n")


async def test_tampering_is_noticed_and_named(config, file):
    async with KeyValueStoreMemory({**config, "encryption_keys": [key()]}) as memory:
        await memory.mset({"limit": 10, "other": 1_000_000})
        body = rows(file, "body")
        change(
            file, "update key_values set body = (select body from key_values where key = 'other') where key = 'limit'"
        )
        for call in (
            memory.get("limit"),
            memory.mget(["other", "limit"]),
            memory.increment("limit"),
            memory.update("limit", {}),
        ):
            with pytest.raises(StoreUnavailable, match="key 'limit'"):
                await call
        assert rows(file, "body") == [body[1], body[1]], "it stays as it is"
        context = await memory.get_context()
        assert "1000000" in context.text
        assert "'limit'" in context.errors["key_value"]
        await memory.set("limit", 10)
        assert await memory.get("limit") == 10


async def test_large_values_are_compressed(config, file):
    async with KeyValueStoreMemory({**config, "compression_threshold": 1000}) as memory:
        text = "to be or not to be " * 1000
        await memory.mset({"large": text, "small": "x"})
        assert await memory.mget(["large", "small"]) == [text, "x"]
        sizes = dict(rows(file, "key, length(body)"))
        assert sizes["large"] < len(text) / 50
        bomb = base64.b64encode(_zstd().compress(b"0" * 50_000_000)).decode()
        change(file, "update key_values set body = ? where key = 'large'", bomb)
        with pytest.raises(StoreUnavailable, match=r"key 'large'.*max_value_bytes"):
            await memory.get("large")
        assert dict(rows(file, "key, body"))["large"] == bomb
    async with KeyValueStoreMemory(config) as memory:
        await memory.set("large", text)
        assert dict(rows(file, "key, encoding"))["large"] == "json"
