"""The `WorkingSet` port in this process: no server, gone with the process."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cachetools import LRUCache

from llm_memory_plugins.codec import loads
from llm_memory_plugins.key_values import Space
from llm_memory_plugins.ports import Clock
from llm_memory_plugins.types import Receipt
from llm_memory_plugins.working import micros, rank, refusal
from llm_memory_plugins.working_items import Draft, Rules, Snapshot, Stored, WorkingItem, WorkingStats

_LONG_AGO = datetime.min.replace(tzinfo=UTC)


class LocalWorkingSet:
    """The namespaces used last; of more than `max_namespaces` the one that was used longest ago goes whole.

    Args:
        rules: Capacity and policy.
        clock: Tells the time.
        max_namespaces: So many are kept.
    """

    def __init__(self, rules: Rules, *, clock: Clock, max_namespaces: int = 1000) -> None:
        self._rules = rules
        self._clock = clock
        self._shelves = LRUCache[Space, _Shelf](max_namespaces)

    async def put(self, space: Space, drafts: Sequence[Draft]) -> Stored:
        """See `WorkingSet.put`."""
        shelf = self._shelf(space) or _Shelf(space, self._rules)
        stored = shelf.put(drafts, self._clock())
        self._shelves[space] = shelf
        return stored

    async def use(self, space: Space, ids: Sequence[str], *, quietly: bool = False) -> tuple[WorkingItem, ...]:
        """See `WorkingSet.use`."""
        shelf, now = self._shelf(space), self._clock()
        used = [shelf.use(item_id, now) for item_id in ids if item_id in shelf.items] if shelf else []
        return () if quietly else tuple(used)

    async def read(self, space: Space) -> Snapshot:
        """See `WorkingSet.read`."""
        shelf = self._shelf(space)
        return Snapshot(shelf.all() if shelf else (), self._clock())

    async def stats(self, space: Space) -> WorkingStats:
        """See `WorkingSet.stats`."""
        shelf = self._shelf(space) or _Shelf(space, self._rules)
        return shelf.stats()

    async def delete(self, space: Space, item_id: str | None = None, *, cascade: bool = False) -> int:
        """See `WorkingSet.delete`."""
        shelf = self._shelf(space)
        if shelf is None:
            return 0
        if item_id is None:
            return len(self._shelves.pop(space).items)
        return shelf.delete(item_id, cascade)

    async def forget(self, user_id: str) -> Receipt:
        """See `WorkingSet.forget`."""
        gone = [space for space in self._shelves if space.user_id == user_id]
        return Receipt({"items": sum([await self.delete(space) for space in gone]), "namespaces": len(gone)})

    def _shelf(self, space: Space) -> _Shelf | None:
        """A namespace without what has come to its end; none that has ended itself."""
        shelf = self._shelves.get(space)
        if shelf is None:
            return None
        now = self._clock()
        if shelf.until <= now:
            del self._shelves[space]
            return None
        shelf.expire(now)
        return shelf


class _Leaves:
    """Items by a number. What is no longer so is dropped when it turns up."""

    def __init__(self) -> None:
        self._ranks: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def put(self, item_id: str, number: float) -> None:
        """Add an item, or change its number."""
        self._ranks[item_id] = number
        heapq.heappush(self._heap, (number, item_id))
        if len(self._heap) > 64 + 2 * len(self._ranks):
            self._heap = [(number, item_id) for item_id, number in self._ranks.items()]
            heapq.heapify(self._heap)

    def drop(self, item_id: str) -> None:
        """Take out an item, if it is there."""
        self._ranks.pop(item_id, None)

    def lowest(self) -> tuple[float, str] | None:
        """The lowest number and its item."""
        while self._heap and self._ranks.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0] if self._heap else None

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._ranks

    def __len__(self) -> int:
        return len(self._ranks)


class _Shelf:
    """One namespace; the same as the scripts beside `redis/working.py`."""

    def __init__(self, space: Space, rules: Rules) -> None:
        self.items: dict[str, WorkingItem] = {}
        self._space = space
        self._rules = rules
        self._contents: dict[str, str] = {}
        self._lives: dict[str, timedelta] = {}
        self._leaves, self._ends = _Leaves(), _Leaves()
        self._turn = 0
        self._evicted = Counter({"capacity": 0, "ttl": 0})
        self.until = _LONG_AGO

    def put(self, drafts: Sequence[Draft], now: datetime) -> Stored:
        if any(draft.known and draft.id not in self.items for draft in drafts):
            return Stored(())
        self._check(drafts)
        for draft in drafts:
            self._write(draft, now)
        evicted = self._make_room({draft.id for draft in drafts})
        return Stored([self._shown(draft.id) for draft in drafts], evicted)

    def use(self, item_id: str, now: datetime) -> WorkingItem:
        item = self.items[item_id]
        self._save(replace(item, uses=item.uses + 1, used_at=now, turn=self._next()))
        return self._shown(item_id)

    def all(self) -> tuple[WorkingItem, ...]:
        return tuple(self._shown(item.id) for item in sorted(self.items.values(), key=lambda item: item.seq))

    def stats(self) -> WorkingStats:
        statuses = Counter(item.status for item in self.items.values())
        return WorkingStats(
            namespace=self._space.namespace,
            user_id=self._space.user_id,
            capacity_limit=self._rules.capacity,
            eviction_policy=self._rules.policy,
            item_count=len(self.items),
            open_count=statuses["open"],
            done_count=statuses["done"],
            abandoned_count=statuses["abandoned"],
            evicted=dict(self._evicted),
            expires_at=None if self.until == _LONG_AGO else self.until,
        )

    def delete(self, item_id: str, cascade: bool) -> int:
        item = self.items.get(item_id)
        if item is None:
            return 0
        if item.children and not cascade:
            raise refusal("children")
        below: dict[str | None, list[str]] = {}
        for other in self.items.values():
            below.setdefault(other.parent_id, []).append(other.id)
        going = [item_id]
        for going_id in going:  # grows as it is walked
            going += below.get(going_id, [])
        for going_id in reversed(going):
            self._remove(going_id)
        return len(going)

    def expire(self, now: datetime) -> None:
        """Take out what has come to its end, and then what had only waited for it."""
        while (lowest := self._ends.lowest()) and lowest[0] <= micros(now):
            self._remove(lowest[1])
            self._evicted["ttl"] += 1

    def _check(self, drafts: Sequence[Draft]) -> None:
        """Whether all can be written. As in `put.lua`, only where there are few leaves one has to look closely."""
        parents: dict[str, str | None] = {}  # of the drafts, once they are written

        def chain(item_id: str | None) -> Iterator[str]:
            while item_id is not None:
                yield item_id
                item_id = parents[item_id] if item_id in parents else self.items[item_id].parent_id

        for place, draft in enumerate(drafts):
            item = self.items.get(draft.id)
            old = item.parent_id if item else None
            new = draft.fields.get("parent_id", old)
            where = f"{place}." if len(drafts) > 1 else ""
            if new != old and new not in parents and new not in self.items:
                raise refusal("parent", where)
            if new != old and item and draft.id in chain(new):
                raise refusal("cycle", where)
            parents[draft.id] = new
        fresh = sum(draft.id not in self.items for draft in drafts)
        need = len(self.items) + fresh - self._rules.capacity
        if need > max(0, len(self._leaves) - 2 * len(drafts)):
            kept = {item_id for draft in drafts for item_id in chain(draft.id)}
            if len(kept) > self._rules.capacity:
                raise refusal("full")

    def _write(self, draft: Draft, now: datetime) -> None:
        fields = draft.fields
        item = self.items.get(draft.id)
        if "ttl_seconds" in fields:
            self._lives[draft.id] = timedelta(milliseconds=max(1, round(1000 * fields["ttl_seconds"])))
        written: dict[str, Any] = {name: value for name, value in fields.items() if name != "ttl_seconds"}
        if "content" in fields:
            self._contents[draft.id] = fields["content"]
            written["content"] = loads(fields["content"])
        ends, turn = now + self._lives[draft.id], self._next()
        self.until = max(ends, self.until)
        old = item.parent_id if item else None
        item = item or WorkingItem(
            id=draft.id,
            namespace=self._space.namespace,
            user_id=self._space.user_id,
            content=None,
            created_at=now,
            updated_at=now,
            used_at=now,
            expires_at=ends,
            seq=turn,
        )
        item = replace(item, **written, updated_at=now, used_at=now, expires_at=ends, turn=turn)
        self._save(item)
        if item.parent_id != old:
            self._count_below(old, -1)
            self._count_below(item.parent_id, 1)

    def _make_room(self, batch: set[str]) -> list[str]:
        """Evict; those of the batch that would go are set aside."""
        evicted: list[str] = []
        aside: list[str] = []
        while len(self.items) > self._rules.capacity and (lowest := self._leaves.lowest()):
            item_id = lowest[1]
            if item_id in batch:
                self._leaves.drop(item_id)
                aside.append(item_id)
            else:
                self._remove(item_id)
                evicted.append(item_id)
        self._evicted["capacity"] += len(evicted)
        for item_id in aside:
            self._save(self.items[item_id])
        return evicted

    def _save(self, item: WorkingItem) -> None:
        self.items[item.id] = item
        if item.children:
            self._leaves.drop(item.id)
            self._ends.drop(item.id)
        else:
            self._leaves.put(item.id, rank(item, self._rules))
            self._ends.put(item.id, micros(item.expires_at))

    def _count_below(self, item_id: str | None, by: int) -> None:
        if item_id is not None:
            item = self.items[item_id]
            self._save(replace(item, children=item.children + by))

    def _remove(self, item_id: str) -> None:
        """Take out a leaf."""
        item = self.items.pop(item_id)
        del self._contents[item_id], self._lives[item_id]
        self._leaves.drop(item_id)
        self._ends.drop(item_id)
        self._count_below(item.parent_id, -1)

    def _next(self) -> int:
        self._turn += 1
        return self._turn

    def _shown(self, item_id: str) -> WorkingItem:
        item = self.items[item_id]
        if isinstance(item.content, str | int | float | bytes | None):
            return item
        return replace(item, content=loads(self._contents[item_id]))  # which the reader may change
