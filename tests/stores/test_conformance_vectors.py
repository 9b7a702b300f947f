"""The suites of vector memory over every store there is, and over the model they measure by."""

import sqlite3
from collections import Counter

import numpy as np
import psycopg
import pytest
from pydantic import SecretStr

from llm_memory_plugins.records import Where
from llm_memory_plugins.stores.postgres import PostgresTransport
from llm_memory_plugins.stores.sql_functions import SqlMessageLog
from llm_memory_plugins.stores.sql_memories import SqlVectorIndex
from llm_memory_plugins.stores.sqlite import Database, SqliteMessageLog
from llm_memory_plugins.stores.sqlite.memories import SqliteVectorIndex
from llm_memory_plugins.stores.supabase import SupabaseTransport
from llm_memory_plugins.testing.embedding_queue import EmbeddingQueueSuite
from llm_memory_plugins.testing.vector_conditions import VectorConditionsSuite
from llm_memory_plugins.testing.vector_history import VectorHistorySuite
from llm_memory_plugins.testing.vector_index import VectorIndexSuite
from llm_memory_plugins.testing.vector_model import Statistics, VectorModel
from llm_memory_plugins.testing.vector_recall import VectorRecallSuite
from llm_memory_plugins.testing.vector_search import VectorSearchSuite


class Everything(
    VectorIndexSuite,
    VectorConditionsSuite,
    VectorSearchSuite,
    VectorRecallSuite,
    VectorHistorySuite,
    EmbeddingQueueSuite,
):
    """All there is to hold."""

    tenants = (10, 100, 1_000)


def counted(parts):
    """Statistics of parts, given by length and terms."""
    holding = Counter(term for _, terms in parts for term in terms)
    return Statistics(len(parts), sum(length for length, _ in parts), holding)


class TestVectorModel(Everything):
    @pytest.fixture
    async def index(self):
        return VectorModel()

    async def tables(self, index, user_id):
        stats = await index.stats(user_id)
        return {"records": stats.records, "parts": stats.parts, "vectors": sum(stats.embedders.values())}

    async def statistics(self, index, user_id):
        return index.statistics(user_id), index.statistics(user_id)

    async def erase(self, index, user_id, session_id=None):
        await index.delete(user_id, Where(session_id=session_id))


CORPUS = "select pk from corpora where user_id = :user"


class OnSqlite:
    """Rows are numbered by their user's corpus; those of a corpus that is gone are anybody's who asks."""

    async def query(self, query, **names):
        raise NotImplementedError

    async def tables(self, index, user_id):
        lost = "pk >> 36 not in (select pk from corpora)"
        whose = {
            "corpora": "user_id = :user",
            **dict.fromkeys(("records", "parts", "vectors"), f"pk >> 36 in ({CORPUS}) or {lost}"),
            "record_changes": lost,
        }
        queries = {table: f"select count(*) from {table} where {condition}" for table, condition in whose.items()}
        return {table: (await self.query(query, user=user_id))[0][0] for table, query in queries.items()}

    async def statistics(self, index, user_id):
        """There are none but in memory."""
        query = f"select length, terms from parts where pk >> 36 in ({CORPUS})"
        rows = await self.query(query, user=user_id)
        found = counted([(length, np.frombuffer(terms, dtype="<u4").tolist()) for length, terms in rows])
        return found, found

    async def erase(self, index, user_id, session_id=None):
        await SqliteMessageLog(self.database).delete(user_id=user_id, session_id=session_id)


class OnSqliteFile(OnSqlite):
    @pytest.fixture
    async def index(self, tmp_path):
        self.path = tmp_path / "memory.sqlite3"
        self.database = Database(self.path)
        await self.database.open()
        yield SqliteVectorIndex(self.database)
        await self.database.close()

    @pytest.fixture
    async def twin(self, index):
        database = Database(self.path)
        await database.open()
        yield SqliteVectorIndex(database)
        await database.close()

    async def query(self, query, **names):
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(query, names).fetchall()
        finally:
            connection.close()


class TestSqliteVectorIndex(OnSqliteFile, Everything):
    tenants = (10, 100, 1_000, 10_000)


@pytest.mark.slow
class TestSqliteVectorIndexLarge(OnSqliteFile, VectorRecallSuite):
    tenants = (100, 100_000)


class TestSqliteVectorIndexInMemory(OnSqlite, Everything):
    steps = 1000

    @pytest.fixture
    async def index(self):
        self.database = Database(None)
        await self.database.open()
        yield SqliteVectorIndex(self.database)
        await self.database.close()

    async def query(self, query, **names):
        return await self.database.read(lambda connection: connection.execute(query, names).fetchall())


TABLES = ("memories", "passages", "words", "embeddings", "terms", "corpora")


class OnPostgres:
    """What is stored is read, and emptied, by the superuser."""

    @pytest.fixture(autouse=True)
    def _empty(self, database_url):
        with psycopg.connect(database_url, autocommit=True) as self.connection:
            self.connection.execute(f"truncate {', '.join(f'llm_memory.{table}' for table in TABLES)}")
            self.connection.execute("update llm_memory.store set hot = false")  # other tests keep copies in Redis
            yield

    def query(self, query, user_id):
        return self.connection.execute(query, [user_id]).fetchall()

    async def tables(self, index, user_id):
        query = "select count(*) from llm_memory.{} where user_id = %s"
        return {table: self.query(query.format(table), user_id)[0][0] for table in TABLES}

    async def statistics(self, index, user_id):
        totals = self.query("select passages, length from llm_memory.corpora where user_id = %s", user_id) or [(0, 0)]
        terms = self.query("select term, passages from llm_memory.terms where user_id = %s", user_id)
        parts = self.query("select length, terms from llm_memory.passages where user_id = %s", user_id)
        return Statistics(*totals[0], dict(terms)), counted(parts)

    async def erase(self, index, user_id, session_id=None):
        await SqlMessageLog(self.transport).delete(user_id=user_id, session_id=session_id)


class OnPostgresDirectly(OnPostgres):
    @pytest.fixture
    async def index(self, authenticator_url):
        self.transport = PostgresTransport(SecretStr(authenticator_url))
        await self.transport.open()
        yield SqlVectorIndex(self.transport)
        await self.transport.close()

    @pytest.fixture
    async def twin(self, authenticator_url):
        transport = PostgresTransport(SecretStr(authenticator_url))
        await transport.open()
        yield SqlVectorIndex(transport)
        await transport.close()


@pytest.mark.slow
class TestPostgresVectorIndex(OnPostgresDirectly, Everything):
    tenants = (10, 100, 1_000, 10_000)
    steps = 100


@pytest.mark.slow
class TestPostgresVectorIndexLarge(OnPostgresDirectly, VectorRecallSuite):
    tenants = (100, 100_000)


@pytest.mark.slow
class TestSupabaseVectorIndex(OnPostgres, Everything):
    steps = 60

    @pytest.fixture
    async def index(self, supabase_api):
        self.transport = SupabaseTransport(supabase_api.url, SecretStr(supabase_api.service_key))
        await self.transport.open()
        yield SqlVectorIndex(self.transport)
        await self.transport.close()
