"""A `KeyValue` in front of another one: values come from hot copies while these are true.

The database is the truth and is written first. Versions decide: no copy is replaced by an older one, and none is
believed here that is older than what this process has written or seen. What a failure left behind in the copies is
made good as soon as they can be reached again, or found by `sync`.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from cachetools import LRUCache, TTLCache

from llm_memory_plugins.errors import Conflict, StoreUnavailable
from llm_memory_plugins.key_values import Newest, NewValue, Removed, SealedValue, Space, SyncReport
from llm_memory_plugins.keyvalue_ports import HotValues, KeyValue
from llm_memory_plugins.stores.keyvalue_sync import Comparison
from llm_memory_plugins.stores.whole import Whole, mark_seen
from llm_memory_plugins.telemetry import logger

FILL_SECONDS = 5.0
"""A read of the database that took longer is not put into the copies: what forbids it there lives twice as long."""

_REMEMBERED = 10_000  # keys whose newest known version is kept
_ANY = 0  # the version of what is dropped when it is not known
_NONE = 2**63  # no copy is as new as that

Address = tuple[Space, str]
Found = dict[str, SealedValue]


class CachedKeyValue:
    """Writes through to `hot` after each commit and reads from it."""

    def __init__(self, store: KeyValue, hot: HotValues) -> None:
        self._store = store
        self._hot = hot
        self._floor = LRUCache[Address, int](_REMEMBERED)  # the lowest version a copy may have
        # Of copies that a write or removal did not reach, for longer than they may live, whatever comes between.
        self._behind = TTLCache[Address, int](1_000_000, 86_400)
        self._owed = LRUCache[Address, int](_REMEMBERED)  # copies up to a version that have still to go
        self._whole = Whole()  # what is committed reaches the copies too, even when the caller is cancelled
        self._reading: dict[Address, asyncio.Task[Found]] = {}

    async def read(self, space: Space, which: Sequence[str] | Newest, *, now: datetime) -> tuple[SealedValue, ...]:
        """See `KeyValue.read`. Those written last are asked of the database.

        Each entry is true at some moment since the call began; where some have copies and some have none, not all of
        them need be so at the same moment.
        """
        if isinstance(which, Newest):
            return await self._store.read(space, which, now=now)
        reached = True
        copies: Mapping[str, SealedValue] = {}
        try:
            copies = await self._hot.read(space, which)
        except StoreUnavailable:  # it says so in the engine's health
            reached = False
        found = [copy for copy in copies.values() if self._believes(space, copy) and copy.is_there(now)]
        if len(found) < len(which):
            have = {copy.key for copy in found}
            missing = [key for key in which if key not in have]
            fetched = await self._fetch(space, missing, now, fill=reached)
            found += [value for value in fetched.values() if value.is_there(now)]
        return tuple(found)

    async def write(self, space: Space, values: Sequence[NewValue], *, now: datetime) -> tuple[SealedValue, ...]:
        """See `KeyValue.write`."""
        return await self._whole.run(self._write(space, values, now))

    async def _write(self, space: Space, values: Sequence[NewValue], now: datetime) -> tuple[SealedValue, ...]:
        try:
            written = await self._store.write(space, values, now=now)
        except Conflict:
            await self._renew(space, [value.key for value in values if value.expected is not None], now)
            raise
        await self._push(space, written, now)
        return written

    async def _renew(self, space: Space, keys: Sequence[str], now: datetime) -> None:
        """Bring copies up to date that may have misled a writer, so that the next try does better."""
        found = await self._fetch(space, keys, now, fill=True)
        if gone := dict.fromkeys(set(keys) - found.keys(), _ANY):
            await self._drop(space, gone)

    async def increment(
        self, space: Space, key: str, by: float, *, now: datetime, expires_at: datetime | None = None
    ) -> SealedValue:
        """See `KeyValue.increment`."""
        return await self._whole.run(self._increment(space, key, by, now, expires_at))

    async def _increment(
        self, space: Space, key: str, by: float, now: datetime, expires_at: datetime | None
    ) -> SealedValue:
        written = await self._store.increment(space, key, by, now=now, expires_at=expires_at)
        await self._push(space, (written,), now)
        return written

    async def remove(
        self, user_id: str, namespace: str | None = None, keys: Sequence[str] | None = None, *, now: datetime
    ) -> Removed:
        """See `KeyValue.remove`. To remove a whole namespace, or all of a user's, is to erase: everywhere or an error.

        Raises:
            StoreUnavailable: When the database cannot be reached; or, for an erasure, the copies. The same call again
                completes it.
        """
        if namespace is not None and keys is not None:
            return await self._whole.run(self._remove(Space(user_id, namespace), keys, now))
        return await self._whole.run(self._erase(user_id, namespace, now))

    async def _remove(self, space: Space, keys: Sequence[str], now: datetime) -> Removed:
        removed = await self._store.remove(*space, keys, now=now)
        self._raise_floor(space, {key: version + 1 for key, version in removed.versions.items()})
        await self._drop(space, {key: removed.versions.get(key, _ANY) for key in keys})
        return removed

    async def _erase(self, user_id: str, namespace: str | None, now: datetime) -> Removed:
        await self._hot.forget(user_id)  # first: when that fails, nothing has gone yet
        removed = await self._store.remove(user_id, namespace, now=now)
        await self._hot.forget(user_id)  # a reader may have refilled one meanwhile
        return removed

    async def keys(
        self, space: Space, *, prefix: str = "", after: str | None = None, limit: int = 1000, now: datetime
    ) -> tuple[str, ...]:
        """See `KeyValue.keys`."""
        return await self._store.keys(space, prefix=prefix, after=after, limit=limit, now=now)

    async def prune(self, now: datetime, *, user_id: str | None = None, limit: int = 10_000) -> int:
        """See `KeyValue.prune`. Copies end by themselves."""
        return await self._store.prune(now, user_id=user_id, limit=limit)

    async def sync(self, space: Space, *, now: datetime, limit: int | None = None) -> SyncReport:
        """Compare a namespace with its copies and repair what differs.

        Args:
            space: Which.
            now: The time.
            limit: Keys at most, on either side.

        Raises:
            StoreUnavailable: When one of the two cannot be reached.
        """
        await self._pay()
        return await Comparison(self._store, self._hot, space, now).run(limit)

    # --- writing the copies

    async def _push(self, space: Space, written: Sequence[SealedValue], now: datetime) -> None:
        versions = {value.key: value.version for value in written}
        self._raise_floor(space, versions)  # before anything can be cancelled: it tells that a push was lost
        try:
            await self._hot.put(space, written, written=True, now=now)
        except StoreUnavailable as error:  # the values are durable; the copy is only speed
            self._fell_behind(space, versions, versions, error)
            return
        for key in versions:
            self._behind.pop((space, key), None)
        await self._pay_if_possible()

    async def _drop(self, space: Space, versions: Mapping[str, int]) -> None:
        try:
            await self._hot.drop(space, versions)
        except StoreUnavailable as error:
            lowest = {key: _NONE if version == _ANY else version + 1 for key, version in versions.items()}
            self._fell_behind(space, lowest, versions, error)
            return
        await self._pay_if_possible()

    def _fell_behind(
        self, space: Space, lowest: Mapping[str, int], owed: Mapping[str, int], error: StoreUnavailable
    ) -> None:
        """Remember which versions copies must have to be believed, and up to which they have still to go."""
        logger.warning("the hot copies did not follow a write: %s", error)
        for key, version in lowest.items():
            self._behind[space, key] = version
            self._owed[space, key] = owed[key]

    async def _pay_if_possible(self) -> None:
        try:
            await self._pay()
        except StoreUnavailable as error:
            logger.warning("hot copies that are behind could not be dropped: %s", error)

    async def _pay(self) -> None:
        """Drop the copies that failures left behind."""
        by_space: dict[Space, dict[str, int]] = defaultdict(dict)
        for (space, key), version in self._owed.items():
            by_space[space][key] = version
        for space, versions in by_space.items():
            await self._hot.drop(space, versions)
            for key in versions:
                self._owed.pop((space, key), None)
                self._behind.pop((space, key), None)

    # --- reading the database

    def _believes(self, space: Space, copy: SealedValue) -> bool:
        """Whether a copy is at least as new as anything known here; that it was seen is known from now on."""
        address = (space, copy.key)
        floor = self._floor.get(address, 0)
        if copy.version < max(floor, self._behind.get(address, 0) if self._behind else 0):
            return False
        if copy.version > floor:
            self._floor[address] = copy.version
        return True

    def _raise_floor(self, space: Space, versions: Mapping[str, int]) -> None:
        for key, version in versions.items():
            address = (space, key)
            if version > self._floor.get(address, 0):
                self._floor[address] = version

    async def _fetch(self, space: Space, keys: Sequence[str], now: datetime, *, fill: bool) -> Found:
        """Read the database: of all who wait for a key one does."""
        under_way = {key: task for key in keys if (task := self._reading.get((space, key))) and not task.done()}
        fresh = [key for key in keys if key not in under_way]
        if fresh:
            under_way |= dict.fromkeys(fresh, self._start(space, fresh, now, fill))
        found = await _results(under_way)
        # One that was under way may have begun before what this process knows by now.
        behind = [
            key
            for key in keys
            if key not in fresh and (found[key].version if key in found else 0) < self._floor.get((space, key), 0)
        ]
        if behind:
            for key in behind:
                found.pop(key, None)
            found |= await _results(dict.fromkeys(behind, self._start(space, behind, now, fill)))
        return found

    def _start(self, space: Space, keys: Sequence[str], now: datetime, fill: bool) -> asyncio.Task[Found]:
        task = asyncio.create_task(self._read_and_fill(space, keys, now, fill))
        for key in keys:
            self._reading[space, key] = task
        task.add_done_callback(lambda done: self._ended(space, keys, done))
        return task

    def _ended(self, space: Space, keys: Sequence[str], task: asyncio.Task[Found]) -> None:
        for key in keys:
            if self._reading.get((space, key)) is task:
                del self._reading[space, key]
        mark_seen(task)

    async def _read_and_fill(self, space: Space, keys: Sequence[str], now: datetime, fill: bool) -> Found:
        started = time.monotonic()
        read = await self._store.read(space, keys, now=now)
        newest = [value for value in read if value.version >= self._floor.get((space, value.key), 0)]
        self._raise_floor(space, {value.key: value.version for value in newest})
        if newest and fill and time.monotonic() - started <= FILL_SECONDS:
            try:
                await self._hot.put(space, newest, written=False, now=now)
            except StoreUnavailable as error:
                logger.warning("the hot copies were not filled: %s", error)
        return {value.key: value for value in read}


async def _results(tasks: Mapping[str, asyncio.Task[Found]]) -> Found:
    """Of each key, what its task has found of it; whoever stops waiting stops nobody else."""
    done = {task: await asyncio.shield(task) for task in dict.fromkeys(tasks.values())}
    return {key: done[task][key] for key, task in tasks.items() if key in done[task]}
