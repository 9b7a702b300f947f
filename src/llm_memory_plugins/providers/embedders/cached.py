"""An embedder in front of another one that pays once for the same text."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING

from cachetools import LRUCache

from llm_memory_plugins.errors import ModelError
from llm_memory_plugins.ports import Embedder, EmbeddingKind
from llm_memory_plugins.types import Usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Row = NDArray[np.float32]  # shape (dimensions,)


class CachedEmbedder:
    """An `Embedder` that remembers vectors by the hash of identity, kind and text, in process.

    Calls for a text that another call is being charged for wait for that one. A call that is cancelled meanwhile does
    not stop what others wait for. A failure reaches all who wait and is not remembered.

    Args:
        inner: The embedder that is paid. It is opened and closed with this one, where it can be.
        entries: Vectors remembered at most, the least recently used go first. Each takes 4 bytes a dimension: 50 MB
            for 8,192 of 1,536.

    Attributes:
        usage: What all calls so far have cost.
        hits: Texts that were answered without being paid for.
        misses: Texts that were paid for, or would have been had the call not failed.
    """

    def __init__(self, inner: Embedder, *, entries: int = 8192) -> None:
        self.usage = Usage()
        self.hits = 0
        self.misses = 0
        self._inner = inner
        self._opened = False
        self._rows: LRUCache[bytes, Row] = LRUCache(entries)
        self._flights: dict[bytes, asyncio.Task[dict[bytes, Row]]] = {}

    def __repr__(self) -> str:
        return f"CachedEmbedder({self._inner!r})"

    @property
    def identity(self) -> str:
        """As of the inner one, whose vectors these are."""
        return self._inner.identity

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        return self._inner.dimensions

    @property
    def max_tokens(self) -> int | None:
        """The window of the inner one."""
        return self._inner.max_tokens

    async def open(self) -> None:
        """Open the inner one. Idempotent. Raises `ModelError`."""
        if not self._opened and (verb := getattr(self._inner, "open", None)):
            await verb()
        self._opened = True

    async def ping(self) -> None:
        """Ping the inner one. Raises `ModelError`."""
        if verb := getattr(self._inner, "ping", None):
            await verb()

    async def close(self) -> None:
        """Stop what is under way, forget everything, close the inner one."""
        flights = set(self._flights.values())
        for flight in flights:
            flight.cancel()
        if flights:
            await asyncio.wait(flights)
        self._flights.clear()
        self._rows.clear()
        self._opened = False
        if verb := getattr(self._inner, "close", None):
            await verb()

    async def embed(self, texts: Sequence[str], *, kind: EmbeddingKind) -> tuple[NDArray[np.float32], Usage]:
        """One unit vector a text, shape (number of texts, `dimensions`), and what this call was charged.

        Raises:
            InvalidInput, ModelError: As of the inner one.
        """
        import numpy as np

        if verb := getattr(self._inner, "check", None):  # so that no text of another call can fail this one
            verb(texts)
        if not texts:
            return await self._inner.embed(texts, kind=kind)
        await self.open()  # the identity may be known only then
        keys = [_key(self.identity, kind, text) for text in texts]
        rows = {key: row for key in keys if (row := self._rows.get(key)) is not None}
        awaited = {self._flights[key] for key in keys if key not in rows and key in self._flights}
        missing = {k: t for k, t in zip(keys, texts, strict=True) if k not in rows and k not in self._flights}
        self.misses += len(missing)
        self.hits += len(texts) - len(missing)
        usage = Usage()
        if missing:
            bill: list[Usage] = []
            flight = asyncio.create_task(self._pay(missing, kind, bill))
            flight.add_done_callback(_retrieved)
            self._flights.update(dict.fromkeys(missing, flight))
            rows |= await self._landed(flight)
            usage = bill[0]
        for flight in awaited:
            rows |= await self._landed(flight)
        return np.stack([rows[key] for key in keys]), usage

    async def _pay(self, missing: dict[bytes, str], kind: EmbeddingKind, bill: list[Usage]) -> dict[bytes, Row]:
        try:
            vectors, usage = await self._inner.embed(list(missing.values()), kind=kind)
            bill.append(usage)
            self.usage += usage
            # Copies, since a row of the array would keep all of it.
            rows = {key: row.copy() for key, row in zip(missing, vectors, strict=True)}
            self._rows.update(rows)
            return rows
        finally:
            for key in missing:
                self._flights.pop(key, None)

    async def _landed(self, flight: asyncio.Task[dict[bytes, Row]]) -> dict[bytes, Row]:
        """What a flight brings; who waits may be cancelled without stopping it."""
        await asyncio.wait([flight])
        if flight.cancelled():
            raise ModelError("the embedder was closed", retryable=False)
        return flight.result()


def _key(identity: str, kind: EmbeddingKind, text: str) -> bytes:
    return sha256(json.dumps([identity, kind, text]).encode()).digest()


def _retrieved(flight: asyncio.Task[dict[bytes, Row]]) -> None:
    """Look at the failure, which asyncio would report as unseen when everybody who waited was cancelled."""
    if not flight.cancelled():
        flight.exception()
