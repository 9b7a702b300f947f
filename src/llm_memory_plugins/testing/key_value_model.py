"""The `KeyValue` port in a dict: what every store is compared with, and a fake for tests of what works on one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import datetime
from itertools import count

from llm_memory_plugins.codec import dumps
from llm_memory_plugins.key_values import Newest, NewValue, Removed, SealedValue, Space, conflict, no_number
from llm_memory_plugins.values import JSON, add

_VERSIONS = count(1)  # of all models


class KeyValueModel:
    """Values by user, namespace and key. Two of them over one `entries` are two processes at one store."""

    def __init__(self, entries: dict[tuple[Space, str], SealedValue] | None = None) -> None:
        self.entries = {} if entries is None else entries

    async def read(self, space: Space, which: Sequence[str] | Newest, *, now: datetime) -> tuple[SealedValue, ...]:
        """See `KeyValue.read`."""
        await asyncio.sleep(0)
        if not isinstance(which, Newest):
            return tuple(held for key in which if (held := self._held(space, key, now)))
        newest = sorted(self._all(space, now), key=lambda held: -held.version)[: which.limit]
        before = [sum(len(held.body) for held in newest[:place]) for place in range(len(newest))]
        return tuple(held for held, size in zip(newest, before, strict=True) if size < which.size)

    async def write(self, space: Space, values: Sequence[NewValue], *, now: datetime) -> tuple[SealedValue, ...]:
        """See `KeyValue.write`."""
        await asyncio.sleep(0)
        for value in sorted(values, key=lambda value: value.key):
            held = self._held(space, value.key, now)
            if value.expected not in {None, held.version if held else 0}:
                raise conflict(value.key)
        return tuple(self._put(space, value, now) for value in values)

    async def increment(
        self, space: Space, key: str, by: float, *, now: datetime, expires_at: datetime | None = None
    ) -> SealedValue:
        """See `KeyValue.increment`."""
        await asyncio.sleep(0)
        held = self._held(space, key, now)
        if held is None:
            return self._put(space, NewValue(key, dumps(by), expires_at=expires_at), now)
        total = add(json.loads(held.body) if held.encoding == JSON else None, by)
        if total is None:
            raise no_number(key)
        return self._put(space, NewValue(key, dumps(total), expires_at=held.expires_at), now)

    async def remove(
        self, user_id: str, namespace: str | None = None, keys: Sequence[str] | None = None, *, now: datetime
    ) -> Removed:
        """See `KeyValue.remove`."""
        await asyncio.sleep(0)
        going = {
            (space, key): held
            for (space, key), held in self.entries.items()
            if space.user_id == user_id
            and (namespace is None or space.namespace == namespace)
            and (keys is None or key in keys)
        }
        for address in going:
            del self.entries[address]
        versions = {} if keys is None else {key: held.version for (_, key), held in going.items()}
        return Removed(sum(held.is_there(now) for held in going.values()), versions)

    async def keys(
        self, space: Space, *, prefix: str = "", after: str | None = None, limit: int = 1000, now: datetime
    ) -> tuple[str, ...]:
        """See `KeyValue.keys`."""
        await asyncio.sleep(0)
        found = sorted(held.key for held in self._all(space, now) if held.key.startswith(prefix))
        return tuple(key for key in found if after is None or key > after)[:limit]

    async def prune(self, now: datetime, *, user_id: str | None = None, limit: int = 10_000) -> int:
        """See `KeyValue.prune`."""
        await asyncio.sleep(0)
        expired = [
            (space, key)
            for (space, key), held in self.entries.items()
            if not held.is_there(now) and user_id in {None, space.user_id}
        ][:limit]
        for address in expired:
            del self.entries[address]
        return len(expired)

    def _held(self, space: Space, key: str, now: datetime) -> SealedValue | None:
        held = self.entries.get((space, key))
        return held if held and held.is_there(now) else None

    def _all(self, space: Space, now: datetime) -> list[SealedValue]:
        return [held for (where, _), held in self.entries.items() if where == space and held.is_there(now)]

    def _put(self, space: Space, value: NewValue, now: datetime) -> SealedValue:
        held = self._held(space, value.key, now)
        created = held.created_at if held else now
        made = SealedValue(value.key, value.body, value.encoding, next(_VERSIONS), created, now, value.expires_at)
        self.entries[space, value.key] = made
        return made
