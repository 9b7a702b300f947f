"""The `MessageLog` port on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from llm_memory_plugins.codec import extra_fields, extra_json
from llm_memory_plugins.errors import AmbiguousSession, InvalidInput
from llm_memory_plugins.stores.copies import check_reach
from llm_memory_plugins.stores.sqlite.corpora import erase_of
from llm_memory_plugins.stores.sqlite.database import Database, queries
from llm_memory_plugins.types import Appended, Message, Receipt, SessionRef, SessionStats, Tail, Window

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""What times are counted from."""

_SQL = queries("messages")
_ERASE_VALUES = queries("keyvalue")["erase_of"]

Row = tuple[Any, ...]


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The moment, in UTC."""
    return EPOCH + timedelta(microseconds=micros)


def find_session(connection: sqlite3.Connection, session: SessionRef) -> tuple[int, str] | None:
    """Primary key and user of a session, or None.

    Raises:
        AmbiguousSession: When no user is named and several have one of that name.
    """
    found = connection.execute(
        _SQL["sessions_named"], {"session_id": session.session_id, "user_id": session.user_id}
    ).fetchall()
    if len(found) > 1:
        raise AmbiguousSession
    return found[0] if found else None


def _owner(connection: sqlite3.Connection, session_id: str) -> str:
    """Whose session that is, in whichever memory; the empty user's where nobody has one.

    Raises:
        AmbiguousSession: When several users have one of that name.
    """
    owners = connection.execute(_SQL["owners_of_session"], {"session_id": session_id}).fetchall()
    if len(owners) > 1:
        raise AmbiguousSession
    return owners[0][0] if owners else ""


class SqliteMessageLog:
    """Messages and the running totals of their sessions, in one SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(self, messages: Sequence[Message]) -> Appended:
        """See `MessageLog.append`."""
        return await self._database.write(lambda connection: _append(connection, messages))

    async def recent(self, session: SessionRef, window: Window) -> Tail:
        """See `MessageLog.recent`."""
        return await self._database.read(lambda connection: _recent(connection, session, window))

    async def page(self, session: SessionRef, *, after: int = 0, limit: int = 1000) -> tuple[Message, ...]:
        """See `MessageLog.page`."""

        def run(connection: sqlite3.Connection) -> tuple[Message, ...]:
            found = find_session(connection, session)
            if found is None:
                return ()
            rows = connection.execute(_SQL["page"], {"pk": found[0], "after": after, "limit": limit})
            return tuple(_message(row, session.session_id, found[1]) for row in rows)

        return await self._database.read(run)

    async def sessions(
        self,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        after: SessionRef | None = None,
        limit: int = 100,
    ) -> tuple[SessionStats, ...]:
        """See `MessageLog.sessions`."""
        names = {
            "user_id": user_id,
            "session_id": session_id,
            "after_user": None if after is None else after.user_id or "",
            "after_session": None if after is None else after.session_id,
            "limit": limit,
        }
        which = "list_of_name" if session_id is not None else "list_all" if user_id is None else "list_of_user"
        rows = await self._database.read(lambda c: c.execute(_SQL[which], names).fetchall())
        return tuple(_stats(row) for row in rows)

    async def delete(self, *, user_id: str | None = None, session_id: str | None = None) -> Receipt:
        """See `MessageLog.delete`."""
        if user_id is None and session_id is None:
            raise InvalidInput("user_id", "name a user or a session; nothing was deleted")
        check_reach(self._database)

        def run(connection: sqlite3.Connection) -> Receipt:
            owner = _owner(connection, session_id or "") if user_id is None else user_id
            names = {"user_id": owner, "session_id": session_id}
            going = tuple(_stats(row) for row in connection.execute(_SQL["sessions_of"], names))
            tables = ("summaries", "messages", "sessions")
            removed = {t: connection.execute(_SQL[f"delete_{t}"], names).rowcount for t in tables}
            removed |= erase_of(connection, owner, session_id)
            if session_id is None:
                removed["key_values"] = connection.execute(_ERASE_VALUES, names).rowcount
            return Receipt(removed, going)

        receipt = await self._database.write(run)
        if session_id is None and user_id is not None:
            self._database.kept.pop(user_id, None)
        return receipt

    async def prune(self, before: datetime, *, user_id: str | None = None) -> Receipt:
        """See `MessageLog.prune`."""
        check_reach(self._database)
        names = {"before": to_micros(before), "user_id": user_id}

        def run(connection: sqlite3.Connection) -> Receipt:
            removed = {"summaries": 0, "messages": 0, "sessions": 0}
            expired = connection.execute(_SQL["expired_sessions"], names).fetchall()
            for pk, *_ in expired:
                for table in ("messages", "summaries"):
                    removed[table] += connection.execute(_SQL[f"prune_{table}"], {**names, "pk": pk}).rowcount
                (left,) = connection.execute(_SQL["recount"], {"pk": pk}).fetchone()
                if left == 0:
                    removed["sessions"] += connection.execute(_SQL["end_session"], {"pk": pk}).rowcount
            return Receipt(removed, tuple(_stats(row) for row in expired))

        return await self._database.write(run)


def _append(connection: sqlite3.Connection, messages: Sequence[Message]) -> Appended:
    sessions: dict[SessionRef, dict[str, Any]] = {}  # as callers name them
    totals: dict[int, dict[str, Any]] = {}  # as they are
    stored: list[Message] = []
    for message in messages:
        named = SessionRef(message.session_id, message.user_id)
        if named not in sessions:
            total = _totals(connection, named)
            sessions[named] = totals.setdefault(total["pk"], total)
        total = sessions[named]
        known = connection.execute(_SQL["known"], {"pk": total["pk"], "id": message.id}).fetchone()
        if known is not None:
            stored.append(_message(known, message.session_id, total["user_id"]))
            continue
        total["last_seq"] += 1
        total["tokens_ever"] += message.tokens
        total["tokens"] += message.tokens
        total["messages"] += 1
        total["turns"] += message.role == "user"
        created = to_micros(message.created_at)
        total["first_at"] = min(created, total["first_at"] or created)
        total["last_at"] = max(created, total["last_at"] or created)
        connection.execute(
            _SQL["insert"],
            {
                **{key: getattr(message, key) for key in ("id", "role", "name", "content", "tokens", "tokenizer")},
                "pk": total["pk"],
                "seq": total["last_seq"],
                "created_at": created,
                "tokens_ever": total["tokens_ever"],
                "extra": extra_json(message),
            },
        )
        stored.append(replace(message, user_id=total["user_id"], seq=total["last_seq"]))
    return Appended(
        tuple(stored),
        tuple(
            _stats(connection.execute(_SQL["count_up" if total["messages"] else "session"], total).fetchone())
            for total in totals.values()
        ),
    )


def _totals(connection: sqlite3.Connection, named: SessionRef) -> dict[str, Any]:
    found = find_session(connection, named)
    if found is None:
        names = {"user_id": named.user_id or "", "session_id": named.session_id}
        found = (connection.execute(_SQL["begin_session"], names).fetchone()[0], named.user_id or "")
    row = connection.execute(_SQL["session"], {"pk": found[0]}).fetchone()
    counted = {"tokens": 0, "messages": 0, "turns": 0, "first_at": None, "last_at": None}
    return {"pk": found[0], "user_id": found[1], "last_seq": row[3], "tokens_ever": row[-1], **counted}


def _recent(connection: sqlite3.Connection, session: SessionRef, window: Window) -> Tail:
    found = find_session(connection, session)
    if found is None:
        return Tail(stats=SessionStats(session_id=session.session_id, user_id=session.user_id or ""))
    pk, user = found
    row = connection.execute(_SQL["session"], {"pk": pk}).fetchone()
    start = _start(connection, pk, window)

    def messages(query: str) -> tuple[Message, ...]:
        return tuple(_message(r, session.session_id, user) for r in connection.execute(_SQL[query], names))

    names = {"pk": pk, "start": start}
    newest = messages("from_seq")
    begun = newest and newest[0].role == "user"
    return Tail(
        stats=_stats(row),
        messages=newest,
        opening=None if begun else next(iter(messages("opening_before")), None),
        system=next(iter(messages("system_before")), None),
    )


def _start(connection: sqlite3.Connection, pk: int, window: Window) -> int:
    """The `seq` to read from: where the window begins, but no more tokens than it can use."""

    def seq(query: str, **names: int) -> int | None:
        found = connection.execute(_SQL[query], {"pk": pk, **names}).fetchone()
        return found[0] if found else None

    limits = [window.max_tokens] if window.max_tokens else []
    start = 0
    if window.kind == "tokens":
        limits.append(window.size)
    elif window.kind == "turns":
        start = seq("start_by_turns", size=window.size) or 0
    elif window.now is not None:
        since = to_micros(window.now - timedelta(seconds=window.size))
        newest = seq("newest_turn") or 0
        # One message more: that it is older than the window shows a later reader of a copy that nothing is missing.
        start = min(seq("start_by_time", since=since) or newest, newest) - 1
    if limits:
        start = max(start, _reaching(connection, pk, min(limits)))
        start = seq("start_of_group", start=start) or start  # results of tools are nothing without their call
    return start


def _reaching(connection: sqlite3.Connection, pk: int, tokens: int) -> int:
    """The `seq` from which on there are so many tokens, system messages not counted: of those one at most is shown."""
    for seq, size in connection.execute(_SQL["backwards"], {"pk": pk}):  # rows that are not asked for are not read
        tokens -= size
        if tokens <= 0:
            return seq
    return 0


def _message(row: Row, session_id: str, user_id: str) -> Message:
    _, seq, identity, role, name, content, created_at, tokens, tokenizer, _, extra = row
    return Message(
        id=identity,
        session_id=session_id,
        user_id=user_id,
        role=role,
        content=content,
        created_at=from_micros(created_at),
        name=name,
        tokens=tokens,
        tokenizer=tokenizer,
        seq=seq,
        **extra_fields(extra),
    )


def _stats(row: Row) -> SessionStats:
    epoch, user_id, session_id, last_seq, message_count, turn_count, tokens, first_at, last_at, _ = row
    return SessionStats(
        epoch=epoch,
        user_id=user_id,
        session_id=session_id,
        last_seq=last_seq,
        message_count=message_count,
        turn_count=turn_count,
        tokens=tokens,
        first_at=None if first_at is None else from_micros(first_at),
        last_at=None if last_at is None else from_micros(last_at),
    )
