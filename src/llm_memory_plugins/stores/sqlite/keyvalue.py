"""The `KeyValue` port on SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any

from llm_memory_plugins.codec import dumps
from llm_memory_plugins.key_values import Newest, NewValue, Removed, SealedValue, Space, conflict, no_number
from llm_memory_plugins.stores.copies import check_reach
from llm_memory_plugins.stores.sqlite.database import Database, queries
from llm_memory_plugins.stores.sqlite.messages import from_micros, to_micros
from llm_memory_plugins.values import JSON, add, end_of_prefix

_SQL = queries("keyvalue")


class SqliteKeyValue:
    """Values by key, in one SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, space: Space, which: Sequence[str] | Newest, *, now: datetime) -> tuple[SealedValue, ...]:
        """See `KeyValue.read`."""
        return await self._database.read(lambda connection: _read(connection, space, which, to_micros(now)))

    async def write(self, space: Space, values: Sequence[NewValue], *, now: datetime) -> tuple[SealedValue, ...]:
        """See `KeyValue.write`."""

        def run(connection: sqlite3.Connection) -> tuple[SealedValue, ...]:
            in_order = sorted(values, key=lambda value: value.key)
            written = {value.key: _write(connection, space, value, now) for value in in_order}
            return tuple(written[value.key] for value in values)

        return await self._database.write(run)

    async def increment(
        self, space: Space, key: str, by: float, *, now: datetime, expires_at: datetime | None = None
    ) -> SealedValue:
        """See `KeyValue.increment`."""

        def run(connection: sqlite3.Connection) -> SealedValue:
            held = next(iter(_read(connection, space, (key,), to_micros(now))), None)
            if held is None:
                return _write(connection, space, NewValue(key, dumps(by), expires_at=expires_at), now)
            total = add(json.loads(held.body) if held.encoding == JSON else None, by)
            if total is None:
                raise no_number(key)
            return _write(connection, space, NewValue(key, dumps(total), expires_at=held.expires_at), now)

        return await self._database.write(run)

    async def remove(
        self, user_id: str, namespace: str | None = None, keys: Sequence[str] | None = None, *, now: datetime
    ) -> Removed:
        """See `KeyValue.remove`."""
        check_reach(self._database)
        names = {"user_id": user_id, "namespace": namespace, "keys": json.dumps(keys), "now": to_micros(now)}

        def run(connection: sqlite3.Connection) -> Removed:
            if keys is None:
                return Removed(sum(live for (live,) in connection.execute(_SQL["remove_all"], names)))
            rows = connection.execute(_SQL["remove"], names).fetchall()
            return Removed(sum(live for *_, live in rows), {key: version for key, version, _ in rows})

        return await self._database.write(run)

    async def keys(
        self, space: Space, *, prefix: str = "", after: str | None = None, limit: int = 1000, now: datetime
    ) -> tuple[str, ...]:
        """See `KeyValue.keys`."""
        names = {
            **space._asdict(),
            "prefix": prefix,
            "until": end_of_prefix(prefix),
            "after": after,
            "limit": limit,
            "now": to_micros(now),
        }
        rows = await self._database.read(lambda connection: connection.execute(_SQL["keys"], names).fetchall())
        return tuple(key for (key,) in rows)

    async def prune(self, now: datetime, *, user_id: str | None = None, limit: int = 10_000) -> int:
        """See `KeyValue.prune`."""
        names = {"now": to_micros(now), "user_id": user_id, "limit": limit}
        return await self._database.write(lambda connection: connection.execute(_SQL["prune"], names).rowcount)


def _read(
    connection: sqlite3.Connection, space: Space, which: Sequence[str] | Newest, now: int
) -> tuple[SealedValue, ...]:
    names = {**space._asdict(), "now": now}
    if not isinstance(which, Newest):
        return tuple(map(_sealed, connection.execute(_SQL["read"], {**names, "keys": json.dumps(which)})))
    rows = connection.execute(_SQL["newest"], {**names, "limit": which.limit})
    return tuple(map(_sealed, takewhile(_within(which.size), rows)))


def _within(size: int) -> Any:
    """True for rows until those before take more than `size`."""
    before = 0

    def fits(row: tuple[Any, ...]) -> bool:
        nonlocal before
        room, before = before < size, before + len(row[1])
        return room

    return fits


def _write(connection: sqlite3.Connection, space: Space, value: NewValue, now: datetime) -> SealedValue:
    names = {**space._asdict(), "key": value.key}
    version, created, expires = connection.execute(_SQL["held"], names).fetchone() or (0, None, None)
    moment = to_micros(now)
    if expires is not None and expires <= moment:
        version, created = 0, None
    if value.expected not in {None, version}:
        raise conflict(value.key)
    created = moment if created is None else created
    row = {
        **names,
        "body": value.body,
        "encoding": value.encoding,
        "created_at": created,
        "now": moment,
        "expires_at": None if value.expires_at is None else to_micros(value.expires_at),
    }
    (version,) = connection.execute(_SQL["write"], row).fetchone()
    times = from_micros(created), now, value.expires_at
    return SealedValue(value.key, value.body, value.encoding, version, *times)


def _sealed(row: tuple[Any, ...]) -> SealedValue:
    key, body, encoding, version, created_at, updated_at, expires_at = row
    times = from_micros(created_at), from_micros(updated_at), None if expires_at is None else from_micros(expires_at)
    return SealedValue(key, body, encoding, version, *times)
