"""All that vector memory has of one user: how its rows are numbered, and how they are removed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from llm_memory_plugins.stores.sqlite.database import queries

SQL = queries("memories")
REMEMBERED = 1 << 20
"""For so many numbers of a corpus it is known which records were altered or removed."""

_BITS = 36
_TABLES: tuple[str, ...] = ("vectors", "parts", "records")
_DERIVED = ("record_changes", "corpora")

NOTHING: dict[str, int] = dict.fromkeys(_TABLES, 0)
"""Counts by table of who has nothing."""


class Corpus(NamedTuple):
    """A user's rows: the number of the whole, and the one given last to a row of it."""

    pk: int
    last: int

    @property
    def first(self) -> int:
        """The number before those of its rows."""
        return self.pk << _BITS


NOBODY = Corpus(0, 0)
"""Of who has nothing."""


def corpus_of(connection: sqlite3.Connection, user_id: str) -> Corpus | None:
    """The corpus of a user; None for who has nothing."""
    found = connection.execute(SQL["corpus"], {"user_id": user_id}).fetchone()
    return found and Corpus(*found)


def note_changes(connection: sqlite3.Connection, corpus: Corpus, records: Sequence[int]) -> Corpus:
    """Let those who keep a copy know which records are not what they were; 0 stands for all of them."""
    connection.executemany(SQL["add_change"], enumerate(records, start=corpus.last + 1))
    corpus = corpus._replace(last=corpus.last + len(records))
    connection.execute(SQL["forget_changes"], {"first": corpus.first, "last": corpus.last - REMEMBERED})
    connection.execute(SQL["count_to"], corpus._asdict())
    return corpus


def erase(connection: sqlite3.Connection, corpus: Corpus, records: Sequence[int]) -> dict[str, int]:
    """Remove some records with everything derived from them, and with the last one the corpus; counts by table."""
    names = {"pk": corpus.pk, "pks": json.dumps(records)}
    removed = {table: connection.execute(SQL[f"delete_{table}"], names).rowcount for table in _TABLES}
    if connection.execute(SQL["is_empty"], names).fetchone()[0]:
        erase_all(connection, corpus)
    elif records:
        note_changes(connection, corpus, records)
    return removed


def erase_all(connection: sqlite3.Connection, corpus: Corpus) -> dict[str, int]:
    """Remove a corpus; counts by table."""
    names = {"pk": corpus.pk, "first": corpus.first, "last": corpus.last}
    removed = {table: connection.execute(SQL[f"erase_{table}"], names).rowcount for table in (*_TABLES, *_DERIVED)}
    connection.execute(SQL["count_erasure"])
    return {table: removed[table] for table in _TABLES}


def erase_of(connection: sqlite3.Connection, user_id: str, session_id: str | None = None) -> dict[str, int]:
    """Remove what a user has, all of it or that of one session; counts by table."""
    corpus = corpus_of(connection, user_id)
    if corpus is None:
        return dict(NOTHING)
    if session_id is None:
        return erase_all(connection, corpus)
    names = {"pk": corpus.pk, "session_id": session_id}
    return erase(connection, corpus, [pk for (pk,) in connection.execute(SQL["records_of_session"], names)])
