"""The suites of `llm_memory_plugins.testing` over every store there is."""

import sqlite3

import psycopg
import pytest
from pydantic import SecretStr

from llm_memory_plugins.stores.cached import CachedMessageLog
from llm_memory_plugins.stores.local import LocalHotTier
from llm_memory_plugins.stores.postgres import PostgresTransport
from llm_memory_plugins.stores.sql_functions import SqlMessageLog, SqlSummaryLog
from llm_memory_plugins.stores.sqlite import Database, SqliteMessageLog, SqliteSummaryLog
from llm_memory_plugins.stores.supabase import SupabaseTransport
from llm_memory_plugins.testing.hot_tier import HotTierSuite
from llm_memory_plugins.testing.message_log import MessageLogSuite
from llm_memory_plugins.testing.summary_log import SummaryLogSuite

ROWS = """select user_id, session_id, seq, id, content from messages join sessions on pk = session_pk
          order by user_id, session_id, seq"""


@pytest.fixture
async def database(tmp_path):
    opened = Database(tmp_path / "memory.sqlite3")
    await opened.open()
    yield opened
    await opened.close()


class TestSqliteMessageLog(MessageLogSuite):
    @pytest.fixture
    async def log(self, database):
        return SqliteMessageLog(database)

    @pytest.fixture(autouse=True)
    def _path(self, tmp_path):
        self.path = tmp_path / "memory.sqlite3"

    async def rows(self, log):
        connection = sqlite3.connect(self.path)
        try:
            return connection.execute(ROWS).fetchall()
        finally:
            connection.close()


class TestCachedSqliteMessageLog(TestSqliteMessageLog):
    @pytest.fixture
    async def log(self, database):
        return CachedMessageLog(SqliteMessageLog(database), LocalHotTier(ttl_seconds=60))


class TestSqliteMessageLogInMemory(MessageLogSuite):
    @pytest.fixture
    async def log(self):
        self.database = Database(None)
        await self.database.open()
        yield SqliteMessageLog(self.database)
        await self.database.close()

    async def rows(self, log):
        return await self.database.read(lambda connection: connection.execute(ROWS).fetchall())


class TestSqliteSummaryLog(SummaryLogSuite):
    @pytest.fixture
    async def logs(self, database):
        return SqliteMessageLog(database), SqliteSummaryLog(database)


PG_ROWS = """select s.user_id, session_id, seq, id, content
             from llm_memory.messages m join llm_memory.sessions s on s.user_id = m.user_id and pk = session_pk
             order by 1, 2, 3"""


class OnPostgres:
    """What is stored is read, and emptied, by the superuser."""

    @pytest.fixture(autouse=True)
    def _empty(self, database_url):
        self.database_url = database_url
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("truncate llm_memory.sessions cascade")
            connection.execute("update llm_memory.store set hot = false")  # other tests keep copies in Redis

    async def rows(self, log):
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(PG_ROWS).fetchall()


@pytest.fixture
async def direct(authenticator_url):
    transport = PostgresTransport(SecretStr(authenticator_url))
    await transport.open()
    yield transport
    await transport.close()


@pytest.fixture
async def api(supabase_api):
    transport = SupabaseTransport(supabase_api.url, SecretStr(supabase_api.service_key))
    await transport.open()
    yield transport
    await transport.close()


@pytest.mark.slow
class TestPostgresMessageLog(OnPostgres, MessageLogSuite):
    @pytest.fixture
    async def log(self, direct):
        return SqlMessageLog(direct)


@pytest.mark.slow
class TestPostgresSummaryLog(OnPostgres, SummaryLogSuite):
    @pytest.fixture
    async def logs(self, direct):
        return SqlMessageLog(direct), SqlSummaryLog(direct)


@pytest.mark.slow
class TestSupabaseMessageLog(OnPostgres, MessageLogSuite):
    @pytest.fixture
    async def log(self, api):
        return SqlMessageLog(api)


@pytest.mark.slow
class TestSupabaseSummaryLog(OnPostgres, SummaryLogSuite):
    @pytest.fixture
    async def logs(self, api):
        return SqlMessageLog(api), SqlSummaryLog(api)


class TestLocalHotTier(HotTierSuite):
    @pytest.fixture
    async def hot(self):
        return LocalHotTier(ttl_seconds=60)
