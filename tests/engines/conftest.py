"""Engines on a SQLite file of the test's own, with a clock the test sets."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.engines.watched import Watched

from llm_memory_plugins import VectorDatabaseMemory


class Clock:
    def __init__(self):
        self.time = datetime(2026, 5, 1, 12, tzinfo=UTC)

    def __call__(self):
        return self.time

    def forward(self, **by):
        self.time += timedelta(**by)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/memory.sqlite3"


@pytest.fixture
def config(url):
    return {"database_url": url, "tokenizer": "estimate"}


@pytest.fixture
def embedder():
    return Watched()


@pytest.fixture
async def memory(config, clock, embedder):
    """A vector memory whose embedder is watched."""
    async with VectorDatabaseMemory(config, embedder=embedder, clock=clock) as opened:
        yield opened
