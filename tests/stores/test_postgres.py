"""What the suites do not ask of PostgreSQL: what its functions cost, and how the transport behaves."""

import asyncio
from datetime import timedelta

import psycopg
import pytest
from pydantic import SecretStr

from llm_memory_plugins.stores.postgres import PostgresTransport
from llm_memory_plugins.stores.sql_functions import SqlMessageLog
from llm_memory_plugins.stores.sql_transport import SCHEMA_VERSION
from llm_memory_plugins.testing.message_log import ONE, START, talk
from llm_memory_plugins.types import Window

pytestmark = pytest.mark.slow


@pytest.fixture
async def log(authenticator_url, database_url):
    """On tables the server knows nothing of yet: planned as if they were empty."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("truncate llm_memory.sessions cascade")
        for table in ("sessions", "messages"):
            connection.execute(f"alter table llm_memory.{table} set (autovacuum_enabled = false)")
    transport = PostgresTransport(SecretStr(authenticator_url), pool_size=1)
    await transport.open()
    yield SqlMessageLog(transport)
    await transport.close()
    with psycopg.connect(database_url, autocommit=True) as connection:
        for table in ("sessions", "messages"):
            connection.execute(f"alter table llm_memory.{table} reset (autovacuum_enabled)")


def looked_at(url):
    """Index entries and rows of our tables that were read so far."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("select pg_stat_force_next_flush()")
        found = connection.execute("""select sum(idx_tup_read) from pg_stat_user_indexes where schemaname = 'llm_memory'
            union all select sum(seq_tup_read) from pg_stat_user_tables where schemaname = 'llm_memory'""")
        return sum(int(count or 0) for (count,) in found)


async def settled(log, url):
    """The counters, once the transport's connection has handed in its own."""
    transport = log._transport
    await transport.close()
    counters = looked_at(url)
    await transport.open()
    return counters


KNOWN = ["nothing", "that one session is all there is", "what held long ago"]


@pytest.mark.parametrize("known", KNOWN)
async def test_no_operation_costs_the_history(log, database_url, known):
    """Whatever the server knows of the tables when it plans."""
    if known == KNOWN[2]:
        await log.append(talk(250))
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("analyze llm_memory.messages, llm_memory.sessions")
            connection.execute("truncate llm_memory.sessions cascade")
    long = talk(3000)
    costs = {}
    for size, batch in ((200, long[:200]), (6000, long[200:])):
        windows = [
            Window("turns", 5),
            Window("tokens", 100),
            Window("time", 300, now=START + timedelta(minutes=size // 2)),
            Window("turns", 5, max_tokens=50),
        ]
        for start in range(0, len(batch), 400):
            await log.append(batch[start : start + 400])
        if known == KNOWN[1]:
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute("vacuum analyze llm_memory.messages, llm_memory.sessions")
        for number, window in enumerate(windows):
            before = await settled(log, database_url)
            for _ in range(10):
                await log.recent(ONE, window)
            costs[size, f"recent {number}"] = await settled(log, database_url) - before
        before = await settled(log, database_url)
        for _ in range(10):
            await log.append(batch[-2:])  # known already
            await log.page(ONE, after=size - 5)
        costs[size, "append"] = await settled(log, database_url) - before
    for (size, what), cost in costs.items():
        if size == 6000:
            short = costs[200, what]
            assert short > 0
            assert cost <= 2 * short + 200, f"{what} reads {cost} entries, in a short session {short}"


async def test_calls_wait_for_a_connection_where_no_more_can_be_made(database_url, authenticator_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("drop role if exists narrow")
        connection.execute("create role narrow login noinherit password 'of-the-tests' connection limit 3")
        connection.execute("grant authenticated, service_role to narrow")
    url = f"postgresql://narrow:of-the-tests@{authenticator_url.rpartition('@')[2]}"
    transport = PostgresTransport(SecretStr(url), pool_size=10, timeout=30)
    await transport.open()
    answers = await asyncio.gather(*(transport.call("open_memory", {}, user_id=None) for _ in range(60)))
    assert {answer["version"] for answer in answers} == {SCHEMA_VERSION}
    await transport.close()
