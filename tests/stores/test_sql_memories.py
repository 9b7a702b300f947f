"""What the suites do not ask of vector memory on PostgreSQL: what its functions cost, and how it is called."""

import asyncio
import time
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import psycopg
import pytest
from pydantic import SecretStr

from llm_memory_plugins import filters
from llm_memory_plugins.errors import Conflict
from llm_memory_plugins.lexicon import term
from llm_memory_plugins.records import Probe, Where
from llm_memory_plugins.stores import sql_memories
from llm_memory_plugins.stores.postgres import PostgresTransport
from llm_memory_plugins.stores.sql_memories import SqlVectorIndex
from llm_memory_plugins.testing.vector_entries import FIRST, SECOND, START, entry, ids, part, probe, talk, unit

pytestmark = pytest.mark.slow

TABLES = ("memories", "passages", "words", "embeddings", "terms", "corpora")
LARGE = 20_500  # above where an index is used
MINUTE = timedelta(minutes=1)
SIZE = int(FIRST.rpartition("/")[2])


@contextmanager
def admin(url):
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def empty(database_url):
    """Tables the server knows nothing of yet, and does not look into by itself."""
    with admin(database_url) as connection:
        connection.execute("truncate " + ", ".join(f"llm_memory.{name}" for name in TABLES))
        for name in TABLES:
            connection.execute(f"alter table llm_memory.{name} set (autovacuum_enabled = false)")
        yield connection
        for name in TABLES:
            connection.execute(f"alter table llm_memory.{name} reset (autovacuum_enabled)")


@pytest.fixture
async def index(authenticator_url, empty):
    transport = PostgresTransport(SecretStr(authenticator_url), pool_size=1, timeout=60)
    await transport.open()
    yield SqlVectorIndex(transport)
    await transport.close()


READ = """select (select sum(idx_tup_read) from pg_stat_user_indexes where schemaname = 'llm_memory')
               + (select sum(seq_tup_read) from pg_stat_user_tables where schemaname = 'llm_memory')"""
OPEN = "select count(*) from pg_stat_activity where usename = 'authenticator' and datname = current_database()"
BY_INDEX = "select coalesce(sum(idx_scan), 0) from pg_stat_user_indexes where indexrelname like 'embeddings_hnsw%'"


async def settled(index, connection, query=READ):
    """A counter of what was read, once the index's connection has handed in its own."""
    await index._transport.close()
    while connection.execute(OPEN).fetchone() != (0,):  # noqa: ASYNC110 - it is another process that ends
        await asyncio.sleep(0.01)
    (count,) = connection.execute(query).fetchone()
    await index._transport.open()
    return int(count)


async def fill(index, user):
    waiting = await index.pending("test/filled/8", user_id=user, limit=3)
    await index.fill("test/filled/8", [(each, unit(each.text, "test/filled/8")) for each in waiting])


OPERATIONS = {
    "match": lambda index, user: index.match(user, probe("s1 said t2", near="s1 said", limit=10)),
    "match in a session": lambda index, user: index.match(user, probe("said", near="x", where=Where(session_id="s"))),
    "match by metadata": lambda index, user: index.match(
        user, probe("said", near="x", where=Where(filter=filters.parse({"n": 1})))
    ),
    "put": lambda index, user: index.put(user, [entry(f"new {time.monotonic_ns()} said", session_id="s")]),
    "put the same": lambda index, user: index.put(user, talk(3)),
    "replace": lambda index, user: index.put(
        user, [entry(f"said {time.monotonic_ns()}", id="s2 said", session_id="s")]
    ),
    "page": lambda index, user: index.page(user, Where(), after="s3", limit=10),
    "count": lambda index, user: index.count(user, Where(session_id="t")),
    "count of a time": lambda index, user: index.count(user, Where(since=START + MINUTE, until=START + 3 * MINUTE)),
    "stats": lambda index, user: index.stats(user),
    "pending": lambda index, user: index.pending(user_id=user, limit=3),
    "pending by another": lambda index, user: index.pending(SECOND, user_id=user, limit=5),
    "fill": fill,
    "retire": lambda index, user: index.retire(SECOND, user_id=user),
    "delete": lambda index, user: index.delete(user, Where(ids=("s1 said",))),
}


KNOWN = ["nothing", "what was there at first", "everything"]


async def grown(index, connection, known, names, grow):
    """What operations read before and after `grow`, whatever the server knows of the tables when it plans."""
    costs = {}
    await index.put("small", talk(40) + talk(40, "t"))
    if known != KNOWN[0]:
        connection.execute("vacuum analyze")
    for size in ("small", "large"):
        if size == "large":
            await grow()
            if known == KNOWN[2]:
                connection.execute("vacuum analyze")
        for name in names:
            before = await settled(index, connection)
            for _ in range(5):
                await OPERATIONS[name](index, "small")
            costs[size, name] = await settled(index, connection) - before
    for name in names:
        small, large = costs["small", name], costs["large", name]
        assert 0 < large <= 2 * small + 300, f"{name} reads {large} entries, before it was {small}"


def many(session, count=3000):
    return [entry(f"{session} w{n} said", session_id=f"{session}{n // 50}", source="many") for n in range(count)]


@pytest.mark.parametrize("known", KNOWN)
async def test_no_operation_costs_what_others_hold(index, empty, known):
    async def grow():
        for user in ("large", "larger"):
            await index.put(user, many("x"))

    await grown(index, empty, known, OPERATIONS, grow)


@pytest.mark.parametrize("known", KNOWN)
async def test_small_things_cost_the_same_in_a_large_tenant(index, empty, known):
    small = [
        "match in a session",
        "put",
        "put the same",
        "replace",
        "page",
        "count",
        "count of a time",
        "pending",
        "fill",
        "delete",
    ]
    others = many("x") + [entry(f"waits {n}", vectors=False) for n in range(3000)]
    await grown(index, empty, known, small, lambda: index.put("small", others))


def scattered(count):
    """Vectors around a few hundred centres, as those of texts are."""
    draw = np.random.default_rng(count)
    vectors = draw.standard_normal((300, SIZE))[draw.integers(0, 300, count)] + 0.6 * draw.standard_normal(
        (count, SIZE)
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


async def test_a_large_tenant_is_searched_by_an_index_when_there_is_one(index, empty):
    vectors = scattered(LARGE)
    texts = [f"w{n} w" for n in range(500)]
    for start in range(0, LARGE, 4100):
        await index.put(
            "large",
            [
                entry(texts[n % 500], id=f"{n:06}", parts=[part(texts[n % 500], vector=vectors[n])], created_at=START)
                for n in range(start, start + 4100)
            ],
        )
    await index.put("small", talk(20))
    empty.execute("vacuum analyze llm_memory.embeddings")
    asked = [
        Probe(vectors=((FIRST, vector),), terms=(), limit=100) for vector in vectors[:40] * -1 + vectors[40:80] * 2
    ]
    truth = [set(np.argsort(-(vectors @ one.vectors[0][1]))[:10].tolist()) for one in asked]

    async def recall(**where):
        found = [
            await index.match("large", Probe(vectors=p.vectors, terms=p.terms, limit=100, where=Where(**where)))
            for p in asked
        ]
        got = [{int(row.record) for row in pool.rows} for pool in found]
        assert {len(rows) for rows in got} == {100}
        return sum(len(best & rows) for best, rows in zip(truth, got, strict=True)) / (10 * len(asked))

    def scans():
        return settled(index, empty, BY_INDEX)

    assert await recall() == 1
    empty.execute("select llm_memory.index_embeddings(%s)", [SIZE])
    empty.execute("select llm_memory.index_embeddings(%s)", [SIZE])
    try:
        assert await scans() == 0
        assert await recall() >= 0.99
        by_index = await scans()
        assert by_index >= len(asked)
        assert await recall(since=START) == 1, "which allows more than can be looked up one by one"
        assert await ids(index, "small", probe(near="s1 said", limit=1)) == ["s0 said", "s1 said", "s2 said", "s3 said"]
        assert len(await ids(index, "large", probe(near="x", by=("test/unknown/24",)))) == 0
        assert await scans() == by_index + 1, "it was asked for the unknown embedder, and nothing else"
        await index.put("large", [entry("of late")])
        assert "of late" in await ids(index, "large", probe(near="of late", limit=1))
    finally:
        empty.execute("select llm_memory.drop_embeddings_index(%s)", [SIZE])
    assert await recall() == 1


async def test_words_are_found_in_a_large_list_of_what_is_allowed(index):
    count = 20_100
    await index.put("u", [entry(f"w{n % 7} n{n}", id=str(n), vectors=False) for n in range(count)])
    pool = await index.match("u", probe("n77 n20099 n5", where=Where(since=START)))
    assert {row.record for row in pool.rows} == {"77", "20099", "5"}
    assert pool.corpus.frequencies == (1, 1, 1)
    pool = await index.match("u", probe("w3", where=Where(since=START), limit=5))
    assert pool.corpus.frequencies == (len(range(3, count, 7)),)
    assert sorted(int(row.record) for row in pool.rows) == [3, 10, 17, 24, 31]


class Watched:
    """A transport that writes down what is called."""

    def __init__(self, transport):
        self._transport = transport
        self.calls = []

    async def call(self, function, arguments, *, user_id, repeatable=True):
        self.calls.append((function, user_id, repeatable))
        return await self._transport.call(function, arguments, user_id=user_id, repeatable=repeatable)


async def test_each_verb_is_one_call_for_its_user(index):
    watched = Watched(index._transport)
    calls = watched.calls
    index = SqlVectorIndex(watched)
    await index.put("u", [entry("one", id="r"), entry("two", id="r"), *talk(3)])
    await index.match("u", probe("one", near="two"))
    await index.page("u", Where())
    await index.count("u", Where())
    await index.stats("u")
    await index.stats()
    waiting = await index.pending(SECOND, user_id="u")
    await index.fill(SECOND, [(each, unit(each.text, SECOND)) for each in waiting])
    await index.delete("u", Where())
    assert calls == [
        ("put_memories", "u", True),
        ("match_memories", "u", True),
        ("page_memories", "u", True),
        ("count_memories", "u", True),
        ("memory_stats", "u", True),
        ("memory_stats", None, True),
        ("pending_embeddings", "u", True),
        ("fill_embeddings", "u", True),
        ("delete_memories", "u", True),
    ]


async def test_a_write_that_names_a_revision_is_not_sent_twice(index):
    """Its second arrival would be a conflict with its first."""
    watched = Watched(index._transport)
    index = SqlVectorIndex(watched)
    await index.put("u", [entry("one", id="r")])
    await index.put("u", [entry("new"), entry("two", id="r", revision=1)])
    with pytest.raises(Conflict):
        await index.put("u", [entry("two", id="r", revision=1)])
    assert [repeatable for _, _, repeatable in watched.calls] == [True, False, False]


async def test_retiring_many_takes_several_calls(index, monkeypatch):
    monkeypatch.setattr(sql_memories, "_RETIRED", 3)
    await index.put("u", talk(10))
    await index.put(
        "u",
        [
            entry(f"s{n} said", session_id="s", role="assistant" if n % 2 else "user", embedder=SECOND)
            for n in range(10)
        ],
    )
    assert (await index.stats("u")).embedders == {FIRST: 10, SECOND: 10}
    assert await index.retire(SECOND, user_id="u") == 10
    assert (await index.stats("u")).embedders == {SECOND: 10}


async def test_rows_that_lost_their_passage_are_never_found(index, empty):
    """As by a hand that deletes memories and knows of nothing else."""
    await index.put("u", talk(5))
    empty.execute("delete from llm_memory.memories where id = 's2 said'")
    asked = probe("s2 said", near="s2 said")
    assert await ids(index, "u", asked) == ["s0 said", "s1 said", "s3 said", "s4 said"]
    await index.delete("u", Where())
    assert [empty.execute(f"select count(*) from llm_memory.{name}").fetchone() for name in TABLES] == [(0,)] * 6


async def test_a_vector_and_the_words_of_a_passage_stay_in_their_row(index, empty):
    await index.put("u", [entry("a b c", embedder="test/wide/1536"), entry(" ".join(map(str, range(900))), id="many")])
    toasted = """select relname, pg_relation_size(reltoastrelid) from pg_class
                 where relname in ('embeddings', 'words') and relnamespace = 'llm_memory'::regnamespace order by 1"""
    assert empty.execute(toasted).fetchall() == [("embeddings", 0), ("words", 0)]


async def test_writers_of_different_users_do_not_wait_for_each_other(index, empty, authenticator_url):
    await index.put("u", [entry("one")])
    with empty.transaction():
        empty.execute("select from llm_memory.corpora where user_id = 'u' for update")
        await asyncio.wait_for(index.put("v", [entry("two"), entry("three")]), 10)
        waiting = asyncio.create_task(index.put("u", [entry("two")]))
        await asyncio.sleep(0.3)
        assert not waiting.done()
    await waiting
    assert (await index.match("u", probe("two"))).corpus.frequencies == (1,)
    assert term("two") > 0
