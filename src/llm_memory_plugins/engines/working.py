"""Working memory: a scratchpad of bounded size that forgets the right things, with chains of reasoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, overload

import anyio

from llm_memory_plugins import boundary, wiring, working_boundary
from llm_memory_plugins.config import WorkingConfig
from llm_memory_plugins.context import Context
from llm_memory_plugins.engines._engine import Engine
from llm_memory_plugins.errors import InvalidInput, StoreUnavailable
from llm_memory_plugins.key_values import Space
from llm_memory_plugins.ports import Clock
from llm_memory_plugins.rendering import section
from llm_memory_plugins.telemetry import span
from llm_memory_plugins.types import Receipt
from llm_memory_plugins.wiring import WorkingPorts, now
from llm_memory_plugins.working import active_path, path
from llm_memory_plugins.working_context import SOURCE, Texts, compose
from llm_memory_plugins.working_items import Draft, ItemStatus, Stored, WorkingItem, WorkingStats

_COMPOSED_AT_ONCE = 500  # items that are looked through on the event loop: a few milliseconds


class WorkingMemory(Engine[WorkingConfig, WorkingPorts]):
    """Keeps the notes and steps of an agent at work; where a namespace is full, what is worth least goes.

    Steps form a tree by their parents. What leads to a step that stays, stays. With `redis_url` the memory is in Redis,
    shared by all processes; without it in this engine, and gone with it.

    ```python
    async with WorkingMemory({"capacity_limit": 100}) as memory:
        plan = await memory.store({"namespace": "trip", "step": "plan", "content": "find a flight, then a room"})
        await memory.store({"namespace": "trip", "step": "flight", "content": "KLM 220 EUR", "parent_id": plan.id})
        context = await memory.get_context({"namespace": "trip", "max_tokens": 500})
    ```
    """

    config_type = WorkingConfig

    def __init__(
        self,
        config: WorkingConfig | Mapping[str, Any] | None = None,
        *,
        ports: WorkingPorts | None = None,
        clock: Clock = now,
    ) -> None:
        super().__init__(config, ports=ports, clock=clock)
        self._texts = Texts(self._counter)

    def _connect(self) -> WorkingPorts:
        return wiring.working(self.config, self._now)

    def _now(self) -> datetime:
        return self._clock()  # which is set after the ports

    # --- writing

    @overload
    async def store(self, item: Mapping[str, Any]) -> WorkingItem: ...
    @overload
    async def store(self, item: Sequence[Mapping[str, Any]]) -> Stored: ...
    async def store(self, item: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> WorkingItem | Stored:
        """Store one item or many of one namespace: all or none.

        An item of a key that is known is replaced; it stays where it is in its chain unless it brings a `parent_id`.

        Args:
            item: A mapping (or a list of at most 1,000) with `namespace` and `content` (any JSON value; bytes, dates,
                Decimal, UUID, tuples and sets too), and optionally `user_id`, `key`, `importance` (0..1, 0.5 where it
                is not given), `step` (a label or a number), `parent_id`, `tags`, `status` (`open`, `done` or
                `abandoned`), `conclusion`, `ttl_seconds`.

        Returns:
            The item, or items in their order, as stored. `evicted` of either names what went for it.

        Raises:
            InvalidInput: Names the field and the fix; nothing was stored.
            AccessDenied: When the engine is for another user.
            StoreUnavailable: When Redis cannot be reached.
        """
        await self.initialize()
        namespace, user_id, drafts = working_boundary.drafts(
            item, ttl_seconds=self.config.ttl_seconds, max_bytes=self.config.max_message_bytes
        )
        if len(drafts) > self.config.capacity_limit:
            raise InvalidInput("item", f"is a list of {len(drafts)}; capacity_limit is {self.config.capacity_limit}")
        for place, draft in enumerate(drafts):
            self._check_chain(draft, "" if isinstance(item, Mapping) else f"{place}.")
        with span("store", items=len(drafts)):
            stored = await self._ports.items.put(self._space(namespace, user_id), drafts)
        return replace(stored[0], evicted=stored.evicted) if isinstance(item, Mapping) else stored

    async def update(
        self,
        namespace: str,
        key: str,
        *,
        user_id: str | None = None,
        **changes: Any,
    ) -> WorkingItem | None:
        """Change fields of an item; what is not named stays. Returns None when there is no such item.

        Args:
            namespace, key, user_id: Which.
            changes: `content`, `importance`, `step`, `parent_id`, `tags`, `status`, `conclusion`, `ttl_seconds`. None
                takes step or conclusion away.

        Raises:
            InvalidInput: Names the field and the fix; nothing was changed.
        """
        await self.initialize()
        draft = working_boundary.change(key, changes, max_bytes=self.config.max_message_bytes)
        self._check_chain(draft)
        stored = await self._ports.items.put(self._space(namespace, user_id), [draft])
        return replace(stored[0], evicted=stored.evicted) if stored else None

    async def conclude(
        self,
        namespace: str,
        key: str,
        conclusion: str,
        *,
        status: ItemStatus = "done",
        user_id: str | None = None,
    ) -> WorkingItem | None:
        """Close a step, `done` or `abandoned`, with what came out of it. Returns None when there is no such step."""
        return await self.update(namespace, key, user_id=user_id, conclusion=conclusion, status=status)

    async def delete(self, namespace: str, key: str, *, user_id: str | None = None, cascade: bool = False) -> Receipt:
        """Remove an item.

        Args:
            namespace, key, user_id: Which.
            cascade: Remove the steps that follow from it, too.

        Raises:
            InvalidInput: When there are such steps and `cascade` is not set.
        """
        await self.initialize()
        space, item_id = self._space(namespace, user_id), boundary.check_id(key, "key")
        return self._erased({"items": await self._ports.items.delete(space, item_id, cascade=cascade)})

    async def clear(self, namespace: str, user_id: str | None = None) -> Receipt:
        """Erase a namespace."""
        await self.initialize()
        return self._erased({"items": await self._ports.items.delete(self._space(namespace, user_id))})

    async def forget(self, *, user_id: str) -> Receipt:
        """Erase every namespace of a user."""
        await self.initialize()
        user = self._user(boundary.check_id(user_id, "user_id", empty=True))
        return self._erased((await self._ports.items.forget(user or "")).removed)

    def _erased(self, removed: Mapping[str, int]) -> Receipt:
        self._texts.forget()  # what is erased shall not linger in this process either
        return Receipt(removed)

    # --- reading

    async def get(self, namespace: str, key: str, *, user_id: str | None = None) -> WorkingItem | None:
        """An item by its key, which counts as a use; None when there is none (any more)."""
        await self.initialize()
        space, item_id = self._space(namespace, user_id), boundary.check_id(key, "key")
        return next(iter(await self._ports.items.use(space, [item_id])), None)

    async def get_reasoning_chain(
        self, namespace: str, from_id: str | None = None, *, user_id: str | None = None
    ) -> tuple[WorkingItem, ...]:
        """The steps from the root to one of them.

        Args:
            namespace: Which.
            from_id: The last step. Default: the newest open one or, where none is open, the newest that was not
                abandoned.
            user_id: Whose.

        Returns:
            The steps, the root first; none when there is no such step.

        Raises:
            InvalidInput: When `enable_reasoning_chain` is off.
        """
        await self.initialize()
        if not self.config.enable_reasoning_chain:
            raise InvalidInput("enable_reasoning_chain", "is off, so there are no chains")
        end = None if from_id is None else boundary.check_id(from_id, "from_id")
        items = (await self._ports.items.read(self._space(namespace, user_id))).items
        return active_path(items) if end is None else path({item.id: item for item in items}, end)

    async def get_namespace_stats(self, namespace: str, user_id: str | None = None) -> WorkingStats:
        """How many items there are, of which status, and how many have been evicted; without reading them."""
        await self.initialize()
        return await self._ports.items.stats(self._space(namespace, user_id))

    async def get_context(self, request: Mapping[str, Any] | str) -> Context:
        """What is being worked on, ready for a prompt: the active path, then the items that are worth most.

        With a `query` its words count, too, wherever they stand in step, content, tags and conclusion. What is shown
        has thereby been used.

        Args:
            request: The name of a namespace, or a mapping with `namespace`, and optionally `query`, `max_tokens` and
                `user_id`.

        Raises:
            InvalidInput: Names the field and the fix.
            StoreUnavailable: When Redis cannot be reached.
        """
        await self.initialize()
        asked = working_boundary.working_request(request)
        space = self._space(asked.namespace, asked.user_id)
        budget = asked.max_tokens or self.config.max_total_tokens
        with span("get_context", kind="working_memory"):
            snapshot = await self._ports.items.read(space)
            composing = partial(
                compose,
                snapshot.items,
                at=snapshot.at,
                query=asked.query,
                budget=budget,
                half_life=self.config.importance_half_life_seconds,
                chains=self.config.enable_reasoning_chain,
                texts=self._texts,
            )
            many = len(snapshot.items) > _COMPOSED_AT_ONCE
            composed = await anyio.to_thread.run_sync(composing) if many else composing()
            errors = await self._use(space, [item_id for piece in composed.pieces for item_id in piece.ids])
        return Context(
            session_id=space.namespace,
            user_id=space.user_id,
            recalled=section(SOURCE, (piece.text for piece in composed.pieces)),
            tokens=composed.tokens,
            max_total_tokens=budget,
            pieces=composed.pieces,
            dropped=composed.dropped,
            errors=errors,
        )

    async def _use(self, space: Space, ids: Sequence[str]) -> dict[str, str]:
        """Count a use of each; what is wrong, if anything."""
        try:
            await self._ports.items.use(space, ids, quietly=True)
        except StoreUnavailable as error:  # what was read is true all the same
            return {SOURCE: str(error)}
        return {}

    def _check_chain(self, draft: Draft, place: str = "") -> None:
        if "parent_id" in draft.fields and not self.config.enable_reasoning_chain:
            raise InvalidInput(f"{place}parent_id", "needs enable_reasoning_chain, which is off")

    def _space(self, namespace: str, user_id: str | None) -> Space:
        """A namespace in the scope of this engine: a call that names no user means those of nobody in particular."""
        name, user = working_boundary.space(namespace, user_id)
        return Space(namespace=name, user_id=self._user(user) or "")
