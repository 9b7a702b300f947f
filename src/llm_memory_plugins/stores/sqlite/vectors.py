"""The vectors of one embedder in memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm_memory_plugins.stores.sqlite.arrays import Column, Flags, Numbers, Scores, best

_FEW = 0.25
"""Where fewer of the vectors are asked, they are picked out first."""
_STRETCH = 256
_ROUNDING = 1e-5
"""By how much a product of matrices may be off."""


class Vectors:
    """A matrix that grows at its end, in whatever order vectors come, and to which rows of the shelf they belong.

    Args:
        dimensions: Of a vector.
        rows: How many rows the shelf has, none with a vector yet.
    """

    def __init__(self, dimensions: int, rows: int) -> None:
        self._matrix = Column(np.float32, dimensions, room=rows + rows // 8 + 1024)
        self._rows = Column(np.int64)
        self._places = Column(np.int64)  # of each row of the shelf in the matrix, -1 for none
        self.lengthen(rows)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._matrix.nbytes + self._rows.nbytes + self._places.nbytes

    @property
    def held(self) -> Flags:
        """Which rows of the shelf have a vector."""
        return self._places.values >= 0

    def lengthen(self, rows: int) -> None:
        """The shelf has so many rows more."""
        self._places.extend(np.full(rows, -1))

    def add(self, rows: Numbers, blobs: Sequence[bytes]) -> None:
        """Add the vectors of some rows."""
        first = len(self._rows.values)
        self._matrix.extend(np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), -1))
        self._rows.extend(rows)
        self._places.values[rows] = np.arange(first, first + len(rows))

    def nearest(self, vector: NDArray[np.float32], allowed: Flags, ages: Numbers, limit: int) -> Numbers:
        """The rows with the highest products, out of those that are allowed; of equal ones the lowest ages."""
        matrix, rows = self._matrix.values, self._rows.values
        places = np.flatnonzero(allowed[rows])
        few = len(places) < _FEW * len(rows)
        products = matrix[places] @ vector if few else (matrix @ vector)[places]
        if len(places) > limit:
            # Equal vectors may get unequal products here, by their places in the matrix.
            worst = np.partition(products, len(products) - limit)[len(products) - limit]
            places = places[np.flatnonzero(products >= worst - _ROUNDING)]
        return rows[places][best(self._products(places, vector), ages[rows[places]], limit)]

    def cosines(self, rows: Numbers, vector: NDArray[np.float32]) -> Scores:
        """The products of a vector with those of some rows; NaN where there is none."""
        places = self._places.values[rows]
        found = np.full(len(rows), np.nan)
        found[places >= 0] = self._products(places[places >= 0], vector)
        return found

    def _products(self, places: Numbers, vector: NDArray[np.float32]) -> Scores:
        """One by one: equal vectors have equal products. In stretches whose copies stay in the processor's cache."""
        matrix, found = self._matrix.values, np.empty(len(places))
        for start in range(0, len(places), _STRETCH):
            some = places[start : start + _STRETCH]
            found[start : start + _STRETCH] = (matrix[some] * vector).sum(axis=1)
        return found
