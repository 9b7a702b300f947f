"""What `vector.py` compares: texts and questions, the base of all contenders, the floors, and this project.

The peers are in `vector_peers.py`. Text `n` of every tenant is the same, and its vector is made by the same offline
embedder, so a contender can fill its store with vectors that are there already, and what it finds can be checked.
"""

# ruff: noqa: D102, S608 - methods are described once, in `Contender`; tables are named by code alone

from __future__ import annotations

import json
import sqlite3
import statistics
import uuid
import zlib
from collections import defaultdict
from datetime import UTC, datetime
from functools import cache
from typing import Any

import numpy as np

from llm_memory_plugins import VectorDatabaseMemory, lexicon, queries
from llm_memory_plugins.filters import parse
from llm_memory_plugins.providers.embedders import offline
from llm_memory_plugins.records import Probe, Where

WORDS = 50  # of a text
TOPICS = 100
LOTS = 100  # a filter for one lot lets one text in a hundred pass
LOT = 7
BEST = 10
CANDIDATES = 200  # what this project asks its stores for
DIMENSIONS = offline.DIMENSIONS


# --- texts


def documents(count: int) -> list[str]:
    """Texts of `WORDS` words: half by the frequency words have (Zipf's law), half from a topic's own words.

    So there are frequent and rare words, and the vectors lie in clusters, some large, some small.
    """
    rng = np.random.default_rng(4)
    vocabulary = np.array(_vocabulary())
    everywhere = _zipf(len(vocabulary))
    topics = np.array([rng.choice(np.arange(100, len(vocabulary)), 80, replace=False) for _ in range(TOPICS)])
    within, which = _zipf(topics.shape[1]), np.searchsorted(_zipf(TOPICS), rng.random(count))
    texts = []
    for topic in which:
        common = np.searchsorted(everywhere, rng.random(WORDS))
        own = topics[topic][np.searchsorted(within, rng.random(WORDS))]
        said = vocabulary[np.where(rng.random(WORDS) < 0.5, common, own)]
        texts.append(". ".join(" ".join(said[at : at + 10]).capitalize() for at in range(0, WORDS, 10)) + ".")
    return texts


def questions(texts: list[str], count: int) -> list[str]:
    """Questions with five words of a text each."""
    rng = np.random.default_rng(5)
    chosen = [texts[n].lower().replace(".", "").split() for n in rng.integers(len(texts), size=count)]
    return [f"What did we say about {' '.join(rng.choice(words, 5, replace=False))}?" for words in chosen]


def _vocabulary() -> list[str]:
    """The words that the offline embedder's tokenizer knows whole, the frequent ones first."""
    numbered = offline._load()[0].get_vocab()
    words = [piece[1:] for piece in sorted(numbered, key=numbered.__getitem__) if piece.startswith("▁")]
    return [word for word in words if len(word) > 2 and word.isascii() and word.isalpha() and word.islower()]


def _zipf(count: int) -> np.ndarray:
    """Cumulated shares of words by their rank (Zipf-Mandelbrot)."""
    shares = 1 / (np.arange(count) + 2.7)
    return np.cumsum(shares) / shares.sum()


def embed(texts: list[str]) -> np.ndarray:
    """Vectors of the offline embedder, shape (texts, `DIMENSIONS`), without what surrounds it in this project."""
    rows = offline._embed(texts)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def metadata(number: int) -> dict[str, int]:
    """What is stored with text `number`."""
    return {"number": number, "lot": number % LOTS}


def key(tenant: str, number: int) -> str:
    """The id of a text, where ids are unique beyond a tenant."""
    return str(uuid.UUID(int=(zlib.crc32(tenant.encode()) << 64) + number))


def number_of(key: str) -> int:
    """Which text an id is of."""
    return uuid.UUID(key).int & (2**64 - 1)


# --- contenders


class Contender:
    """Keeps texts with vectors for tenants, and finds the nearest to a question.

    Attributes:
        name: In the tables.
        durability: What survives when `ingest` has returned; empty when it has none of its own.
        dense: Whether it finds by cosine alone, so that there is a recall.
        peer: Whether it is another library's, which stores once, not in rounds.
        note: Why it is left out.
    """

    name: str
    durability = ""
    dense = True
    peer = False
    note = ""

    async def open(self, place: str) -> None:
        """Connect to the database of that URL, or use the folder, and make tables."""

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        """Store texts whose vectors are there."""
        raise NotImplementedError

    async def ingest(self, tenant: str, texts: list[str]) -> None:
        """Embed and store texts."""
        raise NotImplementedError

    def prepare(self, question: str, vector: np.ndarray) -> Any:
        """What `query` is given; making it is not measured."""
        return question

    async def query(self, tenant: str, question: Any, lot: int | None = None) -> Any:
        """What answers a question, of one lot alone where it is named."""
        raise NotImplementedError

    def numbers(self, answer: Any) -> list[int]:
        """Which texts `query` has found, best first. This is not measured."""
        raise NotImplementedError

    async def close(self) -> None:
        """Disconnect."""


class Cell:
    """What was measured of one contender at one size, without a filter and with one."""

    def __init__(self) -> None:
        self.spent = 0.0
        self.slow = False  # one question is warm-up enough where it takes long
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.recall: dict[str, list[float]] = defaultdict(list)

    def took(self, part: str, seconds: float, *, counts: bool) -> None:
        """Note one question."""
        self.slow = self.slow or seconds > 1
        if counts:
            self.spent += seconds
            self.seconds[part].append(seconds)

    def p50(self, part: str) -> float:
        """Median in milliseconds."""
        return 1000 * statistics.median(self.seconds[part])


class NumpyFloor(Contender):
    """One product of all vectors, in memory, with the question's; stored by executemany into a plain table."""

    name = "numpy product; executemany"
    dense = False  # it is what recall is measured by
    durability = "durable: committed, synchronous=full"

    async def open(self, place: str) -> None:
        self._vectors: dict[str, np.ndarray] = {}
        self._lots: dict[str, np.ndarray] = {}
        self._file = sqlite3.connect(f"{place}/floor.sqlite3", isolation_level=None)
        self._file.execute("pragma journal_mode = wal")
        self._file.execute("pragma synchronous = full")
        self._file.execute(
            "create table plain (user_id text, id text, content text, metadata text, vector blob,"
            "primary key (user_id, id)) without rowid"
        )

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        self._vectors[tenant] = np.ascontiguousarray(vectors)
        self._lots[tenant] = np.arange(len(texts)) % LOTS

    async def ingest(self, tenant: str, texts: list[str]) -> None:
        rows = (
            (tenant, key(tenant, n), text, json.dumps(metadata(n)), vector.tobytes())
            for n, text, vector in embedded(texts)
        )
        self._file.execute("begin immediate")
        self._file.executemany("insert into plain values (?, ?, ?, ?, ?)", rows)
        self._file.execute("commit")

    def prepare(self, question: str, vector: np.ndarray) -> Any:
        return vector

    async def query(self, tenant: str, question: Any, lot: int | None = None) -> Any:
        if lot is None:
            return self._vectors[tenant] @ question
        return self._vectors[tenant][self._lots[tenant] == lot] @ question

    async def close(self) -> None:
        self._file.close()


def embedded(texts: list[str], size: int = 256) -> Any:
    """Number, text and vector of each, embedded some at a time, so that a server works meanwhile."""
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        yield from zip(range(start, start + len(batch)), batch, embed(batch), strict=True)


class PgvectorFloor(Contender):
    """One statement over a plain table, exact, with the role and the row-level security this project has."""

    name = "raw pgvector, exact; COPY"
    durability = "durable: PostgreSQL has committed (fsync)"
    _select = "select id from floor.plain where user_id = %(tenant)s {} order by embedding <=> %(vector)s::vector"
    _claims = "select set_config('role', 'authenticated', true), set_config('request.jwt.claims', %s, true)"

    async def open(self, place: str) -> None:
        import psycopg

        self._connection = await psycopg.AsyncConnection.connect(place, autocommit=True, prepare_threshold=0)
        await self._prepare_tables()

    async def _prepare_tables(self) -> None:
        for statement in (
            "create schema floor",
            "grant usage on schema floor to authenticated",
            'create table floor.plain (user_id text collate "C", id text collate "C", content text not null,'
            f"metadata jsonb not null, embedding vector({DIMENSIONS}) not null, primary key (user_id, id))",
            "select llm_memory.protect('floor.plain')",
        ):
            await self._connection.execute(statement)

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        await self._copy(tenant, zip(range(len(texts)), texts, vectors, strict=True))

    async def ingest(self, tenant: str, texts: list[str]) -> None:
        await self._copy(tenant, embedded(texts))

    async def _copy(self, tenant: str, rows: Any) -> None:
        head = np.array([DIMENSIONS, 0], dtype=">i2").tobytes()  # a vector, as pgvector reads it
        into = "floor.plain (user_id, id, content, metadata, embedding)"
        async with (
            self._connection.cursor() as cursor,
            cursor.copy(f"copy {into} from stdin (format binary)") as stream,
        ):
            stream.set_types(["text", "text", "text", "text", "bytea"])
            for n, text, vector in rows:
                # jsonb begins with the version of its format
                values = f"\x01{json.dumps(metadata(n))}", head + vector.astype(">f4").tobytes()
                await stream.write_row((tenant, key(tenant, n), text, *values))

    def prepare(self, question: str, vector: np.ndarray) -> Any:
        return f"[{','.join(map(str, vector.tolist()))}]"

    async def query(self, tenant: str, question: Any, lot: int | None = None) -> Any:
        only = "" if lot is None else f"and metadata @> '{{\"lot\": {lot}}}'"
        statement = f"{self._select.format(only)} limit {CANDIDATES}"
        claims = json.dumps({"sub": tenant, "role": "authenticated"})
        async with self._connection.pipeline():  # without BEGIN one transaction, as this project's
            await self._connection.execute(self._claims, (claims,))
            answer = await self._connection.execute(statement, {"tenant": tenant, "vector": question})
        return await answer.fetchall()

    def numbers(self, answer: Any) -> list[int]:
        return [number_of(row[0]) for row in answer]

    async def close(self) -> None:
        await self._connection.close()


class HnswFloor(PgvectorFloor):
    """The same with an HNSW index, in a table for each tenant: approximate."""

    name = "raw pgvector, HNSW"
    durability = ""

    async def _prepare_tables(self) -> None:
        await self._connection.execute(f"set hnsw.ef_search = {CANDIDATES}")
        await self._connection.execute("set hnsw.iterative_scan = strict_order")

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        table = self._table(tenant)
        for statement in (
            f"create table {table} as select * from floor.plain where user_id = '{tenant}'",
            f"select llm_memory.protect('{table}')",
            "set maintenance_work_mem = '1GB'",
            f"create index on {table} using hnsw (embedding vector_cosine_ops)",
        ):
            await self._connection.execute(statement)

    async def query(self, tenant: str, question: Any, lot: int | None = None) -> Any:
        self._select = f"select id from {self._table(tenant)} where true {{}} order by embedding <=> %(vector)s::vector"
        return await super().query(tenant, question, lot)

    @staticmethod
    def _table(tenant: str) -> str:
        return f'floor."hnsw {tenant}"'


class ThisProject(Contender):
    """`VectorDatabaseMemory`, the whole of `search`: embedding, candidates by meaning and by words, ranking."""

    name = "this project, search"
    durability = "durable: committed"
    dense = False

    async def open(self, place: str) -> None:
        url = place if "://" in place else f"sqlite:///{place}/memory.sqlite3"
        config = {"database_url": url, "embedding_model": "offline", "tokenizer": "estimate"}
        self.memory = VectorDatabaseMemory(config)
        await self.memory.initialize()

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        await self.ingest(tenant, texts)

    async def ingest(self, tenant: str, texts: list[str]) -> None:
        await self.memory.store(
            [{"user_id": tenant, "content": text, "metadata": metadata(n)} for n, text in enumerate(texts)]
        )

    async def query(self, tenant: str, question: Any, lot: int | None = None) -> Any:
        where = {} if lot is None else {"filter": {"lot": lot}}
        return await self.memory.search(question, user_id=tenant, max_results=BEST, **where)

    def numbers(self, answer: Any) -> list[int]:
        return [record.metadata["number"] for record in answer]

    async def close(self) -> None:
        await self.memory.close()


class StoreAlone(Contender):
    """This project's store: the candidates for a question that is embedded already.

    Args:
        whole: Whose store it is, and who fills it.
        words: Whether to look for candidates by words, too, as a search does.
    """

    name = "this project, match of the store"

    def __init__(self, whole: ThisProject, *, words: bool = True) -> None:
        self._whole, self._words = whole, words
        self.dense = not words

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        """See `whole`."""

    def prepare(self, question: str, vector: np.ndarray) -> Any:
        terms = queries.parse(question, datetime.now(UTC), ()).terms if self._words else ()
        return vector, tuple(lexicon.term(stem) for stem in terms)

    async def query(self, tenant: str, question: Any, lot: int | None = None) -> Any:
        vector, terms = question
        vectors = ((self._whole.memory.embedder.identity, vector),)
        probe = Probe(vectors=vectors, terms=terms, where=_of_lot(lot), limit=CANDIDATES)
        return await self._whole.memory._ports.index.match(tenant, probe)

    def numbers(self, answer: Any) -> list[int]:
        return [answer.record(row).metadata["number"] for row in sorted(answer.rows, key=lambda row: -row.cosine)]


@cache
def _of_lot(lot: int | None) -> Where:
    return Where() if lot is None else Where(filter=parse({"lot": lot}))
