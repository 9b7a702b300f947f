"""Servers for the whole session, each started when a test first asks for it; every xdist worker has its own."""

import asyncio
import os
import re
from collections import Counter
from urllib.parse import urlsplit, urlunsplit

import pytest
from pydantic import SecretStr
from tests.servers import (
    GivenPostgres,
    GivenRedis,
    Postgres,
    Redis,
    RedisCluster,
    RedisSentinel,
    SupabaseApi,
    bootstrap,
    valkey_binary,
)

from llm_memory_plugins.stores.migrate import migrate

# Read once: tests of settings clear the environment of everything that is ours.
DATABASE_URL = os.environ.get("LLM_MEMORY_TEST_DATABASE_URL")
REDIS_URL = os.environ.get("LLM_MEMORY_TEST_REDIS_URL")


def pytest_terminal_summary(terminalreporter):
    """Name the stores on which the suites of `llm_memory_plugins.testing` ran, and how many of their tests passed."""
    ran = Counter(
        report.nodeid.split("::")[1].removeprefix("Test")
        for report in terminalreporter.stats.get("passed", ())
        if report.when == "call" and re.search(r"tests/stores/test_(conformance\w*|redis)\.py::Test", report.nodeid)
    )
    if ran:
        terminalreporter.section("conformance")
        for name, count in sorted(ran.items()):
            terminalreporter.line(f"{name}: {count} passed")


async def migrated(url):
    """Bring a database up to date; returns what was applied."""
    return [migration async for migration, _ in migrate(SecretStr(url))]


def apply_migrations(url):
    """The same, outside an event loop."""
    return asyncio.run(migrated(url))


@pytest.fixture(scope="session")
def postgres():
    if DATABASE_URL:
        yield GivenPostgres(DATABASE_URL)
    else:
        with Postgres() as server:
            yield server


@pytest.fixture(scope="session")
def database_url(postgres):
    """A database of the superuser's with the schema, as psql makes it. Tests empty it themselves."""
    url = postgres.create_database("memory")
    bootstrap(url)
    apply_migrations(url)
    return url


@pytest.fixture(scope="session")
def authenticator_url(database_url):
    """The same database as the login that may only act for others."""
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"authenticator:authenticator-of-the-tests@{host}"))


@pytest.fixture(scope="session")
def redis_server():
    if REDIS_URL:
        yield GivenRedis(REDIS_URL)
    else:
        with Redis() as server:
            yield server


@pytest.fixture(scope="session")
def valkey_server():
    with Redis(valkey_binary()) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster():
    with RedisCluster() as servers:
        yield servers


@pytest.fixture(scope="session")
def redis_sentinel():
    with RedisSentinel() as servers:
        yield servers


@pytest.fixture(scope="session")
def supabase_api(database_url):
    with SupabaseApi(database_url) as server:
        yield server
