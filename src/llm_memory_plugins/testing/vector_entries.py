"""Entries and probes for tests of vector memory, what the suites over it share, and how a pool is held to the model."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pytest

from llm_memory_plugins.lexicon import postings, term
from llm_memory_plugins.ports import EmbeddingQueue, VectorIndex
from llm_memory_plugins.records import Entry, Part, Pool, Probe, Record, Row, Where
from llm_memory_plugins.testing.vector_model import Key, Statistics, VectorModel, around, rankings

if TYPE_CHECKING:
    from numpy.typing import NDArray

START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)
FIRST, SECOND = "test/first/24", "test/second/16"
"""Two embedders, whose vectors are as long as their names say."""
TOLERANCE = 1e-4
"""Of a cosine, a score by words, or a final score: what float32 may cost a store that adds in its own order."""


class Index(VectorIndex, EmbeddingQueue, Protocol):
    """A store of vector memory: both ports in one."""


def unit(seed: str, embedder: str = FIRST) -> NDArray[np.float32]:
    """The vector that an embedder has for a text: any direction, always the same one."""
    digest = blake2b(f"{embedder}\n{seed}".encode(), digest_size=8).digest()
    drawn = np.random.default_rng(int.from_bytes(digest)).standard_normal(int(embedder.rpartition("/")[2]))
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def part(
    content: str,
    start: int = 0,
    stop: int | None = None,
    *,
    embedder: str | None = FIRST,
    vector: NDArray[np.float32] | None = None,
) -> Part:
    """A stretch of a content whose words are its terms, with the vector of its text unless `embedder` is None."""
    stop = len(content) if stop is None else stop
    text = content[start:stop]
    found = text.split()
    terms, counts = postings(Counter(found))
    return Part(
        start=start,
        stop=stop,
        terms=terms,
        counts=counts,
        length=len(found),
        telling=len(text) % 11 / 10,
        tokens=len(text) // 4 + 1,
        vector=unit(text, embedder) if vector is None and embedder else vector,
    )


def cuts(content: str, count: int) -> list[tuple[int, int]]:
    """Where to cut a content into that many parts."""
    edges = [len(content) * place // count for place in range(count + 1)]
    return list(pairwise(edges))


def entry(
    content: str = "hello there",
    *,
    id: str | None = None,
    parts: int | Sequence[Part] = 1,
    embedder: str = FIRST,
    vectors: bool = True,
    **fields: Any,
) -> Entry:
    """A record as engines hand it to a store; its id is its content unless one is given.

    Args:
        content: Words, of which the terms are made.
        id: Of the record.
        parts: How many of about one length, or these.
        embedder: Of the vectors.
        vectors: Whether the parts have any.
        fields: Of the record.
    """
    if isinstance(parts, int):
        made = embedder if vectors else None
        parts = [part(content, start, stop, embedder=made) for start, stop in cuts(content, parts)]
    told: dict[str, Any] = {"created_at": START, **fields}
    record = Record(id=content if id is None else id, content=content, **told)
    return Entry(record=record, parts=tuple(parts), embedder=embedder, tokenizer="words")


def talk(count: int, session: str = "s", **fields: Any) -> list[Entry]:
    """A session of so many records, a minute apart, each with a word of its own and one that all have."""
    return [
        entry(
            f"{session}{n} said",
            session_id=session,
            role="assistant" if n % 2 else "user",
            created_at=START + timedelta(minutes=n),
            **fields,
        )
        for n in range(count)
    ]


def probe(
    words: str = "",
    *,
    near: str | None = None,
    by: Sequence[str] = (FIRST,),
    where: Where | None = None,
    limit: int = 200,
) -> Probe:
    """A question for these words, and for what lies near to a text."""
    vectors = () if near is None else tuple((name, unit(near, name)) for name in by)
    terms = tuple(term(word) for word in words.split())
    return Probe(vectors=vectors, terms=terms, where=where or Where(), limit=limit)


def keyed(pool: Pool) -> dict[Key, Row]:
    """The rows by the parts they are of."""
    found: dict[Key, Row] = {}
    for row in pool.rows:
        passage = pool.record(row).passage
        found[row.record, passage.number if passage else 0] = row
    assert len(found) == len({row.id for row in pool.rows}) == len(pool.rows), "each part once, each with its own id"
    return found


async def ids(index: VectorIndex, user_id: str, asked: Probe) -> list[str]:
    """The records of which parts are found, in alphabetical order."""
    return sorted(key[0] for key in keyed(await index.match(user_id, asked)))


async def whole(index: VectorIndex, user_id: str = "u") -> dict[Key, Row]:
    """All parts that have a vector or neighbours with one; for tests whose parts all do."""
    return keyed(await index.match(user_id, probe(near="anything", by=(FIRST, SECOND), limit=100_000)))


async def agree(index: VectorIndex, model: VectorModel, user_id: str, asked: Probe) -> None:
    """A store's pool is the model's, up to rounding and to which of several equals came in last."""
    pool = await index.match(user_id, asked)
    judged = {each.key: each for each in model.judge(user_id, asked)}
    must, may = _bounds(rankings(judged.values()), asked.limit)
    found = keyed(pool)
    assert around(judged.values(), must) <= found.keys(), "somebody is missing"
    assert found.keys() <= around(judged.values(), may), "somebody does not belong here"
    threads: dict[str, set[tuple[str, int]]] = {}
    for key, row in found.items():
        true = judged[key].row
        names = ("text", "counts", "length", "tokens", "tokenizer", "speaker", "created_at", "importance", "record")
        assert [getattr(row, name) for name in names] == [getattr(true, name) for name in names]
        assert row.cosine == pytest.approx(true.cosine, abs=TOLERANCE, nan_ok=True)
        assert row.telling == pytest.approx(true.telling, abs=1e-6)
        assert bool(row.session) == bool(true.session)
        assert pool.record(row) == judged[key].record
        if row.session:
            threads.setdefault(true.session, set()).add((row.session, row.position - true.position))
    named = [pair for pairs in threads.values() for pair in pairs]
    assert len({name for name, _ in named}) == len(named) == len(threads), "a name each, and counted from one place"
    true_corpus = model.corpus(user_id, asked.terms)
    assert (pool.corpus.total, pool.corpus.frequencies) == (true_corpus.total, true_corpus.frequencies)
    assert pool.corpus.average_length == pytest.approx(true_corpus.average_length)
    assert pool.speakers == model.speakers(user_id)
    assert sorted(pool.embedders) == list(model.embedders(user_id))


def _bounds(ranked: Iterable[Sequence[tuple[float, Key]]], limit: int) -> tuple[set[Key], set[Key]]:
    """Who is among the best whatever rounding did, and who may be."""
    must: set[Key] = set()
    may: set[Key] = set()
    for ranking in ranked:
        last = ranking[limit - 1][0] if len(ranking) > limit else -np.inf
        first_out = ranking[limit][0] if len(ranking) > limit else -np.inf
        must |= {key for score, key in ranking if score > first_out + TOLERANCE}
        may |= {key for score, key in ranking if score >= last - TOLERANCE}
    return must, may


class VectorSuite:
    """What the suites of vector memory need. Override all of it, `twin` where there can be one."""

    @pytest.fixture
    async def index(self) -> AsyncIterator[Index]:
        """An empty store."""
        raise NotImplementedError("give the suite a store")
        yield

    @pytest.fixture
    async def twin(self, index: Index) -> Index:
        """The same store as another process would open it."""
        return index

    async def tables(self, index: Index, user_id: str) -> Mapping[str, int]:
        """How many rows of the user each table holds, read behind the store's back."""
        raise NotImplementedError("count the rows without using the store")

    async def statistics(self, index: Index, user_id: str) -> tuple[Statistics, Statistics]:
        """What the store keeps for BM25, and the same counted from its parts; both read behind its back."""
        raise NotImplementedError("read the statistics without using the store")

    async def erase(self, index: Index, user_id: str, session_id: str | None = None) -> None:
        """Remove a user, or one of their sessions, by the `MessageLog` of the same store."""
        raise NotImplementedError("erase by the message log")

    async def exact(self, index: Index, user_id: str) -> Statistics:
        """The statistics, which are kept as they are, and told as they are."""
        kept, counted = await self.statistics(index, user_id)
        assert kept == counted
        terms = tuple(sorted(counted.holding)[:200])
        told = (await index.match(user_id, Probe(vectors=(), terms=terms, limit=1))).corpus
        assert (told.total, told.frequencies) == (counted.parts, tuple(counted.holding[term] for term in terms))
        assert told.average_length * max(told.total, 1) == pytest.approx(counted.length)
        return counted
