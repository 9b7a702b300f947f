"""What every `VectorIndex` must find: the same as brute force does, up to rounding, and so ranked alike."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import Any

import numpy as np
import pytest

from llm_memory_plugins import filters, queries
from llm_memory_plugins.lexicon import postings, term
from llm_memory_plugins.ranking import Ranked, rank
from llm_memory_plugins.records import Entry, Part, Probe, Where
from llm_memory_plugins.testing.vector_entries import (
    FIRST,
    SECOND,
    START,
    TOLERANCE,
    Index,
    VectorSuite,
    agree,
    entry,
    ids,
    keyed,
    part,
    probe,
    talk,
    unit,
    whole,
)
from llm_memory_plugins.testing.vector_model import VectorModel

WORDS = [f"w{n}" for n in range(60)]


def corpus(seed: int, count: int = 120) -> list[Entry]:
    """Records of any length in sessions, documents and alone, some of whose parts have no vector or another one."""
    draw = random.Random(seed)
    made: list[Entry] = []
    for n in range(count):
        content = " ".join(draw.choices(WORDS, [1 / (rank + 1) for rank in range(len(WORDS))], k=draw.randint(1, 25)))
        made.append(
            entry(
                content,
                id=f"r{n}",
                parts=draw.choice((1, 1, 1, 1, 2, 5)) if len(content) > 5 else 1,
                embedder=draw.choice((FIRST, FIRST, FIRST, SECOND)),
                vectors=draw.random() < 0.9,
                session_id=draw.choice((None, "s", "t", "s" * 9)),
                source=draw.choice((None, "x")),
                role=draw.choice((None, "user", "assistant")),
                name=draw.choice((None, "Ada", "Bob")),
                importance=draw.choice((0.0, 0.1, 1.0)),
                metadata={"n": n},
                created_at=START + timedelta(hours=draw.randint(0, count)),
            )
        )
    again = [replace(each, embedder=SECOND, parts=_of_second(each)) for each in draw.sample(made, count // 4)]
    return made + again


def _of_second(given: Entry) -> tuple[Part, ...]:
    spans = [(each.start, each.stop) for each in given.parts]
    return tuple(part(given.record.content, start, stop, embedder=SECOND) for start, stop in spans)


WHERES = [
    Where(),
    Where(session_id="s"),
    Where(source="x", since=START + timedelta(hours=30)),
    Where(filter=filters.parse({"n": {"$gte": 40, "$lt": 80}})),
    Where(ids=tuple(f"r{n}" for n in range(0, 120, 7)), until=START + timedelta(hours=90)),
    Where(session_id="t", source="x", filter=filters.parse({"$not": {"n": {"$in": [1, 2, 3]}}})),
    Where(session_id="nowhere"),
]


class VectorSearchSuite(VectorSuite):
    """Candidates, neighbours, statistics, and the ranking of all that."""

    async def test_the_pool_is_that_of_brute_force(self, index: Index) -> None:
        model = VectorModel()
        for entries in (corpus(1)[:100], corpus(1)[100:], corpus(2, 60)):  # the last replace the first
            assert await index.put("u", entries) == await model.put("u", entries)
        assert await self.exact(index, "u") == model.statistics("u")
        asked = (("", (FIRST,)), ("w0", ()), ("w3 w17 absent", (SECOND, FIRST)), ("w9 w50", ("test/unknown/8", FIRST)))
        for where, limit, (words, by) in product(WHERES, (1, 7, 1000), asked):
            near = f"{words} {limit}" if by else None
            await agree(index, model, "u", probe(words, near=near, by=by, where=where, limit=limit))

    async def test_statistics_stay_exact(self, index: Index) -> None:
        model = VectorModel()
        draw = random.Random(3)
        pile = corpus(4, 50) + corpus(5, 50)
        for _ in range(12):
            batch = draw.sample(pile, 10)
            assert await index.put("u", batch) == await model.put("u", batch)
            gone = Where(ids=tuple(draw.sample([f"r{n}" for n in range(50)], 6)))
            removed = (await model.delete("u", gone)).removed["records"]
            assert (await index.delete("u", gone)).removed["records"] == removed
            assert await self.exact(index, "u") == model.statistics("u")
        await agree(index, model, "u", probe(" ".join([*WORDS, "absent"])))
        pool = await index.match("u", probe(" ".join(WORDS), where=Where(ids=("r1",))))
        assert pool.corpus == model.corpus("u", [term(word) for word in WORDS]), "of all, whatever may be found"

    async def test_without_a_question_nothing_is_found(self, index: Index) -> None:
        await index.put("u", [entry("one two", name="Ada")])
        for asked in (probe(), probe("three"), probe(near="x", by=(SECOND,)), probe("three", near="x", by=(SECOND,))):
            pool = await index.match("u", asked)
            assert (pool.rows, pool.corpus.total, pool.corpus.average_length) == ((), 1, 2.0)
            assert (pool.speakers, pool.embedders) == (("Ada",), (FIRST,))

    async def test_a_text_without_words_is_found_by_meaning_alone(self, index: Index) -> None:
        await index.put("u", [entry("...", parts=[replace(part("..."), terms=(), counts=(), length=0)]), entry("word")])
        (row,) = (await index.match("u", probe("absent", near="...", limit=1))).rows
        assert (row.text, row.counts, row.length) == ("...", (0,), 0)
        assert row.cosine == pytest.approx(1.0, abs=TOLERANCE)
        assert (await self.exact(index, "u")).length == 1

    async def test_neighbours_are_up_to_two_places_away(self, index: Index) -> None:
        await index.put("u", talk(10))
        await index.put("u", [entry("alone"), *talk(3, "t"), *talk(10, "s")])
        for middle, expected in ((0, range(3)), (1, range(4)), (5, range(3, 8)), (9, range(7, 10))):
            for asked in (probe(near=f"s{middle} said", limit=1), probe(f"s{middle}")):
                found = keyed(await index.match("u", asked))
                assert sorted(found) == [(f"s{n} said", 0) for n in expected]
                places = [found[f"s{n} said", 0].position for n in expected]
                assert places == list(range(places[0], places[0] + len(places)))
                assert len({row.session for row in found.values()}) == 1
        only = Where(ids=("s3 said", "s5 said", "s7 said", "s8 said", "t1 said"))
        assert await ids(index, "u", probe("s5", where=only)) == ["s3 said", "s5 said", "s7 said"]
        assert await ids(index, "u", probe(near="alone", limit=1)) == ["alone"]

    async def test_neighbours_within_a_record(self, index: Index) -> None:
        content = "aaaa bbbb cccc dddd eeee ffff"
        spans = [(5 * n, 5 * n + 4) for n in range(6)]
        parts = [part(content, start, stop) for start, stop in spans]
        await index.put("u", [entry(content, id="long", parts=parts), entry("bbbb", id="short")])
        found = await index.match("u", probe("ffff", near="aaaa", limit=1))
        assert sorted(place for _, place in keyed(found)) == [0, 1, 2, 3, 4, 5]
        found = await index.match("u", probe("cccc", limit=1))
        rows = keyed(found)
        assert sorted(rows) == [("long", place) for place in range(5)]
        for (_, place), row in rows.items():
            record = found.record(row)
            passage = record.passage
            assert passage is not None
            assert (passage.start, passage.stop, passage.text) == (*spans[place], content[slice(*spans[place])])
            assert record.content == record.text == row.text == passage.text
        long = entry(content, id="long", parts=parts, session_id="s")
        await index.put("u", [entry("zz", session_id="s"), long, entry("yy", session_id="s")])
        assert await ids(index, "u", probe("bbbb", limit=2, where=Where(session_id="s"))) == ["long"] * 4 + ["zz"]

    async def test_a_session_and_a_record_of_one_name_are_no_neighbours(self, index: Index) -> None:
        await index.put("u", [entry("one two", id="same", parts=2), entry("three", session_id="same")])
        await index.put("u", [entry("four", session_id="rsame"), entry("five", session_id="ssame")])
        for word, expected in (("one", ["same", "same"]), ("three", ["three"]), ("four", ["four"]), ("five", ["five"])):
            assert await ids(index, "u", probe(word)) == expected
        assert len({row.session for row in (await whole(index)).values()}) == 4

    async def test_characters_are_counted_as_python_counts_them(self, index: Index) -> None:
        content = "🙂🙂 e\u0301 \u202e 👩‍👩‍👧 日本語 \r\n\t x \U0001d518\U0001d52b\U0001d526"
        spans = [(start, start + 3) for start in range(0, len(content) - 2, 3)]
        await index.put("u", [entry(content, id="r", parts=[part(content, *span) for span in spans])])
        assert {key[1]: row.text for key, row in (await whole(index)).items()} == {
            n: content[slice(*span)] for n, span in enumerate(spans)
        }

    async def test_of_equals_the_older_come_first(self, index: Index) -> None:
        axis = np.eye(24, dtype=np.float32)[0]
        same = [entry("same", id=str(n), parts=[part("same", vector=axis)]) for n in (3, 1, 4, 5, 9, 2, 6)]
        for each in same:
            await index.put("u", [each])
        for asked in (probe("same", limit=3), Probe(vectors=((FIRST, axis),), terms=(), limit=3)):
            assert await ids(index, "u", asked) == ["1", "3", "4"]
        await index.put("u", [entry("differs", id="3"), same[0]])
        assert await ids(index, "u", probe("same", limit=3)) == ["1", "4", "5"]

    async def test_texts_without_a_vector_are_found_by_words(self, index: Index) -> None:
        await index.put("u", [entry("one two", vectors=False), entry("one three"), entry("four")])
        rows = keyed(await index.match("u", probe("one", near="four", limit=5)))
        assert {key[0]: math.isnan(row.cosine) for key, row in rows.items()} == {
            "one two": True,
            "one three": False,
            "four": False,
        }
        rows = keyed(await index.match("u", probe("one")))
        assert all(math.isnan(row.cosine) for row in rows.values()), "there is nothing to compare with"

    async def test_a_text_is_compared_by_the_first_embedder_that_has_it(self, index: Index) -> None:
        await index.put(
            "u", [entry("both"), entry("both", embedder=SECOND), entry("old", embedder=SECOND), entry("new")]
        )
        for by in ((FIRST, SECOND), (SECOND, FIRST)):
            mixed = Probe(vectors=tuple((name, unit(f"both {name}", name)) for name in by), terms=())
            rows = keyed(await index.match("u", mixed))
            for text, name in (("both", by[0]), ("old", SECOND), ("new", FIRST)):
                true = float(dict(mixed.vectors)[name] @ unit(text, name))
                assert rows[text, 0].cosine == pytest.approx(true, abs=TOLERANCE)
        assert sorted((await index.match("u", mixed)).embedders) == [FIRST, SECOND]
        assert await ids(index, "u", probe(near="x")) == ["both", "new"]
        assert await ids(index, "u", probe(near="both", by=(FIRST, SECOND), limit=1)) == ["both", "old"], "one of each"

    async def test_speakers_are_the_first_hundred(self, index: Index) -> None:
        names = [f"{letter}{n}" for letter in "azAZé" for n in range(30)]
        await index.put("u", [entry(name, name=name, role="user", vectors=False) for name in names])
        await index.put("u", [entry("a document"), entry("of a role", role="assistant")])
        pool = await index.match("u", probe("z1", where=Where(ids=("a document",))))
        assert pool.speakers == tuple(sorted([*names, "assistant"])[:100])
        assert pool.rows == ()
        await index.delete("u", Where(ids=tuple(sorted(names)[:60])))
        assert (await index.match("u", probe())).speakers == tuple(sorted([*sorted(names)[60:], "assistant"]))

    async def test_the_final_ranking_is_that_of_brute_force(self, index: Index) -> None:
        model, said = VectorModel(), _conversation()
        await index.put("u", said)
        await model.put("u", said)
        for question in ("When did Ada paint the fence?", "what did you say of the boat", "Who lost the key in May?"):
            asked = queries.parse(question, START, speakers=("Ada", "Bob"))
            for limit in (5, 200):
                terms = tuple(term(stem) for stem in asked.terms)
                wanted = Probe(vectors=((FIRST, unit(asked.bare)),), terms=terms, limit=limit)
                theirs, true = await index.match("u", wanted), await model.match("u", wanted)
                await agree(index, model, "u", wanted)
                _same_order(rank(asked, theirs.rows, theirs.corpus), rank(asked, true.rows, true.corpus))

    async def test_readers_beside_writers_see_whole_writes(self, index: Index, twin: Index) -> None:
        async def write() -> None:
            for n in range(15):
                await index.put("u", [entry(f"all {n} {m}", session_id="s") for m in range(3)])
                if n % 3 == 2:
                    await index.delete("u", Where(ids=tuple(f"all {n} {m}" for m in range(3))))
            done.set()

        async def read(beside: Index) -> None:
            while not done.is_set():
                pool = await beside.match("u", probe("all", limit=1000))
                assert len(pool.rows) % 3 == 0
                assert pool.corpus.frequencies == (pool.corpus.total,) == (len(pool.rows),)
                assert pool.corpus.average_length in (0.0, 3.0)

        done = asyncio.Event()
        await asyncio.gather(write(), read(index), read(index), read(twin))


def _conversation() -> list[Entry]:
    """Ada and Bob, and some documents, with the terms that `queries` reads."""
    draw = random.Random(7)
    what, did = ("fence", "boat", "key", "garden", "letter"), ("painted", "lost", "sold", "found")
    made: list[Entry] = []
    for n in range(60):
        asked = "?" if n % 5 == 0 else ""
        content = f"I {draw.choice(did)} the {draw.choice(what)} and the {draw.choice(what)} on day {n}{asked}"
        speaker = {"role": "user", "name": "Ada"} if n % 2 else {"role": "assistant", "name": "Bob"}
        fields: dict[str, Any] = {**speaker, "session_id": f"s{n // 20}"} if n < 50 else {}
        read = queries.traits(content)
        terms, counts = postings(read.counts)
        found = replace(part(content), terms=terms, counts=counts, length=read.length, telling=read.telling)
        made.append(entry(content, parts=[found], created_at=START + timedelta(days=n), **fields))
    return made


def _same_order(ranked: list[Ranked], expected: list[Ranked]) -> None:
    """Scores are equal place by place and text by text; so texts are in one order, but for those of equal scores."""
    assert len(ranked) == len(expected)
    scores = {each.row.record: each.score for each in expected}
    for mine, its in zip(ranked, expected, strict=True):
        assert mine.score == pytest.approx(its.score, abs=TOLERANCE)
        assert mine.score == pytest.approx(scores[mine.row.record], abs=TOLERANCE)
