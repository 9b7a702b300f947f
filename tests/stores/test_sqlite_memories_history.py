"""Two processes write vector memory on SQLite and ask it, in any order, beside a model."""

import asyncio
import shutil
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from llm_memory_plugins import filters
from llm_memory_plugins.errors import Conflict
from llm_memory_plugins.records import Where
from llm_memory_plugins.stores.sqlite import Database, SqliteMessageLog, corpora, shelf, shelves
from llm_memory_plugins.stores.sqlite.memories import SqliteVectorIndex
from llm_memory_plugins.testing.vector_entries import FIRST, SECOND, START, agree, cuts, entry, part, probe, unit
from llm_memory_plugins.testing.vector_model import VectorModel

ALL = Where()
WORDS = [f"w{n}" for n in range(7)]
QUESTIONS = [
    probe("w0 w3", near="w1 w2", by=(FIRST, SECOND), limit=2),
    probe("w5", near="w1", by=(SECOND,), limit=3, where=Where(filter=filters.parse({"n": {"$gt": 0}}))),
    probe(" ".join(WORDS), near="w6 w6", limit=100, where=Where(session_id="s", until=START + timedelta(minutes=30))),
]

contents = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
users = st.sampled_from("ab")
wheres = st.builds(
    Where,
    ids=st.none() | st.lists(st.sampled_from("0123456"), max_size=3).map(tuple),
    session_id=st.none() | st.sampled_from("st"),
    source=st.none() | st.just("x"),
    filter=st.none() | st.builds(lambda n: filters.parse({"n": {"$ne": n}}), st.integers(0, 2)),
)


@st.composite
def entries(draw):
    content = draw(contents)
    embedder = draw(st.sampled_from([FIRST, SECOND, None]))
    return entry(
        content,
        id=draw(st.sampled_from("0123456")),
        parts=[part(content, *span, embedder=embedder) for span in cuts(content, draw(st.integers(1, 3)))],
        embedder=embedder or FIRST,
        session_id=draw(st.none() | st.sampled_from("st")),
        source=draw(st.none() | st.just("x")),
        role=draw(st.none() | st.just("user")),
        metadata={"n": draw(st.integers(0, 2))},
        created_at=START + timedelta(minutes=draw(st.integers(0, 60))),
        revision=draw(st.just(0) | st.integers(0, 3)),
    )


class TwoProcesses(RuleBasedStateMachine):
    """Writing and asking by either of two processes, beside a model in dicts: everything they say is the same.

    Shelves have room for next to nothing, are made anew soon, and soon do not know any more what was changed.
    """

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.databases = [Database(self.folder / "memory.sqlite3") for _ in range(2)]
        self.indexes = [SqliteVectorIndex(database) for database in self.databases]
        self.model, self.waiting = VectorModel(), []
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(shelf, "_WASTE", 3)
        for module in (shelf, corpora):
            self.patch.setattr(module, "REMEMBERED", 25)

    @initialize(room=st.sampled_from([0, 1 << 30]))
    def open(self, room):
        for index, database in zip(self.indexes, self.databases, strict=True):
            index._shelves = shelves.Shelves(database.kept, room)
            self.runner.run(database.open())

    @rule(process=st.integers(0, 1), user=users, batch=st.lists(entries(), min_size=1, max_size=4))
    def put(self, process, user, batch):
        async def run():
            try:
                expected = await self.model.put(user, batch)
            except Conflict:
                with pytest.raises(Conflict):
                    await self.indexes[process].put(user, batch)
            else:
                assert await self.indexes[process].put(user, batch) == expected

        self.runner.run(run())

    @rule(process=st.integers(0, 1), user=users, where=wheres)
    def delete(self, process, user, where):
        expected = self.runner.run(self.model.delete(user, where)).removed
        removed = self.runner.run(self.indexes[process].delete(user, where)).removed
        assert {name: removed[name] for name in expected} == expected

    @rule(process=st.integers(0, 1), user=users)
    def erase(self, process, user):
        self.runner.run(self.model.delete(user, ALL))
        self.runner.run(SqliteMessageLog(self.databases[process]).delete(user_id=user))
        assert user not in self.databases[process].kept

    @rule(process=st.integers(0, 1), embedder=st.sampled_from([FIRST, SECOND]), limit=st.integers(1, 9))
    def fill(self, process, embedder, limit):
        async def run():
            mine = await self.indexes[process].pending(embedder, limit=limit)
            theirs = await self.model.pending(embedder, limit=limit)
            assert [(each.user_id, each.text) for each in mine] == [(each.user_id, each.text) for each in theirs]
            for index, found in ((self.indexes[process], mine), (self.model, theirs)):
                assert await index.fill(embedder, [(each, unit(each.text, embedder)) for each in found]) == len(found)

        self.runner.run(run())

    @rule(process=st.integers(0, 1), embedder=st.sampled_from([FIRST, SECOND]))
    def retire(self, process, embedder):
        retired = self.runner.run(self.indexes[process].retire(embedder))
        assert retired == self.runner.run(self.model.retire(embedder))

    @rule(process=st.integers(0, 1))
    def reopen(self, process):
        self.runner.run(self.databases[process].close())
        self.runner.run(self.databases[process].open())

    @rule(process=st.integers(0, 1), user=users, question=st.sampled_from(QUESTIONS), where=wheres)
    def match(self, process, user, question, where):
        self.runner.run(agree(self.indexes[process], self.model, user, replace(question, where=where)))

    @invariant()
    def agree(self):
        for user in "ab":
            for question in QUESTIONS:
                self.runner.run(agree(self.indexes[0], self.model, user, question))

    def teardown(self):
        for database in self.databases:
            self.runner.run(database.close())
        self.runner.close()
        self.patch.undo()
        shutil.rmtree(self.folder)


TestTwoProcesses = TwoProcesses.TestCase
TestTwoProcesses.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
