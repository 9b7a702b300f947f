"""The shelves of those users who searched last."""

from __future__ import annotations

import json
import sqlite3
from threading import Lock

from llm_memory_plugins.stores.sqlite.corpora import SQL
from llm_memory_plugins.stores.sqlite.shelf import Shelf

_MOST = 1 << 30  # bytes


class Shelves:
    """Keeps shelves as long as all together take no more than some bytes; the one just used is always kept.

    Args:
        kept: Where they are, by user: whoever erases a user takes them out there.
        most: Bytes.
    """

    def __init__(self, kept: dict[str, Shelf], most: int = _MOST) -> None:
        self._kept = kept
        self._most = most
        self._erasures = 0  # how many there were in the file
        self._lock = Lock()

    def of(self, user_id: str) -> Shelf:
        """The shelf of a user; an empty one for who had none."""
        with self._lock:
            shelf = self._kept[user_id] = self._kept.pop(user_id, None) or Shelf()  # now the last one in order
            return shelf

    def drop(self, user_id: str) -> None:
        """Remove a user's shelf."""
        self._kept.pop(user_id, None)

    def tidy(self, connection: sqlite3.Connection, user_id: str) -> None:
        """Drop the shelves of users whom somebody has erased, and those longest unused; never this user's."""
        (erasures,) = connection.execute(SQL["erasures"]).fetchone()
        with self._lock:
            kept = list(self._kept.items())  # a copy: who erases a user waits for nobody
            if erasures != self._erasures:
                pks = json.dumps([shelf.corpus.pk for _, shelf in kept])
                there = {pk for (pk,) in connection.execute(SQL["existing"], {"pks": pks})}
                gone = {user for user, shelf in kept if shelf.corpus.pk not in there and user != user_id}
                for user in gone:
                    self._kept.pop(user, None)
                kept = [(user, shelf) for user, shelf in kept if user not in gone]
                self._erasures = erasures
            excess = sum(shelf.nbytes for _, shelf in kept) - self._most
            for user, shelf in kept:
                if excess > 0 and user != user_id:
                    self._kept.pop(user, None)
                    excess -= shelf.nbytes
