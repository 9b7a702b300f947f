"""Key-value memory over the functions of `sql/`, once for every transport."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from llm_memory_plugins.codec import dumps
from llm_memory_plugins.key_values import Newest, NewValue, Removed, SealedValue, Space, no_number
from llm_memory_plugins.stores.copies import check_reach
from llm_memory_plugins.stores.sql_transport import Transport
from llm_memory_plugins.values import end_of_prefix

_MOST = 2**31 - 1  # of an integer argument


class SqlKeyValue:
    """The `KeyValue` port over the functions of `sql/`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def read(self, space: Space, which: Sequence[str] | Newest, *, now: datetime) -> tuple[SealedValue, ...]:
        """See `KeyValue.read`."""
        newest = isinstance(which, Newest)
        rows = await self._call(
            "read_values",
            *space,
            keys=None if newest else _text([*which]),
            limit=min(which.limit, _MOST) if newest else None,
            size=which.size if newest else None,
            now=now.isoformat(),
        )
        return tuple(map(_sealed, rows))

    async def write(self, space: Space, values: Sequence[NewValue], *, now: datetime) -> tuple[SealedValue, ...]:
        """See `KeyValue.write`."""
        rows = await self._call(
            "write_values",
            *space,
            repeatable=all(value.expected is None for value in values),  # the second time it would be another version
            items=_text([_row(value) for value in values]),
            now=now.isoformat(),
        )
        written = {key: (version, created_at) for key, version, created_at in rows}
        return tuple(
            SealedValue(
                value.key,
                value.body,
                value.encoding,
                written[value.key][0],
                created_at=_moment(written[value.key][1]),
                updated_at=now,
                expires_at=value.expires_at,
            )
            for value in values
        )

    async def increment(
        self, space: Space, key: str, by: float, *, now: datetime, expires_at: datetime | None = None
    ) -> SealedValue:
        """See `KeyValue.increment`."""
        row = await self._call(
            "increment_value",
            *space,
            repeatable=False,
            key=key,
            by=dumps(by),
            expires_at=expires_at and expires_at.isoformat(),
            now=now.isoformat(),
        )
        if row is None:
            raise no_number(key)
        return _sealed(row)

    async def remove(
        self, user_id: str, namespace: str | None = None, keys: Sequence[str] | None = None, *, now: datetime
    ) -> Removed:
        """See `KeyValue.remove`."""
        check_reach(self._transport)
        named = None if keys is None else _text([*keys])
        answer: Mapping[str, Any] = await self._call(
            "remove_values", user_id, namespace, keys=named, now=now.isoformat()
        )
        return Removed(answer["count"], answer["versions"])

    async def keys(
        self, space: Space, *, prefix: str = "", after: str | None = None, limit: int = 1000, now: datetime
    ) -> tuple[str, ...]:
        """See `KeyValue.keys`."""
        return tuple(
            await self._call(
                "list_keys",
                *space,
                prefix=prefix,
                end=end_of_prefix(prefix),
                after_key=after,
                limit=min(limit, _MOST),
                now=now.isoformat(),
            )
        )

    async def prune(self, now: datetime, *, user_id: str | None = None, limit: int = 10_000) -> int:
        """See `KeyValue.prune`."""
        arguments = {"user_id": user_id, "now": now.isoformat(), "limit": min(limit, _MOST)}
        return await self._transport.call("prune_values", arguments, user_id=user_id)

    async def _call(
        self, function: str, user_id: str, namespace: str | None, *, repeatable: bool = True, **arguments: Any
    ) -> Any:
        named = {"user_id": user_id, "namespace": namespace, **arguments}
        return await self._transport.call(function, named, user_id=user_id, repeatable=repeatable)


def _text(value: list[Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _row(value: NewValue) -> dict[str, Any]:
    return {
        "key": value.key,
        "body": value.body,
        "encoding": value.encoding,
        "expires_at": value.expires_at and value.expires_at.isoformat(),
        "expected": value.expected,
    }


def _moment(text: str) -> datetime:
    """In UTC, whatever zone the database thinks in."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _sealed(row: Sequence[Any]) -> SealedValue:
    key, body, encoding, version, created_at, updated_at, expires_at = row
    times = (_moment(created_at), _moment(updated_at), expires_at and _moment(expires_at))
    return SealedValue(key, body, encoding, version, *times)
