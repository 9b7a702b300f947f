"""What every `VectorIndex` and `EmbeddingQueue` must hold over time: many at once, cancelled, and in any order."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from llm_memory_plugins import filters
from llm_memory_plugins.errors import Conflict
from llm_memory_plugins.records import Entry, Record, Unembedded, Where
from llm_memory_plugins.testing.vector_entries import (
    FIRST,
    SECOND,
    START,
    Index,
    VectorSuite,
    agree,
    cuts,
    entry,
    part,
    probe,
    unit,
    whole,
)
from llm_memory_plugins.testing.vector_model import VectorModel

ALL = Where()
MINUTE = timedelta(minutes=1)


class VectorHistorySuite(VectorSuite):
    """Races, cancellation, and random walks beside the model.

    Attributes:
        steps: Of a walk.
    """

    steps = 300

    async def test_twenty_writers_of_one_session(self, index: Index, twin: Index) -> None:
        async def write(writer: int) -> None:
            process = (index, twin)[writer % 2]
            words = [f"w{writer % 5}", f"w{writer % 3}", "all"]
            random.shuffle(words)
            await process.put("u", [entry(" ".join([*words, f"{writer}-{n}"]), session_id="s") for n in range(3)])

        await asyncio.gather(*(write(writer) for writer in range(20)))
        rows = sorted((row.position, row.text.split()[-1]) for row in (await whole(index)).values())
        assert [position for position, _ in rows] == list(range(rows[0][0], rows[0][0] + 60))
        for writer in range(20):
            assert [name for _, name in rows if name.startswith(f"{writer}-")] == [f"{writer}-{n}" for n in range(3)]
        assert (await self.exact(index, "u")).parts == 60

    async def test_many_writers_of_the_same_records(self, index: Index, twin: Index) -> None:
        async def write(writer: int) -> None:
            entries = [
                entry(f"{writer} all {n}", id=str(n), session_id="st"[n % 2], parts=1 + writer % 2) for n in range(6)
            ]
            for _ in range(3):
                random.shuffle(entries)
                await (index, twin)[writer % 2].put("u", entries)

        await asyncio.gather(*(write(writer) for writer in range(8)))
        page = await index.page("u", ALL)
        assert [record.id for record in page] == [str(n) for n in range(6)]
        assert len({record.content.split()[0] for record in page}) == 1, "one of the calls was the last"
        found = await whole(index)
        assert len(found) == (await self.exact(index, "u")).parts
        assert len({(row.session, row.position) for row in found.values()}) == len(found)

    async def test_of_many_who_replace_a_revision_one_wins(self, index: Index) -> None:
        await index.put("u", [entry("first", id="r"), entry("other")])
        tries = [index.put("u", [entry(f"all {n}"), entry(f"by {n}", id="r", revision=1)]) for n in range(10)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        (winner,) = [n for n, result in enumerate(results) if not isinstance(result, BaseException)]
        assert all(isinstance(result, Conflict) for n, result in enumerate(results) if n != winner)
        assert [record.content for record in await index.page("u", ALL)] == [f"all {winner}", "other", f"by {winner}"]

    async def test_writing_deleting_and_filling_at_once(self, index: Index) -> None:
        async def write(writer: int) -> None:
            for n in range(6):
                entries = [
                    entry(f"all w{n} {writer}", id=f"{m}", vectors=False, session_id="s")
                    for m in range(writer, writer + 4)
                ]
                await index.put("u", entries)

        async def delete() -> None:
            for n in range(8):
                await index.delete("u", ALL if n % 4 == 3 else Where(ids=(str(n), str(n + 2))))

        async def fill() -> None:
            for _ in range(8):
                waiting = await index.pending(FIRST, user_id="u")
                await index.fill(FIRST, [(each, unit(each.text)) for each in waiting])

        await asyncio.gather(*(write(writer) for writer in range(4)), delete(), delete(), fill(), fill())
        waiting = await index.pending(FIRST, user_id="u")
        assert await index.fill(FIRST, [(each, unit(each.text)) for each in waiting]) == len(waiting)
        model = VectorModel()
        await model.put("u", [entry(record.content, id=record.id) for record in await index.page("u", ALL)])
        assert await self.exact(index, "u") == model.statistics("u")
        assert {key: row.text for key, row in (await whole(index)).items()} == {
            key: row.text for key, row in (await whole(model)).items()
        }
        await index.delete("u", ALL)
        assert not any((await self.tables(index, "u")).values())

    async def test_a_cancelled_write_is_whole_or_not_there(self, index: Index) -> None:
        acknowledged: set[str] = set()

        async def write(n: int) -> None:
            await index.put("u", [entry(f"all {n} {m}", session_id="s", parts=2) for m in range(3)])
            acknowledged.add(str(n))

        for n in range(30):
            task = asyncio.create_task(write(n))
            await asyncio.sleep(random.random() * 0.004)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await index.put("u", [entry("afterwards")])
        await asyncio.sleep(0.1)
        held = Counter(record.content.split()[1] for record in await index.page("u", Where(session_id="s")))
        assert set(held.values()) <= {3}
        assert acknowledged <= held.keys()
        assert (await self.exact(index, "u")).parts == 6 * len(held) + 1

    async def test_any_order_of_things(self, index: Index, twin: Index) -> None:
        seed = int(os.environ.get("LLM_MEMORY_TEST_SEED") or random.getrandbits(32))
        walk = Walk(self, (index, twin), seed)
        try:
            for _ in range(self.steps):
                await walk.step()
            await walk.compare()
        finally:  # shown where it failed
            print(f"LLM_MEMORY_TEST_SEED={seed}", f"{len(walk.done)} steps:", *walk.done[-12:], sep="\n")
        for user in ("a", "b"):
            await index.delete(user, ALL)
            assert not any((await self.tables(index, user)).values())


class Walk:
    """Does the same to an index and to the model, one thing after the other, and compares what they say."""

    def __init__(self, suite: VectorSuite, processes: tuple[Index, Index], seed: int) -> None:
        self.done: list[str] = []
        self._suite, self._processes, self._model = suite, processes, VectorModel()
        self._draw = random.Random(seed)
        self._written: list[Entry] = []
        self._waiting: list[tuple[Unembedded, Unembedded]] = []  # theirs and the model's, once read

    @property
    def _index(self) -> Index:
        """Whichever process it is that does the next thing."""
        return self._draw.choice(self._processes)

    async def step(self) -> None:
        """One of the things that can be done, to one of the users."""
        acts = (self._put, self._again, self._delete, self._pending, self._fill, self._retire, self._match)
        (act,) = self._draw.choices(acts, [6, 2, 1.5, 1.5, 1.5, 0.4, 5])
        user = self._draw.choice("ab")
        self.done.append(f"{act.__name__} {user}")
        await act(user)
        if len(self.done) % 20 == 0:
            await self.compare()

    async def compare(self) -> None:
        """Everything there is."""
        for user in ("a", "b"):
            assert await self._index.page(user, ALL) == await self._model.page(user, ALL)
            assert await self._index.stats(user) == await self._model.stats(user)
            assert await self._suite.exact(self._index, user) == self._model.statistics(user)
            await agree(self._index, self._model, user, probe("w0 w1", near="x", by=(FIRST, SECOND), limit=1000))

    async def _put(self, user: str) -> None:
        names = self._draw.choices(range(9), k=self._draw.choice((1, 1, 2, 4)))
        await self._both_put(user, [self._entry(f"r{n}", ("x", "y", None)[n % 3]) for n in names])

    def _entry(self, id: str, session_id: str | None) -> Entry:
        draw = self._draw
        content = " ".join(draw.choices([f"w{n}" for n in range(9)], k=draw.choice((2, 3, 9))))
        spans, embedder = cuts(content, draw.choice((1, 1, 2, 3))), draw.choice((FIRST, FIRST, SECOND))
        share = draw.choice((0.0, 0.5, 1.0, 1.0))
        parts = [part(content, *span, embedder=embedder if draw.random() < share else None) for span in spans]
        return entry(content, id=id, parts=parts, embedder=embedder, session_id=session_id, **self._fields())

    def _fields(self) -> dict[str, Any]:
        draw = self._draw
        return {
            "metadata": {"n": draw.randrange(4)},
            "source": draw.choice((None, "x", "y")),
            "name": draw.choice((None, "Ada", "Bob")),
            "importance": draw.choice((0.0, 0.5)),
            "created_at": START + len(self.done) * MINUTE,
        }

    async def _again(self, user: str) -> None:
        """What was written before: just so, or with other fields, or as what follows a revision."""
        if not self._written:
            return
        held: dict[str, Record] = {record.id: record for record in await self._model.page(user, ALL)}
        batch: dict[str, Entry] = {}
        for old in self._draw.sample(self._written, min(2, len(self._written))):
            known = held.get(old.record.id)
            fields: dict[str, Any] = self._draw.choice(
                ({"created_at": START + len(self.done) * MINUTE}, self._fields())
            )
            revision = known.revision if known and self._draw.random() < 0.4 else 0
            revision = self._draw.randint(1, 4) if self._draw.random() < 0.1 else revision
            batch[old.record.id] = replace(old, record=replace(old.record, revision=revision, **fields))
        await self._both_put(user, list(batch.values()))

    async def _both_put(self, user: str, entries: list[Entry]) -> None:
        self.done[-1] += f" {[(e.record.id, e.record.revision, len(e.parts), e.embedder) for e in entries]}"
        try:
            expected = await self._model.put(user, entries)
        except Conflict:
            with pytest.raises(Conflict):
                await self._index.put(user, entries)
            return
        assert await self._index.put(user, entries) == expected
        self._written = (self._written + [replace(e, record=replace(e.record, revision=0)) for e in entries])[-30:]

    def _where(self) -> Where:
        draw = self._draw
        asked: dict[str, Any] = {
            "ids": tuple(f"r{n}" for n in draw.sample(range(12), 4)),
            "session_id": draw.choice("xyz"),
            "source": draw.choice("xy"),
            "since": START + draw.randrange(len(self.done)) * MINUTE,
            "until": START + draw.randrange(len(self.done)) * MINUTE,
            "filter": filters.parse({"n": {draw.choice(("$gt", "$ne")): draw.randrange(4)}}),
        }
        return Where(**{name: asked[name] for name in draw.sample(sorted(asked), draw.choice((0, 1, 1, 2)))})

    async def _delete(self, user: str) -> None:
        where = self._where()
        self.done[-1] += f" {where}"
        removed = (await self._model.delete(user, where)).removed
        receipt = await self._index.delete(user, where)
        assert (receipt.removed["records"], receipt.removed["parts"]) == (removed["records"], removed["parts"])

    async def _pending(self, user: str) -> None:
        embedder, whose = self._draw.choice((None, FIRST, SECOND)), self._draw.choice((user, None))
        limit = self._draw.choice((3, 100))
        theirs = await self._index.pending(embedder, user_id=whose, limit=limit)
        true = await self._model.pending(embedder, user_id=whose, limit=limit)
        assert [(each.user_id, each.text) for each in theirs] == [(each.user_id, each.text) for each in true]
        self._waiting = (self._waiting + list(zip(theirs, true, strict=True)))[-20:]

    async def _fill(self, _: str) -> None:
        embedder = self._draw.choice((FIRST, SECOND))
        chosen = self._draw.sample(self._waiting, min(len(self._waiting), 5))
        filled = await self._index.fill(embedder, [(theirs, unit(theirs.text, embedder)) for theirs, _ in chosen])
        assert filled == await self._model.fill(embedder, [(true, unit(true.text, embedder)) for _, true in chosen])

    async def _retire(self, user: str) -> None:
        embedder, whose = self._draw.choice((FIRST, SECOND)), self._draw.choice((user, None))
        assert await self._index.retire(embedder, user_id=whose) == await self._model.retire(embedder, user_id=whose)

    async def _match(self, user: str) -> None:
        draw, where = self._draw, self._where()
        words = " ".join(draw.sample([f"w{n}" for n in range(11)], draw.choice((0, 1, 3))))
        by = draw.choice(((FIRST,), (SECOND,), (FIRST, SECOND), (SECOND, FIRST)))
        asked = probe(words, near=draw.choice((None, "x", words)), by=by, where=where, limit=draw.choice((1, 3, 50)))
        self.done[-1] += f" {words!r} {by} {where} {asked.limit}"
        await agree(self._index, self._model, user, asked)
        assert await self._index.count(user, where) == await self._model.count(user, where)
