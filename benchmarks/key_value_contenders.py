"""What `key_value.py` compares: the base of all contenders, the floors, this project, and the stores of other libraries."""

# ruff: noqa: D101, D102 - contenders say who they are in `name`; methods are described once, in `Contender`

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import redis.asyncio

from llm_memory_plugins import KeyValueStoreMemory

RUN = f"bench-{uuid.uuid4().hex}"


class Servers(NamedTuple):
    """Where the servers are, and a folder for files."""

    database_url: str
    redis_url: str
    folder: str


def value(n: int, version: int = 0) -> dict[str, Any]:
    """Some two hundred bytes of settings."""
    return {
        "theme": "dark", "language": "de", "timezone": "Europe/Rome", "font_size": 14 + n % 3, "version": version,
        "notifications": {"email": True, "push": False, "digest": "weekly"}, "recent": [f"document-{n}", "inbox"],
    }  # fmt: skip


class Contender:
    """A store of values. `get` and the others take numbers of keys; what a store has no verb for is None."""

    name = ""
    durability = ""

    async def open(self, servers: Servers, stack: AsyncExitStack) -> None:
        """Connect; what has to be closed goes on the stack."""

    async def get(self, n: int) -> dict[str, Any] | None:
        raise NotImplementedError

    async def set(self, n: int, value: dict[str, Any]) -> None:
        raise NotImplementedError

    mget: Callable[[Any, list[int]], Awaitable[list[dict[str, Any] | None]]] | None = None
    mset: Callable[[Any, dict[int, dict[str, Any]]], Awaitable[None]] | None = None


class BareRedis(Contender):
    name = "floor: redis-py, HGET and json.loads"
    durability = "in Redis alone"

    async def open(self, servers: Servers, stack: AsyncExitStack) -> None:
        self._client = redis.asyncio.from_url(servers.redis_url)
        stack.push_async_callback(self._client.aclose)
        self._hash = f"{RUN}:bare"
        await self._client.hset(self._hash, "x", "")
        await self._client.expire(self._hash, 3600)

    async def get(self, n: int) -> dict[str, Any] | None:
        found = await self._client.hget(self._hash, f"k{n}")
        return None if found is None else json.loads(found)

    async def set(self, n: int, value: dict[str, Any]) -> None:
        await self._client.hset(self._hash, f"k{n}", json.dumps(value))

    async def mget(self, keys: list[int]) -> list[dict[str, Any] | None]:
        found = await self._client.hmget(self._hash, [f"k{n}" for n in keys])
        return [None if each is None else json.loads(each) for each in found]

    async def mset(self, values: dict[int, dict[str, Any]]) -> None:
        await self._client.hset(self._hash, mapping={f"k{n}": json.dumps(each) for n, each in values.items()})


class WriteThrough(BareRedis):
    name = "floor: psycopg upsert, then HSET"
    durability = "PostgreSQL"
    _upsert = """insert into floor (key, value) select * from unnest(%s::text[], %s::text[])
                 on conflict (key) do update set value = excluded.value"""

    async def open(self, servers: Servers, stack: AsyncExitStack) -> None:
        await super().open(servers, stack)
        import psycopg

        self._connection = await psycopg.AsyncConnection.connect(servers.database_url, autocommit=True)
        stack.push_async_callback(self._connection.close)
        await self._connection.execute("create table if not exists floor (key text primary key, value text not null)")
        self._hash = f"{RUN}:through"

    async def set(self, n: int, value: dict[str, Any]) -> None:
        await self.mset({n: value})

    async def mset(self, values: dict[int, dict[str, Any]]) -> None:
        rows = [f"k{n}" for n in values], [json.dumps(each) for each in values.values()]
        await self._connection.execute(self._upsert, rows, prepare=True)
        await super().mset(values)
        await self._client.expire(self._hash, 3600)


class ThisProject(Contender):
    """`KeyValueStoreMemory`."""

    settings: Callable[[Any, Servers], dict[str, Any]]

    async def open(self, servers: Servers, stack: AsyncExitStack) -> None:
        config = {"tokenizer": "estimate", "redis_timeout": 5.0, "user_id": RUN, **self.settings(servers)}
        self.memory = await stack.enter_async_context(KeyValueStoreMemory(config))

    async def get(self, n: int) -> dict[str, Any] | None:
        return await self.memory.get(f"k{n}")

    async def set(self, n: int, value: dict[str, Any]) -> None:
        await self.memory.set(f"k{n}", value)

    async def mget(self, keys: list[int]) -> list[dict[str, Any] | None]:
        return await self.memory.mget([f"k{n}" for n in keys])

    async def mset(self, values: dict[int, dict[str, Any]]) -> None:
        await self.memory.mset({f"k{n}": each for n, each in values.items()})


class OnRedisAndPostgres(ThisProject):
    name = "KeyValueStoreMemory, Redis + PostgreSQL"
    durability = "PostgreSQL"

    def settings(self, servers: Servers) -> dict[str, Any]:
        return {"redis_url": servers.redis_url, "database_url": servers.database_url}


class OnPostgres(ThisProject):
    name = "KeyValueStoreMemory, PostgreSQL alone"
    durability = "PostgreSQL"

    def settings(self, servers: Servers) -> dict[str, Any]:
        return {"database_url": servers.database_url}


class OnSqlite(ThisProject):
    name = "KeyValueStoreMemory, SQLite file"
    durability = "SQLite"

    def settings(self, servers: Servers) -> dict[str, Any]:
        return {"database_url": f"sqlite:///{servers.folder}/memory.sqlite3"}


class InMemory(ThisProject):
    name = "KeyValueStoreMemory, in process"
    durability = "none"

    def settings(self, servers: Servers) -> dict[str, Any]:
        return {"database_url": "sqlite:///:memory:"}


class LangGraphInMemory(Contender):
    name = "LangGraph InMemoryStore"
    durability = "none"

    async def open(self, servers: Servers, stack: AsyncExitStack) -> None:
        from langgraph.store.memory import InMemoryStore

        self._store = InMemoryStore()

    async def get(self, n: int) -> dict[str, Any] | None:
        found = await self._store.aget((RUN, "default"), f"k{n}")
        return found and found.value

    async def set(self, n: int, value: dict[str, Any]) -> None:
        await self._store.aput((RUN, "default"), f"k{n}", value)

    async def mget(self, keys: list[int]) -> list[dict[str, Any] | None]:
        from langgraph.store.base import GetOp

        found = await self._store.abatch([GetOp((RUN, "default"), f"k{n}") for n in keys])
        return [each and each.value for each in found]

    async def mset(self, values: dict[int, dict[str, Any]]) -> None:
        from langgraph.store.base import PutOp

        await self._store.abatch([PutOp((RUN, "default"), f"k{n}", each) for n, each in values.items()])


class LangGraphPostgres(LangGraphInMemory):
    name = "LangGraph AsyncPostgresStore"
    durability = "PostgreSQL"

    async def open(self, servers: Servers, stack: AsyncExitStack) -> None:
        from langgraph.store.postgres.aio import AsyncPostgresStore

        self._store = await stack.enter_async_context(AsyncPostgresStore.from_conn_string(servers.database_url))
        await self._store.setup()


class LlamaIndexRedis(Contender):
    name = "LlamaIndex RedisKVStore"
    durability = "in Redis alone"

    async def open(self, servers: Servers, stack: AsyncExitStack) -> None:
        from llama_index.storage.kvstore.redis import RedisKVStore

        client = redis.asyncio.from_url(servers.redis_url)
        stack.push_async_callback(client.aclose)
        self._store = RedisKVStore(redis_client=redis.from_url(servers.redis_url), async_redis_client=client)

    async def get(self, n: int) -> dict[str, Any] | None:
        return await self._store.aget(f"k{n}", collection=f"{RUN}:llama")

    async def set(self, n: int, value: dict[str, Any]) -> None:
        await self._store.aput(f"k{n}", value, collection=f"{RUN}:llama")


CONTENDERS: list[type[Contender]] = [
    *(BareRedis, WriteThrough, OnRedisAndPostgres, OnPostgres, OnSqlite, InMemory),
    *(LangGraphInMemory, LangGraphPostgres, LlamaIndexRedis),
]
