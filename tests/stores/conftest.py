"""A log and a hot tier that can be watched, held up, and made to fail, and caches over them."""

import asyncio

import pytest

from llm_memory_plugins.errors import StoreUnavailable
from llm_memory_plugins.stores.cached import CachedMessageLog
from llm_memory_plugins.stores.local import LocalHotTier
from llm_memory_plugins.stores.sqlite import Database, SqliteMessageLog


class SharedTier(LocalHotTier):
    """A tier of which every process sees the same, and which can be made to fail or lose things."""

    shared = True

    def __init__(self):
        super().__init__(ttl_seconds=60)
        self.down = False
        self.lose_pushes = False
        self.calls = []

    def _called(self, name):
        self.calls.append(name)
        if self.down:
            raise StoreUnavailable("the tier is down")

    async def read(self, session, window):
        self._called("read")
        return await super().read(session, window)

    async def push(self, stats, messages):
        self._called("push")
        await asyncio.sleep(0)
        if not self.lose_pushes:
            await super().push(stats, messages)

    async def fill(self, tail):
        self._called("fill")
        await super().fill(tail)

    async def drop(self, sessions):
        self._called("drop")
        return await super().drop(sessions)


class WatchedLog:
    """A log that counts its calls, can be held up and can fail."""

    def __init__(self, log):
        self._log = log
        self.calls = []
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def called(self, name):
        while name not in self.calls:  # noqa: ASYNC110 - an event for each name would be no clearer
            await asyncio.sleep(0)

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            self.calls.append(name)
            if self.down:
                raise StoreUnavailable("the log is down")
            result = await getattr(self._log, name)(*args, **kwargs)
            await self.gate.wait()
            return result

        return call


@pytest.fixture
async def log():
    database = Database(None)
    await database.open()
    yield WatchedLog(SqliteMessageLog(database))
    await database.close()


@pytest.fixture
def tier():
    return SharedTier()


@pytest.fixture
def cache(log, tier):
    return CachedMessageLog(log, tier)


@pytest.fixture
def elsewhere(log, tier):
    """Another process's cache over the same stores."""
    return CachedMessageLog(log, tier)
