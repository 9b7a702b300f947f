"""Writing records with their parts and vectors."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_memory_plugins.errors import Conflict, InvalidInput
from llm_memory_plugins.records import Entry, Part, Record
from llm_memory_plugins.stores.sqlite.corpora import SQL, Corpus, corpus_of, note_changes
from llm_memory_plugins.stores.sqlite.messages import to_micros
from llm_memory_plugins.stores.sqlite.rows import RecordRow, encoded


class StoredPart(NamedTuple):
    """A part that is there: its stretch of the content, and the numbers of the embedders it has a vector of."""

    pk: int
    start: int
    stop: int
    embedders: frozenset[int]


def put(connection: sqlite3.Connection, user_id: str, entries: Sequence[Entry]) -> tuple[Record, ...]:
    """See `VectorIndex.put`."""
    if not entries:
        return ()
    writing = _Writing(connection, user_id)
    stored = [record for batch in _batches(entries) for record in writing.put(batch)]
    writing.close()
    return tuple(stored)


def _batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The entries in their order, no id twice in a batch: the later one is put after the first is there."""
    batch: dict[str, Entry] = {}
    for entry in entries:
        if entry.record.id in batch:
            yield list(batch.values())
            batch = {}
        batch[entry.record.id] = entry
    yield list(batch.values())


class Embedders:
    """The numbers of embedders, as far as they were asked for."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, identity: str, vector: NDArray[np.float32]) -> int:
        """The number of the embedder that made a vector; a new one for one that is new.

        Raises:
            InvalidInput: When its vectors are of another length.
        """
        if (found := self._known.get(identity)) is None:
            names = {"identity": identity, "dimensions": len(vector)}
            found = self._connection.execute(SQL["embedder"], names).fetchone()
            found = found or self._connection.execute(SQL["add_embedder"], names).fetchone()
            self._known[identity] = found
        if len(vector) != found[1]:
            raise InvalidInput("vector", f"has {len(vector)} dimensions; those of its embedder have {found[1]}")
        return found[0]


class _Writing:
    """One call of `put`: what is to be written is gathered, and written at the end of each batch."""

    def __init__(self, connection: sqlite3.Connection, user_id: str) -> None:
        self._connection = connection
        self._user_id = user_id
        corpus = corpus_of(connection, user_id)
        if corpus is None:
            (pk,) = connection.execute(SQL["begin_corpus"], {"user_id": user_id}).fetchone()
            corpus = Corpus(pk, Corpus(pk, 0).first)
        self._corpus = corpus
        self._last = corpus.last
        self._embedders = Embedders(connection)
        self._held: dict[int, list[StoredPart]] = {}  # by record
        self._ends: dict[str, int] = {}  # the next position in a session
        self._changed: list[int] = []
        self._gone: list[tuple[int]] = []  # records, to be written again
        self._gone_parts: list[tuple[int, int]] = []  # first and last of a record
        self._gone_vectors: list[tuple[int, int]] = []  # first and last of the parts they are of
        self._records: list[RecordRow] = []
        self._parts: list[tuple[int | float | bytes, ...]] = []
        self._vectors: list[tuple[int, int, int, bytes]] = []
        self._embedded: list[tuple[int]] = []  # parts that may have waited

    def put(self, batch: Sequence[Entry]) -> list[Record]:
        """Store entries with an id each."""
        names = {"pk": self._corpus.pk, "ids": json.dumps([entry.record.id for entry in batch])}
        known = {row.id: row for row in map(RecordRow._make, self._connection.execute(SQL["known"], names))}
        self._held = {row.pk: [] for row in known.values()}
        if known:
            names["pks"] = json.dumps([*self._held])
            for record, pk, start, stop, held in self._connection.execute(SQL["known_parts"], names):
                embedders = frozenset(map(int, held.split(","))) if held else frozenset[int]()
                self._held[record].append(StoredPart(pk, start, stop, embedders))
        stored = [self._put(entry, known.get(entry.record.id)) for entry in batch]
        self._flush()
        return stored

    def close(self) -> None:
        """Count up what was given out, and note which records are not what they were."""
        if self._last != self._corpus.last or self._changed:
            note_changes(self._connection, self._corpus._replace(last=self._last), self._changed)

    def _put(self, entry: Entry, known: RecordRow | None) -> Record:
        given = entry.record
        if given.revision and (known is None or known.revision != given.revision):
            raise Conflict("the record is not there in this revision (any more); nothing was stored")
        if known is None:
            return self._place(entry, self._next(), 1, self._end(entry))
        held = self._held[known.pk]
        fits = [(part.start, part.stop) for part in held] == [(part.start, part.stop) for part in entry.parts]
        if _same(known, given):
            if fits:
                self._take_vectors(entry, held)
            return known.record(self._user_id)
        self._changed.append(known.pk)
        self._gone.append((known.pk,))
        self._gone_parts.append(known.span)
        if fits and (known.content, known.session_id) == (given.content, given.session_id):
            return self._keep(entry, known, held)
        self._gone_vectors.append(known.span)
        if known.session_id == given.session_id:
            position = known.position if known.parts == len(entry.parts) else self._end(entry)
            return self._place(entry, known.pk, known.revision + 1, position)
        record = self._place(entry, known.pk, known.revision + 1, self._end(entry))
        self._flush()  # its old session may have another end now
        self._ends.clear()
        return record

    def _place(self, entry: Entry, pk: int, revision: int, position: int) -> Record:
        """Write a record with parts that are new."""
        first = self._last + 1
        self._last += len(entry.parts)
        for number, part in enumerate(entry.parts):
            self._parts.append(_part_row(first + number, pk, number, part, waiting=part.vector is None))
            if part.vector is not None:
                self._add_vector(first + number, entry.embedder, part.vector)
        return self._write(entry, pk, revision, position, first)

    def _keep(self, entry: Entry, known: RecordRow, held: Sequence[StoredPart]) -> Record:
        """Write a record whose parts stay what and where they are."""
        for number, (part, old) in enumerate(zip(entry.parts, held, strict=True)):
            self._parts.append(_part_row(old.pk, known.pk, number, part, waiting=not old.embedders))
        self._take_vectors(entry, held)
        return self._write(entry, known.pk, known.revision + 1, known.position, known.first_part)

    def _write(self, entry: Entry, pk: int, revision: int, position: int, first_part: int) -> Record:
        given = entry.record
        row = RecordRow(
            pk,
            self._corpus.pk,
            given.id,
            revision,
            to_micros(given.created_at),
            given.session_id,
            position,
            first_part,
            len(entry.parts),
            given.importance,
            given.source,
            given.role,
            given.name,
            entry.tokenizer,
            encoded(given.metadata),
            given.content,
        )
        self._records.append(row)
        return row.record(self._user_id, given.metadata)

    def _take_vectors(self, entry: Entry, held: Sequence[StoredPart]) -> None:
        """Add the vectors that the parts lack."""
        for part, old in zip(entry.parts, held, strict=True):
            if part.vector is not None and self._embedders.of(entry.embedder, part.vector) not in old.embedders:
                self._add_vector(old.pk, entry.embedder, part.vector)
                self._embedded.append((old.pk,))

    def _add_vector(self, part: int, identity: str, vector: NDArray[np.float32]) -> None:
        embedder = self._embedders.of(identity, vector)
        self._vectors.append((self._next(), part, embedder, to_blob(vector)))

    def _next(self) -> int:
        self._last += 1
        return self._last

    def _end(self, entry: Entry) -> int:
        """The position behind the last one of the entry's session, from which on it stands there."""
        session = entry.record.session_id
        if session is None:
            return 0
        end = self._ends.get(session)
        if end is None:
            names = {"pk": self._corpus.pk, "session_id": session}
            found = self._connection.execute(SQL["next_position"], names).fetchone()
            end = found[0] if found else 0
        self._ends[session] = end + len(entry.parts)
        return end

    def _flush(self) -> None:
        for statement, rows in (
            ("remove_vectors", self._gone_vectors),
            ("remove_parts", self._gone_parts),
            ("remove_record", self._gone),
            ("add_record", self._records),
            ("add_part", self._parts),
            ("add_vector", self._vectors),
            ("no_longer_waiting", self._embedded),
        ):
            if rows:
                self._connection.executemany(SQL[statement], rows)
                rows.clear()


def to_blob(vector: NDArray[np.float32]) -> bytes:
    """A vector as it is kept."""
    return np.asarray(vector, dtype="<f4").tobytes()


def _part_row(pk: int, record: int, number: int, part: Part, *, waiting: bool) -> tuple[int | float | bytes, ...]:
    terms = struct.pack(f"<{len(part.terms)}I", *part.terms)
    counts = struct.pack(f"<{len(part.counts)}H", *part.counts)
    place = (pk, record, number, part.start, part.stop)
    return (*place, part.length, part.tokens, part.telling, waiting, terms, counts)


def _same(known: RecordRow, given: Record) -> bool:
    names = ("content", "session_id", "source", "role", "name", "importance")
    return (
        all(getattr(known, name) == getattr(given, name) for name in names)
        and known.metadata == encoded(given.metadata)
        and (not given.revision or known.created_at == to_micros(given.created_at))
    )
