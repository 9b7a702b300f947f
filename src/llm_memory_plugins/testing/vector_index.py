"""What every `VectorIndex` must hold of what is stored; see `vector_search` for what is found.

```python
class TestMyIndex(VectorIndexSuite, VectorConditionsSuite, VectorSearchSuite, VectorRecallSuite, VectorHistorySuite,
                  EmbeddingQueueSuite):
    @pytest.fixture
    async def index(self): ...

    async def tables(self, index, user_id): ...
    async def statistics(self, index, user_id): ...
    async def erase(self, index, user_id, session_id=None): ...
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import combinations_with_replacement
from typing import Any
from uuid import UUID

import pytest

from llm_memory_plugins.codec import dumps
from llm_memory_plugins.errors import Conflict
from llm_memory_plugins.lexicon import MOST
from llm_memory_plugins.records import Entry, IndexStats, Part, Record, Where
from llm_memory_plugins.testing.message_log import HOSTILE
from llm_memory_plugins.testing.vector_entries import (
    FIRST,
    SECOND,
    START,
    Index,
    VectorSuite,
    entry,
    ids,
    part,
    probe,
    talk,
    unit,
    whole,
)
from llm_memory_plugins.testing.vector_model import Statistics

ALL = Where()
LATER = START + timedelta(days=1)
RICH: dict[str, Any] = {
    "text": 'te"xt\n日本語 🙂 \u202e {} [] \\',
    "numbers": [0, -1, 2**53 + 1, 10**300, -(10**18), 0.1, 1e22, 1e-320, -0.0, 1.0, 1.7976931348623157e308],
    "others": [None, True, False, "", [], {}],
    "when": datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30))),
    "day": date(1, 1, 1),
    "bytes": b"\x00\xff",
    "price": Decimal("1.10"),
    "which": UUID(int=1),
    "pair": (1, (2, "x")),
    "set": {"b", "a"},
    "deep": {"er": {"still": [{"x": (1.5, None)}]}},
    "$bytes": {"$bytes": "not ours"},
    "": "an empty key",
    "a.b": {"$.a": "*"},
}
CHANGES: dict[str, Any] = {
    "content": "hello again",
    "metadata": {"n": 2},
    "session_id": "t",
    "source": "elsewhere",
    "role": "assistant",
    "name": "Bob",
    "importance": 0.75,
}
MOMENTS = [
    datetime.min.replace(tzinfo=UTC),
    datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    datetime(1582, 10, 10, 12, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    START,
    datetime.max.replace(tzinfo=UTC),
]


def stored(record: Record, user_id: str = "u", revision: int = 1) -> Record:
    """A record as a store gives it back."""
    return replace(record, user_id=user_id, revision=revision)


class VectorIndexSuite(VectorSuite):
    """Round trips, identity, revisions, conditions, ownership, erasure, hostile input."""

    async def test_records_come_back_as_they_went_in(self, index: Index) -> None:
        rich = entry(
            RICH["text"],
            id="rich",
            metadata=RICH,
            session_id="s",
            source="https://example.org/ü?q=1#2",
            role="assistant",
            name="Ada",
            importance=0.1,
            created_at=START + timedelta(microseconds=123457),
        )
        entries = [rich, entry("bare"), entry("one of two parts", parts=2), entry("of nobody", role="tool")]
        expected = [stored(each.record) for each in entries]
        assert await index.put("u", entries) == tuple(expected)
        found = await index.page("u", ALL)
        assert list(found) == sorted(expected, key=lambda record: record.id)
        (again,) = await index.page("u", Where(ids=("rich",)))
        assert dumps(dict(again.metadata)) == dumps(RICH), "to the letter: 1 is not True, and 0.0 is not -0.0"
        pool = await index.match("u", probe(near="bare"))
        assert {row.record: dumps(dict(pool.record(row).metadata)) for row in pool.rows} == {
            record.id: dumps(dict(record.metadata)) for record in expected
        }

    async def test_any_time(self, index: Index) -> None:
        await index.put("u", [entry(str(moment), created_at=moment) for moment in MOMENTS])
        for moment in MOMENTS:
            (record,) = await index.page("u", Where(ids=(str(moment),)))
            assert record.created_at == moment
        for since, until in combinations_with_replacement(MOMENTS, 2):
            expected = sorted(str(moment) for moment in MOMENTS if since <= moment < until)
            assert await ids(index, "u", probe(near="x", where=Where(since=since, until=until))) == expected
        assert await index.count("u", Where(since=MOMENTS[-1])) == 1
        rows = await whole(index)
        assert [rows[str(moment), 0].created_at for moment in MOMENTS] == MOMENTS

    async def test_any_id_and_any_text(self, index: Index) -> None:
        for user in (*HOSTILE, "u"):
            own = [text for text in HOSTILE if user in (text, "u")]
            entries = [
                entry(f"{text}.", id=text, session_id=text, source=text, name=text, metadata={text: {text: text}})
                for text in own
            ]
            await index.put(user, entries)
            for text, written in zip(own, entries, strict=True):
                for where in (Where(ids=(text, "none")), Where(session_id=text), Where(source=text)):
                    assert await index.page(user, where) == (stored(written.record, user),)
                pool = await index.match(user, probe(near=text, where=Where(session_id=text)))
                assert [(row.text, row.speaker, row.record) for row in pool.rows] == [(f"{text}.", text, text)]
                assert pool.record(pool.rows[0]) == stored(written.record, user)
                assert pool.speakers == tuple(sorted(own))
        for gone, text in enumerate(HOSTILE, start=1):
            await index.delete(text, ALL)
            assert not any((await self.tables(index, text)).values())
            await index.delete("u", Where(session_id=text))
            assert await index.count("u", ALL) == len(HOSTILE) - gone

    async def test_large_records(self, index: Index) -> None:
        content = "".join(chr(0x21 + (i * i) % 0x2FDF) for i in range(200_000)) + "🙂" * 1000
        terms = tuple(range(1, 5 * MOST, 5))
        full = Part(start=0, stop=len(content), terms=terms, counts=(32_767,) * MOST, length=10**6, vector=unit("x"))
        await index.put("u", [entry(content, id="large", parts=[full]), entry("small")])
        assert (await index.page("u", ALL))[0].content == content
        pool = await index.match("u", replace(probe(), terms=terms[:500]))
        (row,) = pool.rows
        assert (row.text, row.counts, row.length) == (content, (32_767,) * 500, 10**6)
        assert pool.corpus.frequencies == (1,) * 500
        await index.delete("u", Where(ids=("large",)))
        assert await self.exact(index, "u") == Statistics(1, 1, dict.fromkeys(entry("small").parts[0].terms, 1))

    async def test_nothing_is_written_of_nothing(self, index: Index) -> None:
        assert await index.put("u", []) == ()
        assert not any((await self.tables(index, "u")).values())

    async def test_the_same_id_twice_in_a_call(self, index: Index) -> None:
        first, other, last = entry("first", id="r"), entry("other"), entry("last, and longer", id="r", parts=2)
        done = await index.put("u", [first, other, last])
        assert [record.id for record in done] == ["r", "other", "r"]
        page = await index.page("u", ALL)
        assert [(record.id, record.content) for record in page] == [("other", "other"), ("r", "last, and longer")]
        assert done[2] == page[1]
        assert (await self.exact(index, "u")).parts == 3

    @pytest.mark.parametrize("parts", [1, 3])
    async def test_the_same_again_changes_nothing(self, index: Index, parts: int) -> None:
        fields: dict[str, Any] = {"metadata": RICH, "session_id": "s", "name": "Ada", "importance": 0.1}
        written = entry("hello there", parts=parts, **fields)
        (first,) = await index.put("u", [written])
        before = (await whole(index), await self.exact(index, "u"), await self.tables(index, "u"))
        for again in (written, entry("hello there", parts=parts, created_at=LATER, **fields)):
            assert await index.put("u", [again]) == (first,)
        assert (await whole(index), await self.exact(index, "u"), await self.tables(index, "u")) == before
        assert await index.page("u", ALL) == (stored(written.record),)

    async def test_whatever_else_changes_replaces(self, index: Index) -> None:
        fields: dict[str, Any] = {"metadata": {"n": 1}, "session_id": "s", "source": "here", "role": "user"}
        fields |= {"content": "hello there", "name": "Ada", "importance": 0.5}
        await index.put("u", [entry(**fields, id=name) for name in CHANGES])
        before = await whole(index)
        changed = [_revised(fields, {name: value, "id": name, "created_at": LATER}) for name, value in CHANGES.items()]
        for new in changed:
            assert await index.put("u", [new]) == (stored(new.record, revision=2),)
        expected = sorted((stored(new.record, revision=2) for new in changed), key=lambda record: record.id)
        assert await index.page("u", ALL) == tuple(expected)
        after = await whole(index)
        assert {row.record: row.text for row in after.values()} == {
            new.record.id: new.record.content for new in changed
        }
        for name in CHANGES.keys() - {"content", "session_id"}:
            assert (after[name, 0].id, after[name, 0].position) == (before[name, 0].id, before[name, 0].position)
        assert (await self.exact(index, "u")).parts == len(CHANGES)
        lacking = [_revised(fields, {name: None, "id": name}) for name in ("session_id", "source", "role", "name")]
        assert await index.put("u", lacking) == tuple(stored(new.record, revision=3) for new in lacking)
        assert len(await whole(index)) == len(CHANGES)

    async def test_numbers_that_python_takes_for_equal_differ(self, index: Index) -> None:
        for revision, value in enumerate((1, True, 1.0, "1", [1], (1,), None), start=1):
            (record,) = await index.put("u", [entry(metadata={"n": value})])
            assert record.revision == revision
            assert dumps(dict((await index.page("u", ALL))[0].metadata)) == dumps({"n": value})

    async def test_a_revision_replaces_only_itself(self, index: Index) -> None:
        await index.put("u", [entry("one", id="r", session_id="s")])
        before = (await whole(index), await self.tables(index, "u"))
        for wrong in (2, 7):
            with pytest.raises(Conflict):
                await index.put("u", [entry("new"), entry("x", id="r", session_id="s", revision=wrong)])
        with pytest.raises(Conflict):
            await index.put("u", [entry("not there", revision=1)])
        assert (await whole(index), await self.tables(index, "u")) == before, "all of a call, or nothing"
        later = entry("one", id="r", session_id="s", revision=1, created_at=LATER)
        assert await index.put("u", [later]) == (stored(later.record, revision=2),)
        assert (await index.page("u", ALL))[0].created_at == LATER
        assert (await whole(index))["r", 0].id == before[0]["r", 0].id, "the same content: the same part"
        with pytest.raises(Conflict):
            await index.put("u", [entry("two", id="r", session_id="s", revision=1)])
        two = entry("two", id="r", session_id="s", revision=2)
        assert await index.put("u", [two]) == (stored(two.record, revision=3),)
        await index.delete("u", ALL)
        with pytest.raises(Conflict):
            await index.put("u", [entry("three", id="r", session_id="s", revision=3)])
        assert not any((await self.tables(index, "u")).values())

    async def test_vectors_stay_where_the_content_does(self, index: Index) -> None:
        await index.put("u", [entry("one two", parts=2, id="r", session_id="s")])
        before = await whole(index)
        other = replace(part("one two", 0, 3), vector=unit("something else"))
        new = entry("one two", id="r", session_id="s", importance=1.0, parts=[other, part("one two", 3, embedder=None)])
        assert (await index.put("u", [new]))[0].revision == 2
        after = await whole(index)
        assert {key: (row.id, row.position) for key, row in after.items()} == {
            key: (row.id, row.position) for key, row in before.items()
        }
        assert {key: row.cosine for key, row in after.items()} == {key: row.cosine for key, row in before.items()}

    async def test_lacking_vectors_are_taken(self, index: Index) -> None:
        half = [part("one two", 0, 3), part("one two", 3, embedder=None)]
        await index.put("u", [entry("one two", id="r", parts=half)])
        assert await index.stats("u") == IndexStats(records=1, parts=2, pending=1, embedders={FIRST: 1})
        (record,) = await index.put("u", [entry("one two", id="r", parts=2)])
        assert record.revision == 1
        assert await index.stats("u") == IndexStats(records=1, parts=2, pending=0, embedders={FIRST: 2})
        await index.put("u", [entry("one two", id="r", parts=2, embedder=SECOND)])
        await index.put("u", [entry("one two", id="r", parts=1, vectors=True)])
        assert await index.stats("u") == IndexStats(records=1, parts=2, pending=0, embedders={FIRST: 2, SECOND: 2})
        await index.put("u", [entry("one two", id="r", parts=1, importance=1.0)])
        assert await index.stats("u") == IndexStats(records=1, parts=1, pending=0, embedders={FIRST: 1})

    async def test_vectors_go_with_the_content_they_were_of(self, index: Index) -> None:
        await index.put("u", [entry("one", id="r"), entry("one", id="r", embedder=SECOND), entry("other")])
        await index.put("u", [entry("two", id="r", vectors=False)])
        assert await index.stats("u") == IndexStats(records=2, parts=2, pending=1, embedders={FIRST: 1})
        assert await ids(index, "u", probe(near="two")) == ["other"]

    async def test_deleting_leaves_nothing_of_it(self, index: Index) -> None:
        await index.put("v", talk(4))
        others = await self.tables(index, "v")
        await index.put(
            "u", [*talk(4), *talk(3, "t", parts=2), entry("alone", embedder=SECOND), entry("x", vectors=False)]
        )
        receipt = await index.delete("u", Where(session_id="s"))
        assert receipt.removed["records"] == 4
        assert receipt.removed["parts"] == 4
        assert await index.count("u", ALL) == 5
        assert (await self.exact(index, "u")).parts == 8
        receipt = await index.delete("u", ALL)
        assert (receipt.removed["records"], receipt.removed["parts"]) == (5, 8)
        assert not any((await self.tables(index, "u")).values())
        assert (await index.delete("u", ALL)).total == 0
        assert await self.tables(index, "v") == others

    async def test_a_session_ended_and_begun_again(self, index: Index) -> None:
        for _ in range(2):
            await index.put("u", talk(3))
            places = [row.position for _, row in sorted((await whole(index)).items())]
            assert places == list(range(places[0], places[0] + 3))
            await index.delete("u", Where(session_id="s"))
            assert not any((await self.tables(index, "u")).values())

    async def test_erasing_a_user_or_a_session_takes_its_records(self, index: Index) -> None:
        for user in ("u", "v"):
            await index.put(user, [*talk(3), *talk(2, "t"), entry("alone"), entry("two parts", parts=2)])
        before = await self.tables(index, "v")
        await self.erase(index, "u", "s")
        assert [record.id for record in await index.page("u", ALL)] == ["alone", "t0 said", "t1 said", "two parts"]
        assert (await self.exact(index, "u")).parts == 5
        await self.erase(index, "u")
        assert not any((await self.tables(index, "u")).values())
        assert await self.tables(index, "v") == before
        assert (await self.exact(index, "v")).parts == 8

    async def test_stats_of_a_user_and_of_everybody(self, index: Index) -> None:
        assert await index.stats() == await index.stats("u") == IndexStats()
        await index.put("u", [*talk(3, parts=2), entry("waits", vectors=False)])
        await index.put("v", [entry("other", embedder=SECOND), entry("other")])
        assert await index.stats("u") == IndexStats(records=4, parts=7, pending=1, embedders={FIRST: 6})
        assert await index.stats("v") == IndexStats(records=1, parts=1, embedders={FIRST: 1, SECOND: 1})
        assert await index.stats() == IndexStats(records=5, parts=8, pending=1, embedders={FIRST: 7, SECOND: 1})

    async def test_of_an_unknown_user_there_is_nothing(self, index: Index) -> None:
        await index.put("u", talk(3))
        for user in ("nobody", "", "U", "u "):
            assert await index.page(user, ALL) == ()
            assert await index.count(user, ALL) == 0
            assert (await index.delete(user, ALL)).total == 0
            assert await index.stats(user) == IndexStats()
            assert await index.pending(FIRST, user_id=user) == ()
            assert await index.retire(FIRST, user_id=user) == 0
            pool = await index.match(user, probe("s1 said", near="s1"))
            assert (pool.rows, pool.speakers, pool.embedders) == ((), (), ())
            assert (pool.corpus.total, pool.corpus.average_length, pool.corpus.frequencies) == (0, 0.0, (0, 0))

    @pytest.mark.parametrize("users", [("u", "v"), ("", "u"), ("a:b", "a"), ("u", "U")])
    async def test_two_users_with_equal_ids_never_meet(self, index: Index, users: tuple[str, str]) -> None:
        for user in users:
            entries = [*talk(4, source="x"), entry("alone", parts=2), entry("waits", vectors=False)]
            await index.put(user, [replace(each, record=replace(each.record, name=f"of {user}")) for each in entries])
        mine, yours = users
        theirs = (await index.page(yours, ALL), await whole(index, yours), await self.exact(index, yours))
        assert {record.user_id for record in theirs[0]} == {yours}
        for asked in (probe("s1 said alone", near="s1 said", limit=1), probe("waits", near="alone", limit=100)):
            pool = await index.match(mine, asked)
            assert pool.speakers == (f"of {mine}",)
            assert pool.corpus.total == 7
            assert {row.speaker for row in pool.rows} == {f"of {mine}"}
            assert {pool.record(row).user_id for row in pool.rows} == {mine}
        waiting = await index.pending(None, user_id=yours)
        stolen = [
            (replace(each, user_id=mine), unit("x", SECOND)) for each in await index.pending(SECOND, user_id=yours)
        ]
        own = {each.part for each in await index.pending(SECOND, user_id=mine)}
        assert await index.fill(SECOND, stolen) == sum(each.part in own for each, _ in stolen)
        await index.retire(FIRST, user_id=mine)
        await index.put(mine, [entry("s1 said", id="s1 said", session_id="t", source="y")])
        await index.delete(mine, Where(ids=("s0 said",)))
        await index.delete(mine, Where(session_id="s"))
        await index.delete(mine, Where(source="x"))
        await index.delete(mine, ALL)
        assert (await index.page(yours, ALL), await whole(index, yours), await self.exact(index, yours)) == theirs
        assert await index.pending(None, user_id=yours) == waiting
        assert len(await index.pending(SECOND, user_id=yours)) == 7


def _revised(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> Entry:
    return entry(**{**fields, **changes})
