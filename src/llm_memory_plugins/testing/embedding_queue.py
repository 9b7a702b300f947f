"""What every `EmbeddingQueue` must hold: who waits is known, waits once, and is never given another one's vector."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from llm_memory_plugins.records import IndexStats, Unembedded, Where
from llm_memory_plugins.testing.message_log import HOSTILE
from llm_memory_plugins.testing.vector_entries import (
    FIRST,
    SECOND,
    TOLERANCE,
    Index,
    VectorSuite,
    entry,
    ids,
    keyed,
    probe,
    unit,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ALL = Where()


def texts(waiting: Sequence[Unembedded]) -> list[str]:
    """What is to be embedded."""
    return [each.text for each in waiting]


def made(waiting: Sequence[Unembedded], embedder: str = FIRST) -> list[tuple[Unembedded, NDArray[np.float32]]]:
    """What an embedder makes of them."""
    return [(each, unit(each.text, embedder)) for each in waiting]


class EmbeddingQueueSuite(VectorSuite):
    """Pending, fill, retire."""

    async def test_parts_wait_until_they_have_a_vector(self, index: Index) -> None:
        await index.put("u", [entry("one two", parts=2, vectors=False), entry("three"), entry("four", vectors=False)])
        waiting = await index.pending()
        assert texts(waiting) == ["one", " two", "four"]
        assert {each.user_id for each in waiting} == {"u"}
        assert await index.pending(FIRST) == waiting
        assert await index.fill(FIRST, made(waiting[1:])) == 2
        assert texts(await index.pending()) == ["one"]
        assert await index.stats("u") == IndexStats(records=3, parts=4, pending=1, embedders={FIRST: 3})
        rows = keyed(await index.match("u", probe(near="four", limit=1)))
        assert rows["four", 0].cosine == pytest.approx(1.0, abs=TOLERANCE)
        assert rows["four", 0].id == str(waiting[2].part)
        assert await index.fill(FIRST, made(waiting)) == 1, "the others have one"
        assert await index.pending() == await index.pending(FIRST) == ()
        assert await index.fill(FIRST, []) == 0

    async def test_each_embedder_has_its_own_queue(self, index: Index) -> None:
        await index.put("u", [entry("a"), entry("b", embedder=SECOND), entry("c", vectors=False)])
        assert texts(await index.pending()) == ["c"]
        assert texts(await index.pending(FIRST)) == ["b", "c"]
        assert texts(await index.pending(SECOND)) == ["a", "c"]
        assert texts(await index.pending("test/new/8")) == ["a", "b", "c"]
        assert await index.fill(SECOND, made(await index.pending(SECOND), SECOND)) == 2
        assert await index.pending(SECOND) == await index.pending() == ()
        assert texts(await index.pending(FIRST)) == ["b", "c"]

    async def test_pages_over_users_and_parts(self, index: Index) -> None:
        users = sorted([*HOSTILE, "", "A", "a", "é", "\U0001f642", "\uffff"])
        for user in reversed(users):
            await index.put(user, [entry(f"{user}{n}", id=str(n), vectors=False) for n in range(3)])
        expected = [(user, f"{user}{n}") for user in users for n in range(3)]
        assert [(each.user_id, each.text) for each in await index.pending()] == expected
        seen: list[Unembedded] = []
        while page := await index.pending(FIRST, after=seen[-1] if seen else None, limit=7):
            assert len(page) <= 7
            assert not set(page) & set(seen)
            seen += page
        assert [(each.user_id, each.text) for each in seen] == expected
        own = await index.pending(user_id="a", limit=2)
        assert texts(own) == ["a0", "a1"]
        assert texts(await index.pending(user_id="a", after=own[-1])) == ["a2"]
        assert await index.fill(FIRST, made(seen)) == len(expected), "of many users in one call"
        assert await index.pending() == ()
        for user in users:
            assert await ids(index, user, probe(near=f"{user}1", limit=1)) == ["1"]

    async def test_more_than_a_thousand_wait(self, index: Index) -> None:
        await index.put("u", [entry(str(n), vectors=False) for n in range(1500)])
        waiting = await index.pending(limit=2**40)
        assert texts(waiting) == [str(n) for n in range(1500)]
        assert len(await index.pending()) == 256
        assert await index.fill(FIRST, made(waiting[:1200])) == 1200
        assert texts(await index.pending(limit=2000)) == [str(n) for n in range(1200, 1500)]

    async def test_a_part_that_is_gone_takes_no_vector(self, index: Index) -> None:
        await index.put("u", [entry(text, id=text, vectors=False) for text in ("gone", "changed", "stays")])
        stale = await index.pending()
        await index.delete("u", Where(ids=("gone",)))
        await index.put(
            "u", [entry("another", id="changed", vectors=False), entry("stays", importance=1.0, vectors=False)]
        )
        assert await index.fill(FIRST, made(stale)) == 1
        assert texts(await index.pending()) == ["another"]
        await index.delete("u", ALL)
        await index.put("u", [entry(f"new {n}", vectors=False) for n in range(5)])
        assert await index.fill(FIRST, made(stale)) == 0, "a number is never used again"
        assert len(await index.pending()) == 5
        await index.delete("u", ALL)
        assert await index.fill(FIRST, made(stale)) == 0
        assert not any((await self.tables(index, "u")).values())

    async def test_a_part_of_another_user_takes_no_vector(self, index: Index) -> None:
        await index.put("u", [entry("mine", vectors=False)])
        (mine,) = await index.pending()
        for other in ("v", "", "U"):
            assert await index.fill(FIRST, made((Unembedded(other, mine.part, mine.text),))) == 0
        assert await index.pending() == (mine,)

    async def test_of_many_who_fill_a_part_one_does(self, index: Index) -> None:
        await index.put("u", [entry(str(n), vectors=False) for n in range(20)])
        waiting = await index.pending()
        orders = [waiting, waiting[::-1], waiting[10:] + waiting[:10]] * 3
        filled = await asyncio.gather(*(index.fill(FIRST, made(order)) for order in orders))
        assert sum(filled) == 20
        assert await index.fill(FIRST, made(waiting + waiting)) == 0
        await index.put("u", [entry("twice", vectors=False)])
        (twice,) = await index.pending()
        assert await index.fill(FIRST, made((twice, twice))) == 1

    async def test_retiring_removes_what_has_been_replaced(self, index: Index) -> None:
        for user in ("u", "v"):
            await index.put(user, [entry("old", embedder=SECOND), entry("both", embedder=SECOND), entry("new")])
            await index.put(user, [entry("both"), entry("waits", vectors=False)])
        assert await index.retire(FIRST, user_id="u") == 1
        assert await index.stats("u") == IndexStats(records=4, parts=4, pending=1, embedders={FIRST: 2, SECOND: 1})
        assert await index.stats("v") == IndexStats(records=4, parts=4, pending=1, embedders={FIRST: 2, SECOND: 2})
        assert await ids(index, "u", probe(near="x", by=(SECOND,))) == ["old"]
        assert await index.fill("test/third/8", made(await index.pending("test/third/8"), "test/third/8")) == 8
        assert await index.retire("test/third/8") == 7
        assert await index.stats() == IndexStats(records=8, parts=8, embedders={"test/third/8": 8})
        assert await index.retire("test/third/8") == await index.retire("test/unknown/8") == 0
        assert (await index.match("u", probe())).embedders == ("test/third/8",)

    async def test_vectors_of_any_length(self, index: Index) -> None:
        sizes = (1, 2, 256, 1536, 3072)
        for size in sizes:
            name = f"test/any/{size}"
            await index.put("u", [entry(str(size), embedder=name), entry("all", embedder=name)])
        for size in sizes:
            name = f"test/any/{size}"
            rows = await whole_by(index, name, str(size))
            assert sorted(rows) == sorted([str(size), "all"])
            assert rows[str(size)] == pytest.approx(1.0, abs=TOLERANCE)
            assert rows["all"] == pytest.approx(float(unit("all", name) @ unit(str(size), name)), abs=TOLERANCE)


async def whole_by(index: Index, embedder: str, near: str) -> dict[str, float]:
    """Cosines by record, as one embedder sees it."""
    found = keyed(await index.match("u", probe(near=near, by=(embedder,))))
    return {key[0]: row.cosine for key, row in found.items()}
