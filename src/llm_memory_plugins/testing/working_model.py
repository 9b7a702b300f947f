"""A namespace of working memory in a few plain loops, and a store held beside it, step by step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from llm_memory_plugins.codec import dumps, loads
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.key_values import Space
from llm_memory_plugins.ports import WorkingSet
from llm_memory_plugins.working import value
from llm_memory_plugins.working_items import Draft, Fields, Rules, WorkingItem

SPACE = Space(user_id="u", namespace="n")
NEVER = datetime.min.replace(tzinfo=UTC)


def draft(item_id: str, content: Any = "something", *, ttl: float = 3600.0, **more: Any) -> Draft:
    """A new item with all its fields, or another one in its place."""
    fields = Fields(
        content=dumps(content),
        importance=0.5,
        step=None,
        tags=(),
        status="open",
        conclusion=None,
        ttl_seconds=ttl,
    )
    return Draft(item_id, cast("Fields", {**fields, **more}))


def change(item_id: str, **fields: Any) -> Draft:
    """Some fields of an item anew."""
    return Draft(item_id, cast("Fields", fields), known=True)


class WorkingModel:
    """What must be so, found by looking at everything."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.items: dict[str, WorkingItem] = {}
        self.lives: dict[str, timedelta] = {}
        self.turn = 0
        self.evicted = {"capacity": 0, "ttl": 0}

    def expire(self, at: datetime) -> None:
        while over := [item for item in self.leaves() if item.expires_at <= at]:
            for item in over:
                self.remove(item.id)
                self.evicted["ttl"] += 1

    def put(self, drafts: Sequence[Draft], at: datetime) -> tuple[str, ...]:
        """Write all and evict; raises when that cannot be, and is no good any more then."""
        for each in drafts:
            self.write(each, at)
        batch = {each.id for each in drafts}
        evicted: list[str] = []
        while len(self.items) > self.rules.capacity:
            others = [item for item in self.leaves() if item.id not in batch]
            if not others:
                raise InvalidInput("parent_id", "full")
            evicted.append(min(others, key=lambda item: (self.worth(item, at), item.id)).id)
            self.remove(evicted[-1])
        self.evicted["capacity"] += len(evicted)
        return tuple(evicted)

    def write(self, each: Draft, at: datetime) -> None:
        fields: dict[str, Any] = {**each.fields}
        item = self.items.get(each.id)
        parent = fields.get("parent_id", item.parent_id if item else None)
        moved = parent != (item.parent_id if item else None)
        if moved and (parent not in self.items or each.id in self.above(parent)):
            raise InvalidInput("parent_id", "no place")
        if "ttl_seconds" in fields:
            self.lives[each.id] = timedelta(seconds=fields.pop("ttl_seconds"))
        if "content" in fields:
            fields["content"] = loads(fields["content"])
        self.turn += 1
        blank = WorkingItem(
            id=each.id,
            namespace=SPACE.namespace,
            user_id=SPACE.user_id,
            content=None,
            created_at=at,
            updated_at=at,
            used_at=at,
            expires_at=at,
            seq=self.turn,
        )
        ends = at + self.lives[each.id]
        self.items[each.id] = replace(
            item or blank, **fields, updated_at=at, used_at=at, expires_at=ends, turn=self.turn
        )
        self.count()

    def use(self, item_id: str, at: datetime) -> WorkingItem:
        self.turn += 1
        item = self.items[item_id]
        self.items[item_id] = replace(item, uses=item.uses + 1, used_at=at, turn=self.turn)
        return self.items[item_id]

    def delete(self, item_id: str, *, cascade: bool) -> int:
        gone = [other for other in self.items if item_id in self.above(other)]
        if len(gone) > 1 and not cascade:
            raise InvalidInput("cascade", "needed")
        for other in gone:
            del self.items[other]
        self.count()
        return len(gone)

    def above(self, item_id: str | None) -> list[str]:
        """The item and all that leads to it."""
        found: list[str] = []
        while item_id is not None:
            found.append(item_id)
            item_id = self.items[item_id].parent_id
        return found

    def leaves(self) -> list[WorkingItem]:
        return [item for item in self.items.values() if not item.children]

    def remove(self, item_id: str) -> None:
        del self.items[item_id]
        self.count()

    def count(self) -> None:
        for item in self.items.values():
            below = sum(other.parent_id == item.id for other in self.items.values())
            self.items[item.id] = replace(item, children=below)

    def worth(self, item: WorkingItem, at: datetime) -> Any:
        """What is lowest goes first; the policies in other words than in `working.rank`."""
        return {
            "importance": value(item, at, self.rules.half_life),
            "lru": item.turn,
            "lfu": (item.uses, item.turn),
            "fifo": item.seq,
            "ttl": item.expires_at,
        }[self.rules.policy]

    def all(self) -> tuple[WorkingItem, ...]:
        return tuple(sorted(self.items.values(), key=lambda item: item.seq))


class Beside:
    """A store and the model, told the same and compared after every step.

    Args:
        items: An empty store.
        rules: Which it has.
        wait: Lets so many seconds go by.
    """

    def __init__(self, items: WorkingSet, rules: Rules, wait: Callable[[float], Awaitable[None]]) -> None:
        self.items = items
        self.model = WorkingModel(rules)
        self._wait = wait

    async def put(self, *drafts: Draft) -> None:
        try:
            stored = await self.items.put(SPACE, drafts)
        except InvalidInput:
            before = self.model.items, self.model.lives, self.model.turn
            self.model.items, self.model.lives = {**before[0]}, {**before[1]}
            with pytest.raises(InvalidInput, match="parent_id"):
                self.model.put(drafts, self._now())
            self.model.items, self.model.lives, self.model.turn = before
        else:
            if stored:
                at = stored[0].updated_at
                self.model.expire(at)
                assert stored.evicted == self.model.put(drafts, at)
                assert tuple(stored) == tuple(self.model.items[each.id] for each in drafts)
            else:
                assert any(each.known and each.id not in self.model.items for each in drafts)
        await self.agree()

    async def use(self, *ids: str) -> None:
        used = await self.items.use(SPACE, ids)
        assert [item.id for item in used] == [item_id for item_id in ids if item_id in self.model.items]
        assert used == tuple(self.model.use(item.id, used[0].used_at) for item in used)
        await self.agree()

    async def delete(self, item_id: str, *, cascade: bool) -> None:
        if item_id in self.model.items and self.model.items[item_id].children and not cascade:
            with pytest.raises(InvalidInput, match="cascade"):
                await self.items.delete(SPACE, item_id)
        else:
            gone = await self.items.delete(SPACE, item_id, cascade=cascade)
            assert gone == self.model.delete(item_id, cascade=cascade)
        await self.agree()

    async def clear(self) -> None:
        assert await self.items.delete(SPACE) == len(self.model.items)
        self.model = WorkingModel(self.model.rules)
        await self.agree()

    async def wait(self, seconds: float) -> None:
        await self._wait(seconds)
        await self.agree()

    async def agree(self) -> None:
        """The store holds what the model holds, and says so in its counts."""
        snapshot = await self.items.read(SPACE)
        self.model.expire(snapshot.at)
        assert snapshot.items == self.model.all()
        assert len(snapshot.items) <= self.model.rules.capacity
        stats = await self.items.stats(SPACE)
        assert stats.item_count == len(snapshot.items)
        statuses = [item.status for item in snapshot.items]
        assert [stats.open_count, stats.done_count, stats.abandoned_count] == [
            statuses.count(status) for status in ("open", "done", "abandoned")
        ]
        assert stats.evicted == self.model.evicted

    def _now(self) -> datetime:
        """Late enough for everything there is, and early enough for nothing to end."""
        return max((item.used_at for item in self.model.items.values()), default=NEVER)
