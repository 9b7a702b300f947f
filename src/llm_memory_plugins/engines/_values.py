"""What the verbs of key-value memory share: whose values, how they are sealed, written, read and kept in step."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from llm_memory_plugins import keyvalue_boundary as door
from llm_memory_plugins import wiring
from llm_memory_plugins.config import KeyValueConfig
from llm_memory_plugins.engines._engine import Engine
from llm_memory_plugins.errors import Conflict, InvalidInput
from llm_memory_plugins.key_values import NewValue, SealedValue, Space, StoredValue, SyncReport, conflict
from llm_memory_plugins.keyvalue_boundary import GivenValue, Usual
from llm_memory_plugins.ports import Clock
from llm_memory_plugins.sealing import Sealer
from llm_memory_plugins.telemetry import logger, span
from llm_memory_plugins.types import Receipt
from llm_memory_plugins.wiring import KeyValuePorts, now

ABSENT = object()
"""What a change is made of where there is no value."""

_TRIES = 30  # at a change that others keep getting ahead of
_PAUSE = 0.02  # seconds between them, at most
_PRUNE_EVERY = timedelta(minutes=1)
_PRUNED = 10_000
_USED = 32  # namespaces whose copies are compared in one check
_CHECKED = 10_000  # keys of each


class Values(Engine[KeyValueConfig, KeyValuePorts]):
    """Values by key, in a durable store and perhaps in copies."""

    config_type = KeyValueConfig

    def __init__(
        self,
        config: KeyValueConfig | Mapping[str, Any] | None = None,
        *,
        ports: KeyValuePorts | None = None,
        clock: Clock = now,
    ) -> None:
        super().__init__(config, ports=ports, clock=clock)
        self._sealer = Sealer(
            as_json=self.config.serialize_json,
            max_bytes=self.config.max_value_bytes,
            compress_above=self.config.compression_threshold,
            encryption_keys=self.config.encryption_keys,
        )
        self._used: dict[Space, None] = {}  # since the copies were last compared, in the order of first use
        self._compared_at = time.monotonic()
        self._pruned_at: datetime | None = None

    def _connect(self) -> KeyValuePorts:
        return wiring.key_values(self.config)

    async def forget(self, *, user_id: str | None = None, namespace: str | None = None) -> Receipt:
        """Erase everything this memory holds of a user, or one namespace of the user's, copies too.

        Raises:
            InvalidInput: When no user is named and the engine is for none; the empty user is named by "".
            StoreUnavailable: When database or copies cannot be reached. The same call again completes the erasure.
        """
        await self.initialize()
        if user_id is None and self.config.user_id is None:
            raise InvalidInput("user_id", "name the user; nothing was erased")
        user, which = self._user(door.user(user_id)) or "", door.namespace(namespace)
        removed = await self._ports.values.remove(user, which, now=self._clock())
        return Receipt({"key_values": removed.count})

    async def prune(self) -> int:
        """Remove entries that have expired; returns how many. Also runs by itself, and readers never see them."""
        await self.initialize()
        pruned, last = 0, _PRUNED
        while last == _PRUNED:
            last = await self._ports.values.prune(self._clock(), user_id=self.config.user_id, limit=_PRUNED)
            pruned += last
        return pruned

    async def sync(self, *, user_id: str | None = None, namespace: str | None = None) -> SyncReport:
        """Compare a namespace with its copies in Redis, and repair what differs: deleted, missing, stale.

        Afterwards all of it is in Redis. Also runs by itself every `sync_seconds`, over what was in use since the last
        time.

        Raises:
            StoreUnavailable: When one of the two cannot be reached.
        """
        await self.initialize()
        space = self._space(user_id, namespace)
        if self._ports.cached is None:
            return SyncReport()
        with span("sync"):
            return await self._ports.cached.sync(space, now=self._clock())

    async def _compare(self, spaces: Iterable[Space]) -> None:
        if self._ports.cached is None:
            return
        for space in spaces:
            report = await self._ports.cached.sync(space, now=self._clock(), limit=_CHECKED)
            if report.stale or report.deleted:
                logger.warning(
                    "of %d copies of values %d differed and were repaired", report.checked, report.differences
                )

    def _touch(self, space: Space) -> None:
        """Have the copies of what is in use compared now and then."""
        if self._ports.cached is None:
            return
        if len(self._used) < _USED:
            self._used[space] = None
        if time.monotonic() - self._compared_at >= self.config.sync_seconds:
            self._compared_at = time.monotonic()
            used, self._used = self._used, {}
            self._spawn(self._compare(used))

    # --- one value, and many

    def _space(self, user_id: str | None, namespace: str | None) -> Space:
        user = self._user(door.user(user_id)) or ""
        return Space(user, door.namespace(namespace) or self.config.namespace)

    def _expiry(self, ttl_seconds: float | Usual | None, moment: datetime) -> datetime | None:
        return door.expiry(self.config.ttl_seconds if isinstance(ttl_seconds, Usual) else ttl_seconds, moment)

    def _only_json(self, verb: str) -> None:
        if not self.config.serialize_json:
            raise InvalidInput("serialize_json", f"is off; {verb} needs values that are JSON")

    def _new(
        self, space: Space, key: str, value: Any, expires_at: datetime | None, expected: int | None = None
    ) -> NewValue:
        encoding, body = self._sealer.seal(space, key, value)
        return NewValue(key, body, encoding, expires_at, expected)

    async def _write(self, space: Space, values: Sequence[NewValue], moment: datetime) -> tuple[SealedValue, ...]:
        with span("store", values=len(values)):
            written = await self._ports.values.write(space, values, now=moment)
        self._wrote(space, written, moment)
        return written

    def _wrote(self, space: Space, written: Iterable[SealedValue], moment: datetime) -> None:
        """Start what has to follow a write."""
        self._touch(space)
        if all(value.expires_at is None for value in written):
            return
        if self._pruned_at is None or moment - self._pruned_at >= _PRUNE_EVERY:
            self._pruned_at = moment
            self._spawn(self.prune())

    async def _read(self, space: Space, keys: Sequence[str], moment: datetime) -> dict[str, SealedValue]:
        held = await self._ports.values.read(space, keys, now=moment) if keys else ()
        self._touch(space)
        return {value.key: value for value in held}

    def _entry(self, space: Space, held: SealedValue, value: Any) -> StoredValue:
        return StoredValue(
            key=held.key,
            value=value,
            version=held.version,
            created_at=held.created_at,
            updated_at=held.updated_at,
            expires_at=held.expires_at,
            user_id=space.user_id,
            namespace=space.namespace,
        )

    def _opened(self, space: Space, held: SealedValue) -> StoredValue:
        return self._entry(space, held, self._sealer.open(space, held))

    async def _store(self, given: Sequence[GivenValue]) -> tuple[StoredValue, ...]:
        """Write values, all of them checked before any is written; those of a namespace at once."""
        moment = self._clock()
        addresses: dict[tuple[Space, str], NewValue] = {}
        for item in given:
            space = self._space(item.user_id, item.namespace)
            key = door.key(item.key, space)
            if (space, key) in addresses:
                raise InvalidInput(key, "is there twice; store it once")
            addresses[space, key] = self._new(space, key, item.value, self._expiry(item.ttl_seconds, moment))
        stored: dict[tuple[Space, str], StoredValue] = {}
        for space in dict.fromkeys(space for space, _ in addresses):
            new = [value for (where, _), value in addresses.items() if where == space]
            for held in await self._write(space, new, moment):
                stored[space, held.key] = self._opened(space, held)
        return tuple(stored[address] for address in addresses)

    async def _change(
        self, space: Space, key: str, ttl_seconds: float | Usual | None, change: Callable[[Any], Any]
    ) -> StoredValue:
        """Put in place of a value what `change` makes of it, unless somebody was faster; then again."""
        for _ in range(_TRIES):
            moment = self._clock()
            held = (await self._read(space, (key,), moment)).get(key)
            value = change(ABSENT if held is None else self._sealer.open(space, held))
            expires_at = self._expiry(ttl_seconds, moment) if held is None else held.expires_at
            new = self._new(space, key, value, expires_at, 0 if held is None else held.version)
            try:
                (written,) = await self._write(space, (new,), moment)
            except Conflict:
                await asyncio.sleep(random.uniform(0, _PAUSE))  # noqa: S311 - so that two do not meet for ever
                continue
            return self._opened(space, written)
        raise conflict(key)
