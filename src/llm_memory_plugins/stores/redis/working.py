"""The `WorkingSet` port on Redis or Valkey: one script a verb, so that each is atomic for all processes.

A namespace is five keys of one slot: its items, as lines; their contents, which no script looks into; the leaves by
rank and by end, two sorted sets; and its counters. A sixth, shared by the namespaces of a user that fall into the same
of 64 slots, names them, so that a user can be forgotten, and a Cluster still divides the namespaces of an application
without users. Time is the server's. All keys expire with the last of their items.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from typing import Any, cast

import anyio

from llm_memory_plugins.codec import loads
from llm_memory_plugins.key_values import Space
from llm_memory_plugins.stores.redis.client import RedisClient
from llm_memory_plugins.stores.redis.script import Script, load
from llm_memory_plugins.types import Receipt
from llm_memory_plugins.working import from_micros, refusal
from llm_memory_plugins.working_items import (
    Draft,
    Fields,
    ItemStatus,
    Rules,
    Snapshot,
    Stored,
    WorkingItem,
    WorkingStats,
)

LAYOUT = 1
"""Goes up with a change of what is kept under a key, so that two versions of this package do not meet."""

_SLOTS = 64
_PUT, _USE, _READ, _STATS, _DELETE, _CLEAR = (
    load("working_common", f"working_{verb}") for verb in ("put", "use", "read", "stats", "delete", "clear")
)
_MANY = 2_000  # elements of a reply that are read on the event loop


class RedisWorkingSet:
    """Namespaces that all processes on one Redis share.

    Where two have other rules for a namespace, those of whoever comes last hold.

    Args:
        client: Where they are kept.
        rules: Capacity and policy.
        prefix: What all keys begin with.
    """

    def __init__(self, client: RedisClient, rules: Rules, *, prefix: str = "llmm:working") -> None:
        self._client = client
        self._rules = rules
        self._prefix = f"{prefix}:{LAYOUT}"

    async def put(self, space: Space, drafts: Sequence[Draft]) -> Stored:
        """See `WorkingSet.put`."""
        told = [word for draft in drafts for word in _words(draft)]
        reply = await self._run(_PUT, space, space.namespace, self._rules.capacity, *told)
        outcome = reply[0].decode()
        if outcome == "ok":
            rows = zip((draft.id for draft in drafts), reply[1][::2], reply[1][1::2], strict=True)
            return Stored([_item(space, *row) for row in rows], [gone.decode() for gone in reply[2]])
        if outcome == "gone":
            return Stored(())
        raise refusal(outcome, f"{reply[1] - 1}." if len(drafts) > 1 and len(reply) > 1 else "")

    async def use(self, space: Space, ids: Sequence[str], *, quietly: bool = False) -> tuple[WorkingItem, ...]:
        """See `WorkingSet.use`."""
        reply = await self._run(_USE, space, int(quietly), *ids)
        rows = zip(reply[::3], reply[1::3], reply[2::3], strict=True)
        return tuple(_item(space, item_id.decode(), *row) for item_id, *row in rows)

    async def read(self, space: Space) -> Snapshot:
        """See `WorkingSet.read`."""
        now, items, contents = await self._run(_READ, space)
        read = partial(_items, space, items, contents)
        return Snapshot(await anyio.to_thread.run_sync(read) if len(items) > _MANY else read(), from_micros(now))

    async def stats(self, space: Space) -> WorkingStats:
        """See `WorkingSet.stats`."""
        now, left, items, open_, done, abandoned, capacity, ttl = await self._run(_STATS, space)
        return WorkingStats(
            namespace=space.namespace,
            user_id=space.user_id,
            capacity_limit=self._rules.capacity,
            eviction_policy=self._rules.policy,
            item_count=items,
            open_count=open_,
            done_count=done,
            abandoned_count=abandoned,
            evicted={"capacity": capacity, "ttl": ttl},
            expires_at=from_micros(now) + timedelta(milliseconds=left) if left else None,
        )

    async def delete(self, space: Space, item_id: str | None = None, *, cascade: bool = False) -> int:
        """See `WorkingSet.delete`."""
        if item_id is None:
            return await self._run(_CLEAR, space, space.namespace)
        reply = await self._run(_DELETE, space, item_id, int(cascade))
        if reply[0] != b"ok":
            raise refusal(reply[0].decode())
        return reply[1]

    async def forget(self, user_id: str) -> Receipt:
        """See `WorkingSet.forget`."""
        named = await asyncio.gather(
            *(self._client.call("ZRANGE", self._names(user_id, slot), 0, -1) for slot in range(_SLOTS))
        )
        spaces = [Space(user_id, name.decode()) for names in named for name in cast("list[bytes]", names)]
        counts = await asyncio.gather(*(self.delete(space) for space in spaces))
        return Receipt({"items": sum(counts), "namespaces": len(spaces)})

    async def _run(self, script: Script, space: Space, *arguments: str | int) -> Any:
        half_life = str(round(self._rules.half_life * 1_000_000))
        return await self._client.run(script, self._keys(space), self._rules.policy, half_life, *arguments)

    def _keys(self, space: Space) -> tuple[str, ...]:
        digest = _digest(space.namespace)
        names = self._names(space.user_id, int(digest[:2], 16) % _SLOTS)
        stem = names.removesuffix("names")
        return *(f"{stem}{digest}:{part}" for part in ("items", "contents", "leaves", "ends", "counts")), names

    def _names(self, user_id: str, slot: int) -> str:
        """The key of the namespaces of a user in a slot; all their keys have these braces, and so one slot."""
        return f"{self._prefix}:{{{_digest(f'{slot}:{user_id}')}}}:names"


def _digest(text: str) -> str:
    """Keys hold no id of the caller's: any ids are allowed, and key lists and logs show none."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _words(draft: Draft) -> list[str | int]:
    """A draft as arguments of the script: `parent` and `content` it knows, the others are fields of its items."""
    fields = _fields(draft.fields)
    return [draft.id, int(draft.known), len(fields), *(word for field in fields.items() for word in field)]


def _fields(given: Fields) -> dict[str, str | int]:
    told: dict[str, str | int] = {}
    for name, value in given.items():
        if name == "ttl_seconds":
            told["life"] = 1000 * max(1, round(1000 * cast("float", value)))
        elif name == "parent_id":
            told["parent"] = cast("str", value)
        elif name == "importance":
            told[name] = repr(value)
        elif name in {"content", "status"}:
            told[name] = cast("str", value)
        else:
            told[name] = json.dumps(value)
    return told


def _items(space: Space, items: Sequence[bytes], contents: Sequence[bytes]) -> tuple[WorkingItem, ...]:
    """A whole namespace, from ids and lines, and ids and contents."""
    said = dict(zip(contents[::2], contents[1::2], strict=True))
    read = [_item(space, key.decode(), lines, said[key]) for key, lines in zip(items[::2], items[1::2], strict=True)]
    return tuple(sorted(read, key=lambda item: item.seq))


def _item(space: Space, item_id: str, lines: bytes, content: bytes) -> WorkingItem:
    importance, step, tags, status, conclusion, *numbers, parent = lines.decode().split("\n", 14)
    created, updated, used, ends, _, uses, children, seq, turn = map(int, numbers)
    return WorkingItem(
        id=item_id,
        namespace=space.namespace,
        user_id=space.user_id,
        content=loads(content.decode()),
        importance=float(importance),
        step=_value(step),
        parent_id=parent or None,
        tags=tuple(_value(tags)),
        status=cast("ItemStatus", status),
        conclusion=_value(conclusion),
        created_at=from_micros(created),
        updated_at=from_micros(updated),
        used_at=from_micros(used),
        expires_at=from_micros(ends),
        uses=uses,
        children=children,
        seq=seq,
        turn=turn,
    )


def _value(text: str) -> Any:
    return _USUAL[text] if text in _USUAL else json.loads(text)


_USUAL: dict[str, Any] = {"null": None, "[]": ()}  # most items have no step, tags or conclusion
