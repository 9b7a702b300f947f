"""The `HotValues` port on Redis or Valkey: one hash a user, changed by one script a verb.

::

    <length of the namespace>:<namespace><key>  ->  E;version;ends;created;updated;expires;checksum;encoding;body
                                                    T;version;ends      a tombstone
    !                                           ->  T;0;ends            all of it was erased

`ends` is the end of a copy by the server's clock, in milliseconds; the other times are microseconds. All of a user's
lies under one key, so erasing a user leaves nothing, whoever does it. The body is as the database has it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import cast
from zlib import crc32

from llm_memory_plugins.key_values import SealedValue, Space
from llm_memory_plugins.stores.redis.client import RedisClient, Refused
from llm_memory_plugins.stores.redis.keys import LAYOUT
from llm_memory_plugins.stores.redis.script import Script, load
from llm_memory_plugins.stores.redis.tier import TOMBSTONE_MS

_PUT, _DROP, _FORGET = load("values_put"), load("values_drop"), load("values_forget")
_AT_ONCE = 500  # values in one run of a script, of which one pipeline holds as many as are wanted
_SCANNED = 500
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class RedisValues:
    """Copies of values, shared by all processes on one Redis. Every key expires.

    Args:
        client: Where the copies are kept.
        ttl_seconds: Life of a copy after it was written or filled.
        prefix: What all keys begin with, or tells it once the durable store is open: two stores must not share one.
    """

    def __init__(self, client: RedisClient, *, ttl_seconds: float, prefix: str | Callable[[], str] = "llmm") -> None:
        self._client = client
        self._ahead: float | None = None  # seconds by which the server's clock is ahead of this process's
        self._ttl_ms = max(1, round(ttl_seconds * 1000))
        self._prefix = prefix if callable(prefix) else lambda: prefix

    async def read(self, space: Space, keys: Sequence[str]) -> Mapping[str, SealedValue]:
        """See `HotValues.read`."""
        fields = [_field(space, key) for key in keys]
        try:
            found = await self._client.call("HMGET", self._key(space.user_id), *fields)
        except Refused as error:
            if error.reason == "WRONGTYPE":  # somebody else's; the next write replaces it
                return {}
            raise
        now = await self._server_ms()
        copies = (_decoded(key, raw, now) for key, raw in zip(keys, cast("list[bytes | None]", found), strict=True))
        return {copy.key: copy for copy in copies if copy is not None}

    async def put(self, space: Space, values: Sequence[SealedValue], *, written: bool, now: datetime) -> None:
        """See `HotValues.put`."""
        arguments = [argument for value in values for argument in self._encoded(space, value, now)]
        latest = await self._server_ms() + TOMBSTONE_MS // 2
        head = ("w" if written else "r", latest, TOMBSTONE_MS, self._ttl_ms + TOMBSTONE_MS)
        await self._run(_PUT, space, head, arguments, 4 * _AT_ONCE)

    async def drop(self, space: Space, versions: Mapping[str, int]) -> None:
        """See `HotValues.drop`."""
        arguments = [item for key, version in versions.items() for item in (_field(space, key), version)]
        await self._run(_DROP, space, (TOMBSTONE_MS, self._ttl_ms + TOMBSTONE_MS), arguments, 2 * _AT_ONCE)

    async def forget(self, user_id: str) -> int:
        """See `UserCopies.forget`."""
        return int(await self._client.run(_FORGET, self._key(user_id), TOMBSTONE_MS))

    async def keys(self, space: Space) -> AsyncIterator[Sequence[str]]:
        """See `HotValues.keys`. One may come twice."""
        hash_key, now = self._key(space.user_id), await self._server_ms()
        lead = _field(space, "").encode()
        cursor, found = 0, dict[bytes, bytes]()
        while True:
            cursor, found = await self._client.call("HSCAN", hash_key, cursor, "COUNT", _SCANNED)
            named = [(field.removeprefix(lead).decode(), raw) for field, raw in found.items() if field.startswith(lead)]
            if here := [key for key, raw in named if _decoded(key, raw, now) is not None]:
                yield here
            if not cursor:
                return

    async def _run(
        self, script: Script, space: Space, head: tuple[str | int, ...], arguments: list[str | int], size: int
    ) -> None:
        key = self._key(space.user_id)
        if len(arguments) <= size:
            await self._client.run(script, key, *head, *arguments)
            return
        calls = [(key, *head, *arguments[start : start + size]) for start in range(0, len(arguments), size)]
        await self._client.run_many(script, calls)

    async def _server_ms(self) -> int:
        """The time by the server's clock, in milliseconds."""
        if self._ahead is None:  # asked once: clocks drift less than a tombstone lives
            seconds, micros = cast("tuple[bytes, bytes]", await self._client.call("TIME"))
            self._ahead = int(seconds) + int(micros) / 1e6 - time.monotonic()
        return round(1000 * (self._ahead + time.monotonic()))

    def _key(self, user_id: str) -> str:
        return f"{self._prefix()}:{LAYOUT}:{{{_digest(user_id)}}}:values"

    def _encoded(self, space: Space, value: SealedValue, now: datetime) -> tuple[str | int, ...]:
        life = self._ttl_ms
        if value.expires_at is not None:
            life = min(life, max(1, (value.expires_at - now) // timedelta(milliseconds=1)))
        times = (value.created_at, value.updated_at, value.expires_at)
        kept = f"{value.encoding};{value.body}"
        rest = (
            *("" if each is None else (each - _EPOCH) // _MICROSECOND for each in times),
            crc32(kept.encode()),
            kept,
        )
        return _field(space, value.key), value.version, life, ";".join(map(str, rest))


@lru_cache(maxsize=1024)
def _digest(user_id: str) -> str:
    return blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _field(space: Space, key: str) -> str:
    """The length tells where the namespace ends: no two keys meet."""
    return f"{len(space.namespace)}:{space.namespace}{key}"


def _decoded(key: str, raw: bytes | None, now: int) -> SealedValue | None:
    """A copy; None for a tombstone, one that has ended, or what is no copy of ours."""
    if raw is None or not raw.startswith(b"E;"):
        return None
    try:
        _, version, ends, created, updated, expires, checksum, kept = raw.split(b";", 7)
        if int(ends) <= now or int(checksum) != crc32(kept):
            return None
        encoding, body = kept.decode().split(";", 1)
        return SealedValue(
            key,
            body,
            encoding,
            int(version),
            _EPOCH + timedelta(microseconds=int(created)),
            _EPOCH + timedelta(microseconds=int(updated)),
            _EPOCH + timedelta(microseconds=int(expires)) if expires else None,
        )
    except (ValueError, OverflowError):
        return None
