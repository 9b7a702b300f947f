"""The `VectorIndex` and `EmbeddingQueue` ports on SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import cast

import numpy as np
from numpy.typing import NDArray

from llm_memory_plugins.filters import matcher, plain
from llm_memory_plugins.records import Entry, IndexStats, Pool, Probe, Record, Unembedded, Where
from llm_memory_plugins.stores.sqlite.corpora import (
    NOBODY,
    NOTHING,
    SQL,
    Corpus,
    corpus_of,
    erase,
    erase_all,
    note_changes,
)
from llm_memory_plugins.stores.sqlite.database import Database
from llm_memory_plugins.stores.sqlite.messages import to_micros
from llm_memory_plugins.stores.sqlite.pools import pool
from llm_memory_plugins.stores.sqlite.rows import RecordRow, decoded
from llm_memory_plugins.stores.sqlite.shelf import Shelf
from llm_memory_plugins.stores.sqlite.shelves import Shelves
from llm_memory_plugins.stores.sqlite.storing import Embedders, put, to_blob
from llm_memory_plugins.types import Receipt

_ALL = (0, (1 << 27) - 2)  # numbers of corpora


class SqliteVectorIndex:
    """Records in one SQLite file, searched in memory.

    Whatever is durable is in the file. A search goes to the user's shelf, which is made when it is first asked and
    takes in what was written since, by whichever process, in the transaction of the search.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._shelves = Shelves(cast("dict[str, Shelf]", database.kept))

    async def put(self, user_id: str, entries: Sequence[Entry]) -> tuple[Record, ...]:
        """See `VectorIndex.put`."""
        return await self._database.write(lambda connection: put(connection, user_id, entries))

    async def match(self, user_id: str, probe: Probe) -> Pool:
        """See `VectorIndex.match`."""

        def run(connection: sqlite3.Connection) -> Pool:
            shelf = self._shelves.of(user_id)
            with shelf.lock:
                corpus = corpus_of(connection, user_id)
                shelf.refresh(connection, corpus or NOBODY)
                found = shelf.search(connection, probe)
            if corpus is None:
                self._shelves.drop(user_id)
            else:
                self._shelves.tidy(connection, user_id)
            return pool(user_id, found, connection.execute(SQL["rows"], {"pks": json.dumps(found.parts)}))

        return await self._database.read(run)

    async def page(
        self, user_id: str, where: Where, *, after: str | None = None, limit: int = 100
    ) -> tuple[Record, ...]:
        """See `VectorIndex.page`."""

        def run(connection: sqlite3.Connection) -> tuple[Record, ...]:
            pks = list(islice(_chosen(connection, corpus_of(connection, user_id), where, after), limit))
            rows = connection.execute(SQL["records"], {"pks": json.dumps(pks)})
            return tuple(RecordRow(*row).record(user_id) for row in rows)

        return await self._database.read(run)

    async def delete(self, user_id: str, where: Where) -> Receipt:
        """See `VectorIndex.delete`."""

        def run(connection: sqlite3.Connection) -> dict[str, int]:
            corpus = corpus_of(connection, user_id)
            if corpus is None:
                return NOTHING
            if where.everything:
                return erase_all(connection, corpus)
            return erase(connection, corpus, list(_chosen(connection, corpus, where)))

        removed = await self._database.write(run)
        if where.everything:
            self._shelves.drop(user_id)
        return Receipt(removed)

    async def count(self, user_id: str, where: Where) -> int:
        """See `VectorIndex.count`."""

        def run(connection: sqlite3.Connection) -> int:
            corpus = corpus_of(connection, user_id)
            if corpus is not None and where.everything:
                return connection.execute(SQL["count_all"], {"pk": corpus.pk}).fetchone()[0]
            return sum(1 for _ in _chosen(connection, corpus, where))

        return await self._database.read(run)

    async def stats(self, user_id: str | None = None) -> IndexStats:
        """See `VectorIndex.stats`."""

        def run(connection: sqlite3.Connection) -> IndexStats:
            corpus = None if user_id is None else corpus_of(connection, user_id)
            if user_id is not None and corpus is None:
                return IndexStats()
            first, last = (corpus.pk, corpus.pk) if corpus else _ALL
            names = {"from_pk": first, "to_pk": last}
            records, parts, waiting = connection.execute(SQL["totals"], names).fetchone()
            embedded = dict(connection.execute(SQL["embedded"], names).fetchall())
            return IndexStats(records=records, parts=parts, pending=waiting, embedders=embedded)

        return await self._database.read(run)

    async def pending(
        self,
        embedder: str | None = None,
        *,
        user_id: str | None = None,
        after: Unembedded | None = None,
        limit: int = 256,
    ) -> tuple[Unembedded, ...]:
        """See `EmbeddingQueue.pending`."""
        names = {
            "embedder": embedder,
            "user_id": user_id,
            "after_user": after.user_id if after else "",
            "after_part": after.part if after else 0,
            "limit": limit,
        }
        statement = SQL["waiting" if embedder is None else "lacking"]
        rows = await self._database.read(lambda connection: connection.execute(statement, names).fetchall())
        return tuple(Unembedded(*row) for row in rows)

    async def fill(self, embedder: str, vectors: Sequence[tuple[Unembedded, NDArray[np.float32]]]) -> int:
        """See `EmbeddingQueue.fill`."""

        def run(connection: sqlite3.Connection) -> int:
            embedders = Embedders(connection)
            ordered = sorted(vectors, key=lambda pair: pair[0].user_id)
            return sum(
                _fill(connection, embedders, embedder, user, {each.part: vector for each, vector in pairs})
                for user, pairs in groupby(ordered, key=lambda pair: pair[0].user_id)
            )

        return await self._database.write(run)

    async def retire(self, embedder: str, *, user_id: str | None = None) -> int:
        """See `EmbeddingQueue.retire`."""

        def run(connection: sqlite3.Connection) -> int:
            retired = 0
            known = connection.execute(SQL["embedder"], {"identity": embedder}).fetchone()
            corpora = connection.execute(SQL["corpora"], {"user_id": user_id}).fetchall() if known else []
            for corpus in map(Corpus._make, corpora):
                names = {"embedder_pk": known[0], "first": corpus.first, "last": corpus.last}
                removed = connection.execute(SQL["retire"], names).rowcount
                if removed:
                    note_changes(connection, corpus, [0])
                retired += removed
            return retired

        return await self._database.write(run)


def _fill(
    connection: sqlite3.Connection,
    embedders: Embedders,
    identity: str,
    user_id: str,
    vectors: dict[int, NDArray[np.float32]],
) -> int:
    """Add vectors to parts of a user that lack them."""
    corpus = corpus_of(connection, user_id)
    if corpus is None:
        return 0
    names = {"pks": json.dumps([*vectors]), "first": corpus.first, "last": corpus.last, "embedder": identity}
    parts = [part for (part,) in connection.execute(SQL["fillable"], names)]
    rows = [
        (pk, part, embedders.of(identity, vectors[part]), to_blob(vectors[part]))
        for pk, part in enumerate(parts, start=corpus.last + 1)
    ]
    connection.executemany(SQL["add_vector"], rows)
    connection.executemany(SQL["no_longer_waiting"], [(part,) for part in parts])
    connection.execute(SQL["count_to"], {"pk": corpus.pk, "last": corpus.last + len(parts)})
    return len(parts)


def _chosen(
    connection: sqlite3.Connection, corpus: Corpus | None, where: Where, after: str | None = None
) -> Iterator[int]:
    """The numbers of the records that are meant, in the order of their ids, from behind `after` on."""
    if corpus is None:
        return
    names = {
        "pk": corpus.pk,
        "ids": None if where.ids is None else json.dumps(where.ids),
        "session_id": where.session_id,
        "source": where.source,
        "since": None if where.since is None else to_micros(where.since),
        "until": None if where.until is None else to_micros(where.until),
        "after": after or "",
    }
    fits = None if where.filter is None else matcher(where.filter)
    which = "choose_ids" if where.ids is not None else "choose_of_session" if where.session_id is not None else "choose"
    for pk, metadata in connection.execute(SQL[which], names):
        if fits is None or fits(plain(decoded(metadata))):
            yield pk
