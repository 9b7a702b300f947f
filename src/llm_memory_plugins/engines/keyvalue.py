"""Key-value memory: preferences, settings and session data, read in one step and never lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, overload

from llm_memory_plugins import keyvalue_boundary as door
from llm_memory_plugins import values
from llm_memory_plugins.boundary import each
from llm_memory_plugins.context import Context
from llm_memory_plugins.engines import _shown_values
from llm_memory_plugins.engines._values import ABSENT, Values
from llm_memory_plugins.errors import InvalidInput, StoreUnavailable
from llm_memory_plugins.key_values import Newest, Space, StoredValue, no_number
from llm_memory_plugins.keyvalue_boundary import USUAL, GivenValue, Usual
from llm_memory_plugins.telemetry import span
from llm_memory_plugins.types import ContextRequest

_PAGE = 1000


class KeyValueStoreMemory(Values):
    """Remembers values by key, for each user and namespace.

    A write is durable when it returns; reads come from Redis where there is one. Calls that name no user are about
    the empty user, or the one this engine is for; those that name no namespace about `config.namespace`. What is
    stored without `ttl_seconds` lives as long as `config.ttl_seconds` says, with None for ever.

    ```python
    async with KeyValueStoreMemory({"namespace": "user_context"}) as memory:
        await memory.set("language", "de", user_id="u1")
        await memory.update("profile", {"city": "Turin"}, user_id="u1")
        context = await memory.get_context({"user_id": "u1"})
    ```
    """

    # --- writing

    @overload
    async def store(self, item: Mapping[str, Any]) -> StoredValue: ...
    @overload
    async def store(self, item: Sequence[Mapping[str, Any]]) -> tuple[StoredValue, ...]: ...
    async def store(
        self, item: Mapping[str, Any] | Sequence[Mapping[str, Any]]
    ) -> StoredValue | tuple[StoredValue, ...]:
        """Store one value or many; those of one user and namespace in one step, all or none.

        Args:
            item: `key` and `value`, and optionally `user_id`, `namespace` and `ttl_seconds`; or a list of these, no
                key of a namespace twice.

        Returns:
            The entry, or entries in their order.

        Raises:
            InvalidInput: Names the key, or the place in its value; nothing was stored.
            AccessDenied: When the engine is for another user.
            StoreUnavailable: When a value could not be made durable.
        """
        await self.initialize()
        if isinstance(item, Mapping):
            return (await self._store([door.given_value(item)]))[0]
        if isinstance(item, str | bytes) or not isinstance(item, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput("value", f"must be a mapping or a list of mappings, not {type(item).__name__}")
        return await self._store(each(item, door.given_value))

    async def set(
        self,
        key: str,
        value: Any,
        *,
        user_id: str | None = None,
        namespace: str | None = None,
        ttl_seconds: float | Usual | None = USUAL,
    ) -> StoredValue:
        """Store one value. Errors as for `store`."""
        await self.initialize()
        return (await self._store([GivenValue(key, value, user_id, namespace, ttl_seconds)]))[0]

    async def mset(
        self,
        entries: Mapping[str, Any],
        *,
        user_id: str | None = None,
        namespace: str | None = None,
        ttl_seconds: float | Usual | None = USUAL,
    ) -> tuple[StoredValue, ...]:
        """Store many values by their keys, all or none, in one step. Errors as for `store`."""
        await self.initialize()
        if not isinstance(entries, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput("entries", f"must be a mapping of keys to values, not {type(entries).__name__}")
        named = door.keys([*entries], Space("", ""))
        return await self._store([GivenValue(key, entries[key], user_id, namespace, ttl_seconds) for key in named])

    async def compare_and_set(
        self,
        key: str,
        value: Any,
        version: int | None,
        *,
        user_id: str | None = None,
        namespace: str | None = None,
        ttl_seconds: float | Usual | None = USUAL,
    ) -> StoredValue:
        """Store a value only over a certain version of its key.

        Args:
            key, value: What to store.
            version: Of the entry as it was read; None or 0: only where there is none.
            user_id, namespace, ttl_seconds: As for `store`.

        Raises:
            Conflict: When the entry is in another version. It stays as it is.
        """
        await self.initialize()
        space, expected, moment = self._space(user_id, namespace), door.version(version), self._clock()
        new = self._new(space, door.key(key, space), value, self._expiry(ttl_seconds, moment), expected)
        (held,) = await self._write(space, [new], moment)
        return self._opened(space, held)

    async def update(
        self,
        key: str,
        patch: Any,
        *,
        user_id: str | None = None,
        namespace: str | None = None,
        ttl_seconds: float | Usual | None = USUAL,
    ) -> StoredValue:
        """Change a value by a JSON merge patch (RFC 7396): None takes a member away, a mapping goes into a mapping.

        Args:
            key: Which; where there is none, one begins.
            patch: What to change. Anything but a mapping replaces the value.
            user_id, namespace: Whose.
            ttl_seconds: Of an entry that begins; one that is there keeps its end.

        Raises:
            InvalidInput: Names the key, or the place in its value; it stays as it is.
            Conflict: When others keep changing it at the same time.
        """
        await self.initialize()
        self._only_json("update")
        space = self._space(user_id, namespace)
        key = door.key(key, space)
        values.serialise(key, patch, as_json=True, max_bytes=self.config.max_value_bytes)  # says what is wrong with it
        with span("update"):
            return await self._change(space, key, ttl_seconds, lambda held: values.merge_patch(held, patch))

    async def increment(
        self,
        key: str,
        by: float = 1,
        *,
        user_id: str | None = None,
        namespace: str | None = None,
        ttl_seconds: float | Usual | None = USUAL,
    ) -> StoredValue:
        """Add to a number; whole numbers stay whole, anything else is added in double precision.

        It is not known whether a call was carried out that raised `StoreUnavailable`: it is not repeated by itself.

        Args:
            key: Which; where there is none, one begins at 0.
            by: What is added.
            user_id, namespace: Whose.
            ttl_seconds: Of an entry that begins; one that is there keeps its end.

        Raises:
            InvalidInput: When the value is no number, or the sum is none; it stays as it is.
            Conflict: With encryption, when others keep changing it at the same time.
        """
        await self.initialize()
        self._only_json("increment")
        by, space, moment = door.number(by), self._space(user_id, namespace), self._clock()
        key = door.key(key, space)

        def add(held: Any) -> Any:
            if (total := values.add(0 if held is ABSENT else held, by)) is None:
                raise no_number(key)
            return total

        with span("increment"):
            if self._sealer.encrypts:
                return await self._change(space, key, ttl_seconds, add)
            expires_at = self._expiry(ttl_seconds, moment)
            held = await self._ports.values.increment(space, key, by, now=moment, expires_at=expires_at)
        self._wrote(space, (held,), moment)
        return self._opened(space, held)

    async def delete(
        self, keys: str | Sequence[str], *, user_id: str | None = None, namespace: str | None = None
    ) -> int:
        """Remove keys; returns how many there were.

        Raises:
            ConfigError: When there may be copies in a Redis that this engine was not given.
        """
        await self.initialize()
        space = self._space(user_id, namespace)
        named = door.keys([keys] if isinstance(keys, str) else keys, space)
        with span("delete", keys=len(named)):
            removed = await self._ports.values.remove(*space, named, now=self._clock())
        self._touch(space)
        return removed.count

    # --- reading

    async def get(
        self, key: str, default: Any = None, *, user_id: str | None = None, namespace: str | None = None
    ) -> Any:
        """The value of a key, or `default` where there is none.

        Raises:
            ConfigError: When it was encrypted with a key that `encryption_keys` lacks.
            StoreUnavailable: When it can be read from nowhere, or is not what was written.
        """
        await self.initialize()
        space = self._space(user_id, namespace)
        key = door.key(key, space)
        held = (await self._read(space, (key,), self._clock())).get(key)
        return default if held is None else self._sealer.open(space, held)

    async def mget(
        self, keys: Sequence[str], default: Any = None, *, user_id: str | None = None, namespace: str | None = None
    ) -> list[Any]:
        """The values of many keys, in their order, in one step; `default` where there is none. Errors as for `get`."""
        await self.initialize()
        space = self._space(user_id, namespace)
        held = await self._read(space, door.keys(keys, space), self._clock())
        return [self._sealer.open(space, held[key]) if key in held else default for key in keys]

    async def get_entry(
        self, key: str, *, user_id: str | None = None, namespace: str | None = None
    ) -> StoredValue | None:
        """The entry of a key, with its version and times; None where there is none. Errors as for `get`."""
        await self.initialize()
        space = self._space(user_id, namespace)
        key = door.key(key, space)
        held = (await self._read(space, (key,), self._clock())).get(key)
        return None if held is None else self._opened(space, held)

    async def exists(self, key: str, *, user_id: str | None = None, namespace: str | None = None) -> bool:
        """Whether there is a value of this key."""
        await self.initialize()
        space = self._space(user_id, namespace)
        return bool(await self._read(space, (door.key(key, space),), self._clock()))

    async def keys(
        self, prefix: str = "", *, user_id: str | None = None, namespace: str | None = None
    ) -> AsyncIterator[str]:
        """Every key that begins with `prefix`, by code points, read page by page."""
        await self.initialize()
        space, start = self._space(user_id, namespace), door.prefix(prefix)
        after: str | None = None
        while page := await self._ports.values.keys(space, prefix=start, after=after, limit=_PAGE, now=self._clock()):
            for key in page:
                yield key
            after = page[-1]

    async def get_context(self, request: ContextRequest | Mapping[str, Any] | str | None = None) -> Context:
        """Values for a prompt, in the order of their keys; of those that do not all fit, the ones written last.

        Args:
            request: `user_id`, `namespace`, `keys` (default: all of the namespace, up to the newest thousand) and
                `max_tokens`; or the user's id alone.

        Raises:
            InvalidInput: When a field is unknown or malformed.
            StoreUnavailable: When the values can be read from nowhere.
        """
        await self.initialize()
        asked = door.values_request(request)
        space, moment = self._space(asked.user_id, asked.namespace), self._clock()
        with span("get_context", kind="key_value_store"):
            if asked.keys is None:
                held = await self._ports.values.read(space, Newest(), now=moment)
            else:
                held = (await self._read(space, asked.keys, moment)).values()
            found: list[StoredValue] = []
            problem = None
            for value in sorted(held, key=lambda value: -value.version):
                try:
                    found.append(self._opened(space, value))
                except StoreUnavailable as error:  # one that is broken does not hide the others
                    problem = str(error)
            budget = asked.max_tokens or self.config.max_total_tokens
            return _shown_values.context(space.user_id, found, budget=budget, counter=self._counter, problem=problem)
