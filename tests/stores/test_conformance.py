"""The suites of `llm_memory_plugins.testing` over every store there is."""

import sqlite3

import pytest

from llm_memory_plugins.stores.cached import CachedMessageLog
from llm_memory_plugins.stores.local import LocalHotTier
from llm_memory_plugins.stores.sqlite import Database, SqliteMessageLog, SqliteSummaryLog
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


class TestLocalHotTier(HotTierSuite):
    @pytest.fixture
    async def hot(self):
        return LocalHotTier(ttl_seconds=60)
