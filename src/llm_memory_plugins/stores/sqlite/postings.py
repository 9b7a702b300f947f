"""An inverted index in memory: which rows hold a term, how often, and what that weighs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llm_memory_plugins.stores.sqlite.arrays import Numbers

Held = tuple[NDArray[np.int32], NDArray[np.uint16], NDArray[np.float32]]
"""Rows that hold a term, ascending, how often each does, and the weight of the term there."""

_NONE: Held = np.empty(0, np.int32), np.empty(0, np.uint16), np.empty(0, np.float32)


class Postings:
    """Runs of postings, each at least twice as long as the next: what is added is short, and merged in time.

    So adding costs a logarithm of all there is, on average, and looking up one look into each of a few runs
    (the logarithmic method of Bentley & Saxe, Decomposable searching problems, 1980).
    """

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(run.nbytes for run in self._runs)

    def add(self, terms: NDArray[np.uint32], held: Held) -> None:
        """Add postings of rows behind all others: in row i of those held stands term i."""
        if not len(terms):
            return
        self._runs.append(_Run(terms, held))
        while len(self._runs) > 1 and self._runs[-2].size < 2 * self._runs[-1].size:
            last, before = self._runs.pop(), self._runs.pop()
            self._runs.append(_Run(np.concatenate([before.terms(), last.terms()]), _joined([before.held, last.held])))

    def of(self, terms: Sequence[int]) -> list[Held]:
        """What there is of each of some terms."""
        wanted = np.array(terms, dtype=np.uint32)
        found = [run.of(wanted) for run in self._runs]
        return [_joined([held[i] for held in found if i in held]) for i in range(len(terms))]


def _joined(pieces: list[Held]) -> Held:
    if len(pieces) < 2:
        return pieces[0] if pieces else _NONE
    rows, counts, weights = zip(*pieces, strict=True)
    return np.concatenate(rows), np.concatenate(counts), np.concatenate(weights)


class _Run:
    """Postings by term: those of the i-th one are from `starts[i]` up to `starts[i + 1]`."""

    def __init__(self, terms: NDArray[np.uint32], held: Held) -> None:
        # One sort of plain numbers, several times as fast as sorting stably by term.
        keys = terms.astype(np.uint64)
        keys <<= np.uint64(32)
        keys |= np.arange(len(terms), dtype=np.uint64)
        keys.sort()
        ranked = (keys >> np.uint64(32)).astype(np.uint32)
        order = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        first = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        self._distinct = ranked[first]
        self._starts: Numbers = np.r_[first, len(ranked)]
        rows, counts, weights = held
        self.held: Held = rows[order], counts[order], weights[order]

    @property
    def size(self) -> int:
        return len(self.held[0])

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in (self._distinct, self._starts, *self.held))

    def terms(self) -> NDArray[np.uint32]:
        """Of each posting."""
        return np.repeat(self._distinct, np.diff(self._starts))

    def of(self, wanted: NDArray[np.uint32]) -> dict[int, Held]:
        """What there is of the terms that are wanted, by their places."""
        places = np.minimum(np.searchsorted(self._distinct, wanted), len(self._distinct) - 1)
        found: dict[int, Held] = {}
        rows, counts, weights = self.held
        for i in np.flatnonzero(self._distinct[places] == wanted).tolist():
            stretch = slice(self._starts[places[i]], self._starts[places[i] + 1])
            found[i] = rows[stretch], counts[stretch], weights[stretch]
        return found
