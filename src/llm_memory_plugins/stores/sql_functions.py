"""The durable ports over the SQL functions of `sql/`, once for every transport.

A transport calls one function with named arguments and returns its JSON value. Which rows that sees and may write is
decided by row-level security in the database, alike over a direct connection and over Supabase's API.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from llm_memory_plugins.codec import extra_fields, extra_json
from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.stores.copies import check_reach
from llm_memory_plugins.stores.sql_transport import Transport
from llm_memory_plugins.types import (
    Appended,
    Message,
    Receipt,
    SessionRef,
    SessionStats,
    Summary,
    SummaryLine,
    SummaryState,
    Tail,
    Window,
)

_MOST = 2**31 - 1  # of an integer argument


class SqlMessageLog:
    """The `MessageLog` port over the functions of `sql/`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def append(self, messages: Sequence[Message]) -> Appended:
        """See `MessageLog.append`."""
        batches = [(ref, list(batch)) for ref, batch in groupby(messages, _session_of)]
        rows = [
            {"session_id": ref.session_id, "user_id": ref.user_id, "messages": [_to_row(m) for m in batch]}
            for ref, batch in batches
        ]
        users = {ref.user_id for ref, _ in batches}
        answers = await self._transport.call(
            "append_messages",
            {"batches": json.dumps(rows, ensure_ascii=False)},
            user_id=users.pop() if len(users) == 1 else None,
        )
        stored: list[Message] = []
        stats: dict[int, SessionStats] = {}
        for (ref, batch), answer in zip(batches, answers, strict=True):
            after = _stats(answer["stats"])
            seqs = answer.get("new") or {m.id: after.last_seq - len(batch) + n for n, m in enumerate(batch, start=1)}
            held = {row["id"]: _message(row, ref.session_id) for row in answer.get("known", ())}
            for message in batch:  # the first of an id is the one that counts
                if message.id not in held:
                    held[message.id] = replace(message, user_id=answer["user_id"], seq=seqs[message.id])
                stored.append(held[message.id])
            stats[after.epoch] = after
        return Appended(tuple(stored), tuple(stats.values()))

    async def recent(self, session: SessionRef, window: Window) -> Tail:
        """See `MessageLog.recent`."""
        since = window.now - timedelta(seconds=window.size) if window.kind == "time" and window.now else None
        answer = await self._call(
            "recent_messages",
            session,
            kind=window.kind,
            size=min(window.size, _MOST),
            since=since and since.isoformat(),
            max_tokens=window.max_tokens and min(window.max_tokens, _MOST),
        )
        if answer is None:
            return Tail(stats=SessionStats(session_id=session.session_id, user_id=session.user_id or ""))
        opening, system = answer["opening"], answer["system"]
        return Tail(
            stats=_stats(answer["stats"]),
            messages=tuple(_message(row, session.session_id) for row in answer["messages"]),
            opening=opening and _message(opening, session.session_id),
            system=system and _message(system, session.session_id),
        )

    async def page(self, session: SessionRef, *, after: int = 0, limit: int = 1000) -> tuple[Message, ...]:
        """See `MessageLog.page`."""
        rows = await self._call("page_messages", session, after=after, limit=min(limit, _MOST))
        return tuple(_message(row, session.session_id) for row in rows)

    async def sessions(
        self,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        after: SessionRef | None = None,
        limit: int = 100,
    ) -> tuple[SessionStats, ...]:
        """See `MessageLog.sessions`."""
        arguments = {
            "user_id": user_id,
            "session_id": session_id,
            "after_user": None if after is None else after.user_id or "",
            "after_session": None if after is None else after.session_id,
            "limit": min(limit, _MOST),
        }
        return tuple(map(_stats, await self._transport.call("memory_sessions", arguments, user_id=user_id)))

    async def delete(self, *, user_id: str | None = None, session_id: str | None = None) -> Receipt:
        """See `MessageLog.delete`. Of a user everything goes, whichever memory it is in."""
        if user_id is None and session_id is None:
            raise InvalidInput("user_id", "name a user or a session; nothing was deleted")
        check_reach(self._transport)
        arguments = {"user_id": user_id, "session_id": session_id}
        return _receipt(await self._transport.call("forget_memory", arguments, user_id=user_id))

    async def prune(self, before: datetime, *, user_id: str | None = None) -> Receipt:
        """See `MessageLog.prune`."""
        check_reach(self._transport)
        arguments = {"before": before.isoformat(), "user_id": user_id}
        return _receipt(await self._transport.call("prune_messages", arguments, user_id=user_id))

    async def _call(self, function: str, session: SessionRef, **arguments: Any) -> Any:
        return await _call(self._transport, function, session, **arguments)


class SqlSummaryLog:
    """The `SummaryLog` port over the functions of `sql/`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def read(self, session: SessionRef, *, finest: int = 64) -> SummaryState:
        """See `SummaryLog.read`."""
        answer = await _call(self._transport, "read_summaries", session, finest=finest)
        if answer is None:
            return SummaryState()
        return SummaryState(
            nodes=tuple(map(_summary, answer["nodes"])),
            covered=answer["covered"],
            pending_tokens=answer["pending_tokens"],
        )

    async def claim(self, session: SessionRef, *, after: int, holder: str, until: datetime, now: datetime) -> bool:
        """See `SummaryLog.claim`."""
        return await _call(
            self._transport,
            "claim_summary",
            session,
            after=after,
            holder=holder,
            until=until.isoformat(),
            now=now.isoformat(),
        )

    async def release(self, session: SessionRef, *, holder: str) -> None:
        """See `SummaryLog.release`."""
        await _call(self._transport, "release_summary", session, holder=holder)

    async def commit(self, session: SessionRef, node: Summary, *, holder: str) -> None:
        """See `SummaryLog.commit`."""
        names = ("level", "from_seq", "to_seq", "tokens", "tokenizer", "model", "model_tokens")
        row = {
            **{name: getattr(node, name) for name in names},
            "lines": [[x.text, x.seqs, x.at.isoformat(), x.weight, x.tokens] for x in node.lines],
            "created_at": node.created_at.isoformat(),
        }
        text = json.dumps(row, ensure_ascii=False)
        await _call(self._transport, "commit_summary", session, repeatable=False, node=text, holder=holder)


async def _call(
    transport: Transport, function: str, session: SessionRef, *, repeatable: bool = True, **arguments: Any
) -> Any:
    named = {"session_id": session.session_id, "user_id": session.user_id, **arguments}
    return await transport.call(function, named, user_id=session.user_id, repeatable=repeatable)


def _session_of(message: Message) -> SessionRef:
    return SessionRef(message.session_id, message.user_id)


def _to_row(message: Message) -> dict[str, Any]:
    names = ("id", "role", "name", "content", "tokens", "tokenizer")
    return {
        **{name: getattr(message, name) for name in names},
        "created_at": message.created_at.isoformat(),
        "extra": extra_json(message),
    }


def _moment(text: str) -> datetime:
    """In UTC, whatever zone the database thinks in."""
    return datetime.fromisoformat(text).astimezone(UTC)


def _message(row: Mapping[str, Any], session_id: str) -> Message:
    return Message(
        id=row["id"],
        session_id=session_id,
        user_id=row["user_id"],
        role=row["role"],
        content=row["content"],
        created_at=_moment(row["created_at"]),
        name=row["name"],
        tokens=row["tokens"],
        tokenizer=row["tokenizer"],
        seq=row["seq"],
        **extra_fields(row["extra"]),
    )


def _stats(row: Mapping[str, Any]) -> SessionStats:
    names = ("user_id", "session_id", "last_seq", "message_count", "turn_count", "tokens")
    return SessionStats(
        epoch=row["pk"],
        **{name: row[name] for name in names},
        first_at=row["first_at"] and _moment(row["first_at"]),
        last_at=row["last_at"] and _moment(row["last_at"]),
    )


def _receipt(answer: Mapping[str, Any]) -> Receipt:
    return Receipt(answer["removed"], tuple(map(_stats, answer["sessions"])))


def _summary(row: Mapping[str, Any]) -> Summary:
    lines = (
        SummaryLine(text, tuple(seqs), datetime.fromisoformat(at), weight, tokens)
        for text, seqs, at, weight, tokens in row["lines"]
    )
    made = {"lines": tuple(lines), "created_at": _moment(row["created_at"])}
    return replace(Summary(**row), **made)
