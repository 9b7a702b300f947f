"""Arrays that grow, and finding things in arrays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Numbers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Scores = NDArray[np.float64]


class Column:
    """An array that grows at its end, seldom by copying it.

    Args:
        dtype: Of its values.
        width: Of its rows; None for single values.
        room: For how many there is room from the start. What is not used costs no memory.
    """

    def __init__(self, dtype: DTypeLike, width: int | None = None, room: int = 0) -> None:
        self._room: NDArray[Any] = np.empty((room,) if width is None else (room, width), dtype)
        self._size = 0

    @property
    def values(self) -> NDArray[Any]:
        """What is in it; stays the same array when more is added."""
        return self._room[: self._size]

    @property
    def nbytes(self) -> int:
        """Bytes in use: what is kept free at the end has never been touched."""
        return self.values.nbytes

    def extend(self, values: Any) -> None:
        """Add values at the end."""
        size = self._size + len(values)
        if size > len(self._room):
            room = np.empty((max(size, 2 * len(self._room), 1024), *self._room.shape[1:]), self._room.dtype)
            room[: self._size] = self.values
            self._room = room
        self._room[self._size : size] = values
        self._size = size


class Names(dict[str | None, int]):
    """Texts by numbers, from 0 on; -1 for None."""

    def __init__(self) -> None:
        super().__init__({None: -1})
        self.names: list[str] = []

    def codes(self, texts: Iterable[str | None]) -> list[int]:
        """The numbers of texts, new ones for new texts."""
        found: list[int] = []
        for text in texts:
            code = self.get(text)
            if code is None:
                assert text is not None  # noqa: S101 - None has a number
                code = self[text] = len(self.names)
                self.names.append(text)
            found.append(code)
        return found


def best(scores: NDArray[Any], ages: Numbers, limit: int) -> Numbers:
    """Where the highest scores are, highest first; of equal ones those of the lowest age are taken."""
    if len(scores) > limit:
        worst = np.partition(scores, len(scores) - limit)[len(scores) - limit]
        places = np.flatnonzero(scores >= worst)
    else:
        places = np.arange(len(scores))
    return places[np.lexsort((ages[places], -scores[places]))[:limit]]


def places_of(wanted: Numbers, column: Numbers, among: Flags) -> Numbers:
    """Where in a column each wanted number stands, among some of its places; -1 for those that are not there."""
    distinct, which = np.unique(wanted, return_inverse=True)
    found = np.full(len(distinct), -1)
    if len(distinct):
        ranks = np.minimum(np.searchsorted(distinct, column), len(distinct) - 1)
        places = np.flatnonzero((distinct[ranks] == column) & among)
        found[ranks[places]] = places
    return found[which]
