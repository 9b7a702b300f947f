"""How many of the nearest texts every `VectorIndex` must find, whatever else it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from llm_memory_plugins import filters
from llm_memory_plugins.records import Entry, Where
from llm_memory_plugins.testing.vector_entries import TOLERANCE, Index, VectorSuite, entry, ids, part, probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

K = 10
LEAST = 0.99
"""Share of the nearest that is to be found."""
QUESTIONS = 10
PERCENT = Where(filter=filters.parse({"percent": 7}))


class VectorRecallSuite(VectorSuite):
    """Recall against exact search, of small tenants beside large ones, and where a filter leaves one in a hundred.

    Attributes:
        tenants: How many records each has.
    """

    tenants: tuple[int, ...] = (10, 100, 1_000, 10_000)

    async def test_the_nearest_are_found(self, index: Index) -> None:
        held = {size: _scattered(size) for size in self.tenants}
        for size, (entries, _) in held.items():
            for start in range(0, size, 1000):
                await index.put(f"tenant {size}", entries[start : start + 1000])
        for size, (_, vectors) in held.items():
            assert await _recall(index, size, Where(), vectors, np.ones(size, dtype=np.bool_)) >= LEAST
            assert await _recall(index, size, PERCENT, vectors, np.arange(size) % 100 == 7) >= LEAST

    async def test_a_batch_of_long_vectors_as_engines_write_it(self, index: Index) -> None:
        name = "test/long/1536"
        await index.put("u", [entry(f"text {n}", id=str(n), embedder=name) for n in range(256)])
        for n in (0, 100, 255):
            (row,) = (await index.match("u", probe(near=f"text {n}", by=(name,), limit=1))).rows
            assert row.record == str(n)
            assert row.cosine == pytest.approx(1.0, abs=TOLERANCE)


async def _recall(
    index: Index, size: int, where: Where, vectors: NDArray[np.float32], allowed: NDArray[np.bool_]
) -> float:
    """Share of the nearest that are among what is found, over some questions."""
    hits, wanted = 0, 0
    for question in range(QUESTIONS):
        asked = probe(near=f"question {question}", where=where, limit=K)
        cosines = np.where(allowed, vectors @ asked.vectors[0][1], -np.inf)
        nearest = {str(n) for n in np.argsort(-cosines)[: min(K, int(allowed.sum()))]}
        found = await ids(index, f"tenant {size}", asked)
        assert len(found) == len(nearest)
        hits += len(nearest.intersection(found))
        wanted += len(nearest)
    return hits / max(wanted, 1)


def _scattered(size: int) -> tuple[list[Entry], NDArray[np.float32]]:
    """Records whose vectors lie anywhere, and these; of a hundred records one is of each percent."""
    vectors = np.random.default_rng(size).standard_normal((size, 24)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [f"w{n} w" for n in range(1000)]
    made = [
        entry(texts[n % 1000], id=str(n), parts=[part(texts[n % 1000], vector=vector)], metadata={"percent": n % 100})
        for n, vector in enumerate(vectors)
    ]
    return made, vectors
