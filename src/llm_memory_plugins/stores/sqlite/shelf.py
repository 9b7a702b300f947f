"""What is searched of a user, in memory, brought up to date before each search by what was written since."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_memory_plugins import lexicon, ranking
from llm_memory_plugins.records import Corpus as Statistics
from llm_memory_plugins.records import Probe, Where
from llm_memory_plugins.stores.sqlite.arrays import Column, Flags, Names, Numbers, Scores, best, places_of
from llm_memory_plugins.stores.sqlite.corpora import NOBODY, REMEMBERED, SQL, Corpus
from llm_memory_plugins.stores.sqlite.filtering import Metadata
from llm_memory_plugins.stores.sqlite.messages import EPOCH, to_micros
from llm_memory_plugins.stores.sqlite.postings import Held, Postings
from llm_memory_plugins.stores.sqlite.vectors import Vectors

_CHUNK, _VECTOR_CHUNK = 8192, 1024  # rows read at a time
_SPAN = 1 << 40  # more than there are positions in a thread
_NEAR = np.array((-2, -1, 1, 2))
_ROW_BYTES = 300  # of a row beside its vectors and postings, roughly
_WASTE = 1000  # rows of parts that are gone, beyond which it is asked whether most are

_SPEAKERS = 100


@dataclass(frozen=True, slots=True)
class Found:
    """The parts of a pool, and what holds for all of the user.

    Attributes:
        parts: Their numbers.
        columns: For each part what its row has of these: cosine, counts, length, tokens, session, position, speaker,
            created_at, telling, importance.
    """

    parts: list[int]
    columns: tuple[Sequence[Any], ...]
    corpus: Statistics
    speakers: tuple[str, ...]
    embedders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _About:
    """What holds for all parts of a user."""

    total: int
    average_length: float
    speakers: tuple[str, ...]
    embedders: tuple[str, ...]


class Shelf:
    """The parts of a user in rows: their vectors, words, places in sessions, and what conditions ask of them.

    A row is never changed. What is altered is taken down and put up again in a new row; when most rows are of nothing
    that is there any more, all is put up anew. Whoever uses a shelf holds its `lock` from before the transaction reads
    for the first time: so no shelf is ever ahead of what is read.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self._begin(NOBODY)

    def _begin(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._seen = corpus.first  # everything up to this number is here
        self._parts, self._records = Column(np.int64), Column(np.int64)
        self._live: Flags = np.empty(0, np.bool_)
        self._places = Column(np.int64)  # position in a thread, plus `_SPAN` for each thread before; -1 in none
        self._at: dict[int, int] = {}  # rows by their places
        self._speakers, self._sources = Column(np.int32), Column(np.int32)
        self._times, self._lengths, self._tokens = Column(np.int64), Column(np.int64), Column(np.int64)
        self._telling, self._importance = Column(np.float64), Column(np.float64)
        self._metadata = Metadata()  # of as many rows as were there when a filter was asked for the last time
        self._thread_names, self._speaker_names, self._source_names = Names(), Names(), Names()
        self._postings = Postings()
        self._vectors: dict[str, Vectors] = {}
        self._embedders: dict[int, str] = {}
        self._about: _About | None = None
        self.nbytes = 0  # of memory, roughly

    # --- what is on it

    def refresh(self, connection: sqlite3.Connection, corpus: Corpus) -> None:
        """Bring it up to what the transaction sees."""
        gone = len(self._live) - np.count_nonzero(self._live)
        known = corpus.pk == self.corpus.pk and self._seen <= corpus.last <= self._seen + REMEMBERED
        if not known or gone > max(_WASTE, len(self._live) / 2):
            self._begin(corpus)
        if corpus.last == self._seen:
            return
        names: dict[str, Any] = {"seen": self._seen, "last": corpus.last}
        changed = [pk for (pk,) in connection.execute(SQL["changes"], names)] if len(self._live) else []
        if 0 in changed:
            self._begin(corpus)
            names["seen"], changed = self._seen, []
        self.corpus = NOBODY  # should reading fail, what is half done is not taken for the whole
        self._take_down(changed)
        names["changed"] = json.dumps(changed)
        placed: dict[int, int] = {}
        parts = (_read(connection, name, names, _CHUNK) for name in ("new_parts", "changed_parts"))
        postings = [self._put_up(read, placed) for read in chain.from_iterable(parts)]
        if postings:
            terms, rows, counts, weights = map(np.concatenate, zip(*postings, strict=True))
            self._postings.add(terms, (rows, counts, weights))
        self._embedders = dict(connection.execute(SQL["embedders"]).fetchall())
        vectors = (_read(connection, name, names, _VECTOR_CHUNK) for name in ("new_vectors", "changed_vectors"))
        for read in chain.from_iterable(vectors):
            self._add_vectors(read, placed)
        self.corpus, self._seen, self._about = corpus, corpus.last, None
        self._weigh()

    def _weigh(self) -> None:
        vectors = sum(vectors.nbytes for vectors in self._vectors.values())
        self.nbytes = vectors + self._postings.nbytes + self._metadata.nbytes + _ROW_BYTES * len(self._live)

    def _take_down(self, records: Sequence[int]) -> None:
        if not records:
            return
        going = np.flatnonzero(np.isin(self._records.values, records) & self._live)
        self._live[going] = False
        for place in self._places.values[going].tolist():
            self._at.pop(place, None)

    def _put_up(self, read: Sequence[tuple[Any, ...]], placed: dict[int, int]) -> tuple[NDArray[Any], ...]:
        """Put parts into new rows; returns their terms and what is held of each."""
        parts, records, lengths, tokens, telling, threads, positions, *fields, terms, counts = zip(*read, strict=True)
        sources, speakers, times, importance = fields
        rows = np.arange(len(self._live), len(self._live) + len(read))
        placed.update(zip(parts, rows.tolist(), strict=True))
        codes = self._thread_names.codes(threads)
        places = [code * _SPAN + position if code >= 0 else -1 for code, position in zip(codes, positions, strict=True)]
        self._at.update(zip(places, rows.tolist(), strict=True))
        self._at.pop(-1, None)
        for column, values in (
            (self._parts, parts),
            (self._records, records),
            (self._lengths, lengths),
            (self._tokens, tokens),
            (self._telling, telling),
            (self._importance, importance),
            (self._places, places),
            (self._times, times),
            (self._sources, self._source_names.codes(sources)),
            (self._speakers, self._speaker_names.codes(speakers)),
        ):
            column.extend(values)
        self._live = np.r_[self._live, np.ones(len(read), np.bool_)]
        for vectors in self._vectors.values():
            vectors.lengthen(len(read))
        held = [len(blob) // 4 for blob in terms]
        often = np.frombuffer(b"".join(counts), dtype="<u2")
        weights = often / (often + np.repeat(_slow(lengths), held))
        stems = np.frombuffer(b"".join(terms), dtype="<u4")
        return stems, np.repeat(rows.astype(np.int32), held), often, weights.astype(np.float32)

    def _add_vectors(self, read: Sequence[tuple[int, int, bytes]], placed: Mapping[int, int]) -> None:
        parts, embedders, blobs = zip(*read, strict=True)
        rows = np.array([placed.get(part, -1) for part in parts])
        old = rows < 0
        if old.any():
            rows[old] = places_of(np.array(parts)[old], self._parts.values, self._live)
        for embedder in set(embedders):
            these = [i for i, each in enumerate(embedders) if each == embedder]
            identity = self._embedders[embedder]
            if identity not in self._vectors:
                self._vectors[identity] = Vectors(len(blobs[these[0]]) // 4, len(self._live))
            self._vectors[identity].add(rows[these], [blobs[i] for i in these])

    # --- what is found on it

    def search(self, connection: sqlite3.Connection, probe: Probe) -> Found:
        """The pool of a question; see `VectorIndex.match`."""
        about = self._about = self._about or self._look_over()
        held = self._postings.of(probe.terms)
        whole = about.total == len(self._live)
        frequencies = (len(rows) if whole else int(np.count_nonzero(self._live[rows])) for rows, _, _ in held)
        corpus = Statistics(about.total, about.average_length, tuple(frequencies))
        allowed = self._allowed(connection, probe.where)
        chosen = [self._by_words(probe, held, corpus, allowed), *self._by_meaning(probe, allowed)]
        rows = self._with_neighbours(np.unique(np.concatenate(chosen)), allowed)
        return Found(
            self._parts.values[rows].tolist(),
            (self._cosines(probe, rows), _counts(rows, held), *self._columns(rows)),
            corpus,
            about.speakers,
            about.embedders,
        )

    def _cosines(self, probe: Probe, rows: Numbers) -> list[float]:
        cosines = np.full(len(rows), np.nan)
        for identity, vector in probe.vectors:
            if identity in self._vectors:
                lacking = np.isnan(cosines)
                cosines[lacking] = self._vectors[identity].cosines(rows[lacking], vector)
        return cosines.tolist()

    def _columns(self, rows: Numbers) -> Iterator[list[Any]]:
        threads, positions = np.divmod(self._places.values[rows], _SPAN)
        yield self._lengths.values[rows].tolist()
        yield self._tokens.values[rows].tolist()
        yield [self._thread_names.names[thread] if thread >= 0 else "" for thread in threads.tolist()]
        yield np.where(threads >= 0, positions, 0).tolist()
        yield [self._speaker_names.names[speaker] for speaker in self._speakers.values[rows].tolist()]
        yield [EPOCH + since for since in self._times.values[rows].view("m8[us]").tolist()]
        yield self._telling.values[rows].tolist()
        yield self._importance.values[rows].tolist()

    def _by_words(self, probe: Probe, held: Sequence[Held], corpus: Statistics, allowed: Flags) -> Numbers:
        weighed = dict(zip(probe.terms, zip(held, ranking.idf(corpus).tolist(), strict=True), strict=True))
        rows = [rows for (rows, _, _), _ in weighed.values()]
        scores = [rarity * weights for (_, _, weights), rarity in weighed.values()]
        if not rows:
            return np.empty(0, np.int64)
        total = np.bincount(np.concatenate(rows), np.concatenate(scores), len(self._live))
        found = np.flatnonzero((total > 0) & allowed)
        return found[best(total[found], self._parts.values[found], probe.limit)]

    def _by_meaning(self, probe: Probe, allowed: Flags) -> Iterator[Numbers]:
        for identity, vector in probe.vectors:
            if identity in self._vectors:
                vectors = self._vectors[identity]
                yield vectors.nearest(vector, allowed, self._parts.values, probe.limit)
                allowed = allowed & ~vectors.held  # a text is compared by the first vector it has

    def _with_neighbours(self, rows: Numbers, allowed: Flags) -> Numbers:
        places = self._places.values[rows]
        near = (places[places >= 0, None] + _NEAR).ravel().tolist()
        found = {row for row in map(self._at.get, near) if row is not None}
        beside = np.fromiter(found, np.int64, len(found))
        return np.union1d(rows, beside[allowed[beside]])

    def _allowed(self, connection: sqlite3.Connection, where: Where) -> Flags:
        """Which rows a condition allows."""
        allowed = self._live.copy()
        if where.ids is not None:
            names = {"pk": self.corpus.pk, "ids": json.dumps(where.ids)}
            named = [pk for (pk,) in connection.execute(SQL["named"], names)]
            allowed &= np.isin(self._records.values, named)
        if where.session_id is not None:
            allowed &= self._places.values // _SPAN == self._thread_names.get(f"s{where.session_id}", -2)
        if where.source is not None:
            allowed &= self._sources.values == self._source_names.get(where.source, -2)
        if where.since is not None:
            allowed &= self._times.values >= to_micros(where.since)
        if where.until is not None:
            allowed &= self._times.values < to_micros(where.until)
        if where.filter is not None:
            self._read_metadata(connection)
            allowed = self._metadata.fitting(where.filter, allowed)
        return allowed

    def _read_metadata(self, connection: sqlite3.Connection) -> None:
        records: list[int] = self._records.values[self._metadata.rows :].tolist()
        for start in range(0, len(records), _CHUNK):
            chunk = records[start : start + _CHUNK]
            texts: dict[int, str] = dict(connection.execute(SQL["metadata"], {"pks": json.dumps(chunk)}).fetchall())
            self._metadata.extend(texts.get(record) or "{}" for record in chunk)  # of some there is no record any more
        if records:
            self._weigh()

    def _look_over(self) -> _About:
        live, total = self._live, int(np.count_nonzero(self._live))
        lengths = int(self._lengths.values[live].sum())
        codes: list[int] = np.unique(self._speakers.values[live]).tolist()
        speakers = {self._speaker_names.names[code] for code in codes} - {""}
        embedders = sorted(name for name, vectors in self._vectors.items() if (vectors.held & live).any())
        return _About(total, lengths / total if total else 0.0, tuple(sorted(speakers)[:_SPEAKERS]), tuple(embedders))


def _counts(rows: Numbers, held: Sequence[Held]) -> list[tuple[int, ...]]:
    """How often each term stands in each of some rows."""
    found = np.zeros((len(rows), len(held)), np.int64)
    wanted = rows.astype(np.int32)
    for i, (holders, counts, _) in enumerate(held):
        if len(holders):
            places = np.minimum(np.searchsorted(holders, wanted), len(holders) - 1)
            found[:, i] = np.where(holders[places] == wanted, counts[places], 0)
    return list(map(tuple, found.tolist()))


def _slow(lengths: Sequence[int]) -> Scores:
    """How slowly repeated words count, by the number of words: a term weighs count / (count + this)."""
    distinct, places = np.unique(np.array(lengths), return_inverse=True)
    once = np.array([lexicon.weights((1,), length)[0] for length in distinct.tolist()])
    return (1 / once - 1)[places]


def _read(
    connection: sqlite3.Connection, statement: str, names: Mapping[str, Any], size: int
) -> Iterator[list[tuple[Any, ...]]]:
    rows = connection.execute(SQL[statement], names)
    while chunk := rows.fetchmany(size):
        yield chunk
