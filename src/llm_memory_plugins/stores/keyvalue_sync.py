"""Comparing the values of a namespace with their hot copies, both ways, and repairing what differs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Literal

from llm_memory_plugins.key_values import SealedValue, Space, SyncReport
from llm_memory_plugins.keyvalue_ports import HotValues, KeyValue

_PAGE = 500
_NAMED = 100
_SETTLE_SECONDS = 0.05
"""Then a write whose copy was on its way has arrived: it is no difference."""

Kind = Literal["missing", "stale", "deleted"]


class Comparison:
    """One run over a namespace."""

    def __init__(self, store: KeyValue, hot: HotValues, space: Space, now: datetime) -> None:
        self._store = store
        self._hot = hot
        self._space = space
        self._now = now
        self._counts: dict[Kind, int] = {"missing": 0, "stale": 0, "deleted": 0}
        self._named: list[str] = []

    async def run(self, limit: int | None) -> SyncReport:
        """Compare what the database has with its copies, then what copies there are with the database.

        Args:
            limit: Keys at most, on either side. None: all of them.
        """
        complete, checked = True, 0
        for pages in (self._entries(), self._hot.keys(self._space)):
            done = 0
            async for keys in pages:
                if limit is not None and done >= limit:
                    complete = False
                    break
                await self._repair(keys)
                done += len(keys)
            checked = max(checked, done)
        return SyncReport(checked=checked, **self._counts, differing=tuple(self._named), complete=complete)

    async def _entries(self) -> AsyncIterator[Sequence[str]]:
        after: str | None = None
        while page := await self._store.keys(self._space, after=after, limit=_PAGE, now=self._now):
            yield page
            after = page[-1]

    async def _repair(self, keys: Sequence[str]) -> None:
        if not (suspects := await self._differing(keys)):
            return
        await asyncio.sleep(_SETTLE_SECONDS)
        differing = await self._differing([*suspects])
        for kind, _ in differing.values():
            self._counts[kind] += 1
        self._named += [*differing][: max(0, _NAMED - len(self._named))]
        if renewed := [entry for _, entry in differing.values() if entry is not None]:
            await self._hot.put(self._space, renewed, written=False, now=self._now)
        if gone := {key: 0 for key, (_, entry) in differing.items() if entry is None}:
            await self._hot.drop(self._space, gone)

    async def _differing(self, keys: Sequence[str]) -> dict[str, tuple[Kind, SealedValue | None]]:
        """How copies differ from their entries, and the entries that should replace them."""
        copies = await self._hot.read(self._space, keys)  # before the entries, which then cannot be older
        entries = {value.key: value for value in await self._store.read(self._space, keys, now=self._now)}
        differing: dict[str, tuple[Kind, SealedValue | None]] = {}
        for key in keys:
            copy, entry = copies.get(key), entries.get(key)
            if entry is None:
                if copy is not None:
                    differing[key] = ("deleted", None)
            elif copy is None:
                differing[key] = ("missing", entry)
            elif copy != entry:  # from before the database was restored, when it is the newer one
                differing[key] = ("stale", entry if copy.version <= entry.version else None)
        return differing
