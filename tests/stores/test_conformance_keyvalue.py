"""The suite of key-value memory over every store there is, alone and behind copies in Redis, and over its model."""

import sqlite3
import uuid

import psycopg
import pytest
from pydantic import SecretStr
from tests.stores.test_conformance import api, direct

from llm_memory_plugins.stores.cached_keyvalue import CachedKeyValue
from llm_memory_plugins.stores.redis import RedisClient, RedisValues
from llm_memory_plugins.stores.sql_keyvalue import SqlKeyValue
from llm_memory_plugins.stores.sqlite import Database
from llm_memory_plugins.stores.sqlite.keyvalue import SqliteKeyValue
from llm_memory_plugins.testing.key_value import KeyValueSuite
from llm_memory_plugins.testing.key_value_model import KeyValueModel

__all__ = ["api", "direct"]

ROWS = "select user_id, namespace, key, body from {}key_values order by 1, 2, 3"
PATIENT = 5.0  # seconds: these tests are about what is answered, not how soon


class TestKeyValueInProcess(KeyValueSuite):
    @pytest.fixture
    async def store(self):
        self.model = KeyValueModel()
        return self.model

    @pytest.fixture
    async def twin(self, store):
        return KeyValueModel(store.entries)

    async def rows(self):
        return sorted((*space, key, held.body) for (space, key), held in self.model.entries.items())


class TestSqliteKeyValue(KeyValueSuite):
    @pytest.fixture
    async def stores(self, tmp_path):
        self.path = tmp_path / "memory.sqlite3"
        databases = [Database(self.path) for _ in range(2)]
        for database in databases:
            await database.open()
        yield [SqliteKeyValue(database) for database in databases]
        for database in databases:
            await database.close()

    @pytest.fixture
    async def store(self, stores):
        return stores[0]

    @pytest.fixture
    async def twin(self, stores):
        return stores[1]

    async def rows(self):
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(ROWS.format("")).fetchall()
        finally:
            connection.close()


class TestSqliteKeyValueInMemory(KeyValueSuite):
    @pytest.fixture
    async def store(self):
        self.database = Database(None)
        await self.database.open()
        yield SqliteKeyValue(self.database)
        await self.database.close()

    @pytest.fixture
    async def twin(self, store):
        return store

    async def rows(self):
        return await self.database.read(lambda connection: connection.execute(ROWS.format("")).fetchall())


class OnRedis:
    """Two processes' caches over the stores of another suite, with one Redis."""

    @pytest.fixture
    async def caches(self, stores, redis_server):
        prefix = f"test-{uuid.uuid4().hex}"
        clients = [RedisClient(SecretStr(redis_server.url), timeout=PATIENT) for _ in stores]
        yield [
            CachedKeyValue(store, RedisValues(client, ttl_seconds=60, prefix=prefix))
            for store, client in zip(stores, clients, strict=True)
        ]
        for client in clients:
            await client.close()

    @pytest.fixture
    async def store(self, caches):
        return caches[0]

    @pytest.fixture
    async def twin(self, caches):
        return caches[1]


@pytest.mark.slow
class TestSqliteKeyValueBehindRedis(OnRedis, TestSqliteKeyValue):
    pass


class OnPostgres:
    """What is stored is read, and emptied, by the superuser."""

    @pytest.fixture(autouse=True)
    def _empty(self, database_url):
        self.database_url = database_url
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("truncate llm_memory.key_values")
            connection.execute("update llm_memory.store set hot = false")  # other tests keep copies in Redis

    @pytest.fixture
    async def store(self, stores):
        return stores[0]

    @pytest.fixture
    async def twin(self, stores):
        return stores[1]

    async def rows(self):
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(ROWS.format("llm_memory.")).fetchall()


@pytest.mark.slow
class TestPostgresKeyValue(OnPostgres, KeyValueSuite):
    @pytest.fixture
    async def stores(self, direct):
        return [SqlKeyValue(direct), SqlKeyValue(direct)]


@pytest.mark.slow
class TestSupabaseKeyValue(OnPostgres, KeyValueSuite):
    @pytest.fixture
    async def stores(self, api):
        return [SqlKeyValue(api), SqlKeyValue(api)]


@pytest.mark.slow
class TestPostgresKeyValueBehindRedis(OnRedis, TestPostgresKeyValue):
    pass


@pytest.mark.slow
class TestSupabaseKeyValueBehindRedis(OnRedis, TestSupabaseKeyValue):
    pass
