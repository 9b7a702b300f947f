"""What is particular to vector memory on SQLite: shelves in memory that must never differ from the file."""

import asyncio
import shutil
import sqlite3
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llm_memory_plugins import filters
from llm_memory_plugins.errors import AmbiguousSession, InvalidInput, StoreUnavailable
from llm_memory_plugins.records import Probe, Where
from llm_memory_plugins.stores import sqlite as sqlite_store
from llm_memory_plugins.stores.sqlite import Database, SqliteMessageLog, corpora, shelf, shelves
from llm_memory_plugins.stores.sqlite.memories import SqliteVectorIndex
from llm_memory_plugins.stores.sqlite.vectors import Vectors
from llm_memory_plugins.testing.vector_conditions import FILTERS, VALUES
from llm_memory_plugins.testing.vector_entries import (
    FIRST,
    SECOND,
    agree,
    entry,
    ids,
    part,
    probe,
    talk,
    unit,
)
from llm_memory_plugins.testing.vector_model import VectorModel

ALL = Where()


@pytest.fixture
async def database(tmp_path):
    opened = Database(tmp_path / "memory.sqlite3")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def index(database):
    return SqliteVectorIndex(database)


@pytest.fixture
async def elsewhere(database, tmp_path):
    """The same file in another process."""
    opened = Database(tmp_path / "memory.sqlite3")
    await opened.open()
    yield SqliteVectorIndex(opened)
    await opened.close()


@pytest.fixture
def model():
    return VectorModel()


async def both(index, model, verb, *arguments):
    """Have the same done by both."""
    await getattr(model, verb)(*arguments)
    await getattr(index, verb)(*arguments)


async def test_what_another_process_writes_is_found_by_the_next_search(index, elsewhere, model):
    await both(index, model, "put", "u", talk(5))
    for verb, arguments in (
        ("put", ([entry("w0 said", session_id="s")],)),
        ("put", ([entry("s2 rewritten", id="s2 said", session_id="s")],)),
        ("put", ([entry("s1 said", session_id="s", importance=1.0)],)),
        ("delete", (Where(ids=("s0 said",)),)),
        ("put", ([entry("s3 said", session_id="t", embedder=SECOND)],)),
        ("delete", (ALL,)),
        ("put", (talk(3),)),
    ):
        await both(elsewhere, model, verb, "u", *arguments)
        for asked in (probe("said", near="s1", by=(FIRST, SECOND)), probe("s2", where=Where(session_id="s"), limit=1)):
            await agree(index, model, "u", asked)


async def test_a_new_record_copies_no_matrix(index, database):
    await index.put("u", [entry(str(n)) for n in range(100)])
    await index.match("u", probe(near="1"))
    before = database.kept["u"]._vectors[FIRST]._matrix.values
    await index.put("u", [entry("new")])
    await index.put("u", [entry("1", importance=1.0)])
    assert await ids(index, "u", probe(near="new", limit=1)) == ["new"]
    after = database.kept["u"]._vectors[FIRST]._matrix.values
    assert len(after) == 102
    assert np.shares_memory(before, after)


async def test_rows_of_what_is_gone_are_cleared_away(index, database, model, monkeypatch):
    monkeypatch.setattr(shelf, "_WASTE", 10)
    await both(index, model, "put", "u", talk(60))
    for n in range(50):
        await both(index, model, "delete", "u", Where(ids=(f"s{n} said",)))
        await agree(index, model, "u", probe("said s55", near="s3", limit=3))
    assert len(database.kept["u"]._live) < 25


async def test_changes_that_nobody_remembers_are_no_harm(index, database, model, monkeypatch):
    for module in (shelf, corpora):
        monkeypatch.setattr(module, "REMEMBERED", 20)
    await both(index, model, "put", "u", talk(30))
    await index.match("u", probe("said"))
    for n in range(25):
        await both(index, model, "put", "u", [entry(f"s{n} said", session_id="s", importance=0.5)])
    await agree(index, model, "u", probe("said", near="s3", limit=30))
    kept = await database.read(lambda connection: connection.execute("select count(*) from record_changes").fetchone())
    assert kept == (20,)


async def test_erasing_a_user_clears_the_memory_of_every_process(index, elsewhere, database):
    log = SqliteMessageLog(database)
    for user in ("u", "v", "w"):
        await index.put(user, [entry("one", id=user)])
        await index.match(user, probe("one"))
        await elsewhere.match(user, probe("one"))
    await log.delete(user_id="u")
    assert list(database.kept) == ["v", "w"]
    await index.delete("v", ALL)
    assert list(database.kept) == ["w"]
    there = elsewhere._database.kept
    assert list(there) == ["u", "v", "w"]
    await elsewhere.match("w", probe("one"))
    assert list(there) == ["w"], "the others are gone, whoever searches next"
    await index.put("u", [entry("two")])
    assert await ids(elsewhere, "u", probe("one two")) == ["two"]


async def test_erasing_a_session_finds_its_owner_in_this_memory_too(index, database):
    log = SqliteMessageLog(database)
    await index.put("u", [*talk(3), entry("alone")])
    await index.put("v", talk(2, "t"))
    await index.match("u", probe("said"))
    assert (await log.delete(session_id="nowhere")).total == 0
    receipt = await log.delete(session_id="s")
    assert receipt.removed == {"summaries": 0, "messages": 0, "sessions": 0, "vectors": 3, "parts": 3, "records": 3}
    assert await ids(index, "u", probe("said alone")) == ["alone"]
    await index.put("u", talk(1, "t"))
    with pytest.raises(AmbiguousSession):
        await log.delete(session_id="t")
    assert (await log.delete(user_id="v", session_id="t")).removed["records"] == 2
    assert await ids(index, "u", probe("said")) == ["t0 said"]


async def test_a_file_that_was_put_back_is_not_taken_for_the_one_before(index, database, tmp_path):
    path, copy = tmp_path / "memory.sqlite3", tmp_path / "copy"
    await index.put("u", [entry("kept")])
    await database.close()
    shutil.copy(path, copy)
    await database.open()
    await index.put("u", [entry("lost")])
    assert await ids(index, "u", probe("kept lost new")) == ["kept", "lost"]
    await database.close()
    assert not database.kept
    shutil.copy(copy, path)
    await database.open()
    await index.put("u", [entry("new")])  # has the numbers of what was lost
    assert await ids(index, "u", probe("kept lost new")) == ["kept", "new"]


async def test_memory_without_a_file_begins_empty_every_time():
    database = Database(None)
    index = SqliteVectorIndex(database)
    for word in ("first", "second"):
        await database.open()
        await index.put("u", [entry(word)])
        assert await ids(index, "u", probe("first second")) == [word]
        await database.close()


async def test_shelves_longest_unused_make_room(database, index):
    users = [f"u{n}" for n in range(5)]
    for user in users:
        await index.put(user, [entry(f"{n} all") for n in range(50)])
        await index.match(user, probe("all"))
    size = database.kept["u0"].nbytes
    assert 50 * 24 * 4 < size < 100_000
    index._shelves = shelves.Shelves(database.kept, 3 * size + size // 2)
    await index.match("u0", probe("all"))
    assert list(database.kept) == ["u3", "u4", "u0"]
    index._shelves = shelves.Shelves(database.kept, 0)
    assert len((await index.match("u2", probe("all"))).rows) == 50
    assert list(database.kept) == ["u2"], "one alone is kept, however large"
    assert (await index.match("nobody", probe("all"))).rows == ()
    assert list(database.kept) == ["u2"]


async def test_a_shelf_that_was_half_made_is_made_anew(index, model, monkeypatch):
    await both(index, model, "put", "u", talk(5))
    add = Vectors.add

    def fail(*arguments):
        monkeypatch.setattr(Vectors, "add", add)
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Vectors, "add", fail)
    with pytest.raises(StoreUnavailable):
        await index.match("u", probe("said"))
    await agree(index, model, "u", probe("said", near="s1"))
    await both(index, model, "put", "u", talk(3, "t"))
    monkeypatch.setattr(Vectors, "add", fail)
    with pytest.raises(StoreUnavailable):
        await index.match("u", probe("said"))
    await agree(index, model, "u", probe("said", near="s1"))


async def test_vectors_of_another_length_are_refused(index):
    await index.put("u", [entry("one")])
    short = np.ones(3, np.float32)
    with pytest.raises(InvalidInput, match="3 dimensions; those of its embedder have 24"):
        await index.put("u", [entry("two"), entry("three", parts=[part("three", vector=short)])])
    await index.put("u", [entry("waits", vectors=False)])
    with pytest.raises(InvalidInput):
        await index.fill(FIRST, [(each, short) for each in await index.pending()])
    assert await ids(index, "u", probe("one two three waits")) == ["one", "waits"]


@pytest.mark.parametrize("count", [7, 1001, 4099])
async def test_equal_vectors_are_equal_wherever_they_stand(index, count):
    """Products of a matrix and a vector may differ in the last digit from row to row."""
    same = unit("same")
    batch = [entry(f"{n:04}", parts=[part(f"{n:04}", vector=same)], metadata={"odd": n % 2}) for n in range(count)]
    await index.put("u", batch)
    for where, step in ((ALL, 1), (Where(filter=filters.parse({"odd": 1})), 2)):
        asked = replace(probe(near="x", where=where, limit=3), vectors=((FIRST, unit("x")),))
        pool = await index.match("u", asked)
        assert sorted(row.text for row in pool.rows) == [f"{n:04}" for n in range(step - 1, 3 * step, step)]
        assert len({row.cosine for row in pool.rows}) == 1


async def test_filters_find_the_same_in_memory_as_in_the_file(index):
    metadata = [{"n": n, "v": value} for n, value in enumerate(VALUES)] + [{}, {"w": 1}, {"a": {"b": 1}}, {"w": 1}]
    await index.put("u", [entry(f"{n} all", metadata=each) for n, each in enumerate(metadata)])
    for given in FILTERS:
        where = Where(filter=filters.parse(given))
        page = sorted(record.id for record in await index.page("u", where, limit=1000))
        assert await ids(index, "u", probe("all", where=where, limit=1000)) == page, given


async def test_answers_to_a_filter_are_kept_but_never_outdated(index):
    def holding(condition):
        return Where(filter=filters.parse({"v": condition}))

    async def found():
        narrow = replace(holding(1), ids=("a",))
        asked = (narrow, holding(1), holding(True), holding("1"))
        return [await ids(index, "u", probe("all", where=where)) for where in asked]

    values = {"a": 1, "b": True, "c": 1.0}
    await index.put("u", [entry("all", id=name, metadata={"v": value}) for name, value in values.items()])
    for _ in range(2):
        assert await found() == [["a"], ["a", "c"], ["b"], []]
    await index.put("u", [entry("all", id="a", metadata={"v": "1"}), entry("all", id="d", metadata={"v": 1})])
    assert await found() == [[], ["c", "d"], ["b"], ["a"]]
    for n in range(1, 40):  # more than answers are kept for
        assert await ids(index, "u", probe("all", where=holding({"$gt": n}))) == []
    assert await found() == [[], ["c", "d"], ["b"], ["a"]]


async def test_putting_the_same_again_writes_nothing(index, database, tmp_path):
    batch = talk(20)
    await index.put("u", batch)

    async def written():
        return await database.read(lambda connection: connection.execute("pragma data_version").fetchone())

    before = (await written(), (tmp_path / "memory.sqlite3-wal").stat().st_size)
    await index.put("u", batch)
    assert (await written(), (tmp_path / "memory.sqlite3-wal").stat().st_size) == before


async def test_a_search_beside_changes_sees_one_state(index, elsewhere):
    """A record is replaced over and over: each search finds it, once, in one of its forms."""
    await index.put("u", [entry("all 0", id="r"), *(entry(f"all x{n}") for n in range(20))])
    done = asyncio.Event()

    async def replace_it():
        for n in range(1, 60):
            await (index, elsewhere)[n % 2].put("u", [entry(f"all {n}", id="r")])
        done.set()

    async def search(process):
        newest = 0
        while not done.is_set():
            pool = await process.match("u", probe("all", near="x", limit=100))
            (found,) = [row for row in pool.rows if row.record == "r"]
            assert len(pool.rows) == pool.corpus.total == 21
            assert int(found.text.split()[1]) >= newest
            newest = int(found.text.split()[1])

    await asyncio.gather(replace_it(), *(search(process) for process in (index, index, index, elsewhere)))


async def test_searches_without_vectors_or_words(index, model):
    await both(index, model, "put", "u", [entry("w0", vectors=False), entry("w1", embedder=SECOND)])
    for asked in (
        Probe(vectors=(), terms=()),
        probe(near="w0"),
        probe("w0 w0 w1", near="w1", by=(SECOND, FIRST)),
        probe("absent"),
    ):
        await agree(index, model, "u", asked)


async def test_embedders_of_different_lengths_stand_side_by_side(index, model):
    await both(index, model, "put", "u", talk(6))
    for process in (index, model):
        found = await process.pending(SECOND)
        await process.fill(SECOND, [(each, unit(each.text, SECOND)) for each in found[::2]])
    questions = [probe("s1", near="s2 said", by=by, limit=2) for by in ((SECOND, FIRST), (FIRST, SECOND), (FIRST,))]
    for question in questions:
        await agree(index, model, "u", question)
    for process in (index, model):
        assert await process.retire(SECOND) == 3
    for question in questions:
        await agree(index, model, "u", question)
    assert Counter((await index.stats("u")).embedders) == {FIRST: 3, SECOND: 3}


async def test_a_file_of_before_vector_memory_is_brought_up_to_date(tmp_path):
    path = tmp_path / "memory.sqlite3"
    schema = Path(sqlite_store.__file__).parent / "schema"
    connection = sqlite3.connect(path)
    for file in ("0001_conversations.sql", "0002_store.sql"):
        connection.executescript((schema / file).read_text())
    connection.execute("insert into sessions (user_id, session_id) values ('u', 's')")
    connection.execute("pragma user_version = 2")
    connection.commit()
    connection.close()
    database = Database(path)
    await database.open()
    index = SqliteVectorIndex(database)
    await index.put("u", talk(2))
    assert await ids(index, "u", probe("said")) == ["s0 said", "s1 said"]
    receipt = await SqliteMessageLog(database).delete(session_id="s")
    assert (receipt.removed["sessions"], receipt.removed["records"]) == (1, 2)
    await database.close()
