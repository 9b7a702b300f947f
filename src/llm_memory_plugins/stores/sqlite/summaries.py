"""The `SummaryLog` port on SQLite."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime
from typing import Any

from llm_memory_plugins.errors import Conflict
from llm_memory_plugins.stores.sqlite.database import Database, queries
from llm_memory_plugins.stores.sqlite.messages import find_session, from_micros, to_micros
from llm_memory_plugins.types import SessionRef, Summary, SummaryLine, SummaryState

_SQL = queries("summaries")


class SqliteSummaryLog:
    """Summaries beside the messages they cover, in the same SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(self, session: SessionRef, *, finest: int = 64) -> SummaryState:
        """See `SummaryLog.read`."""

        def run(connection: sqlite3.Connection) -> SummaryState:
            if (found := find_session(connection, session)) is None:
                return SummaryState()
            names = {"pk": found[0], "limit": finest}
            covered, pending = connection.execute(_SQL["progress"], names).fetchone()
            rows = [*connection.execute(_SQL["top"], names), *connection.execute(_SQL["newest_leaves"], names)]
            nodes = sorted(map(_summary, rows), key=lambda node: (node.from_seq, node.level))
            return SummaryState(nodes=tuple(nodes), covered=covered, pending_tokens=pending)

        return await self._database.read(run)

    async def claim(self, session: SessionRef, *, after: int, holder: str, until: datetime, now: datetime) -> bool:
        """See `SummaryLog.claim`."""
        names = {"after": after, "holder": holder, "until": to_micros(until), "now": to_micros(now)}

        def run(connection: sqlite3.Connection) -> bool:
            found = find_session(connection, session)
            return bool(found and connection.execute(_SQL["claim"], {**names, "pk": found[0]}).rowcount)

        return await self._database.write(run)

    async def release(self, session: SessionRef, *, holder: str) -> None:
        """See `SummaryLog.release`."""

        def run(connection: sqlite3.Connection) -> None:
            if found := find_session(connection, session):
                connection.execute(_SQL["release"], {"pk": found[0], "holder": holder})

        await self._database.write(run)

    async def commit(self, session: SessionRef, node: Summary, *, holder: str) -> None:
        """See `SummaryLog.commit`."""
        await self._database.write(lambda connection: _commit(connection, session, node, holder))


def _commit(connection: sqlite3.Connection, session: SessionRef, node: Summary, holder: str) -> None:
    found = find_session(connection, session)
    if found is None or connection.execute(_SQL["claimant"], {"pk": found[0]}).fetchone() != (holder,):
        raise Conflict("the claim is gone, or the session with it")
    names: dict[str, Any] = {
        **{key: getattr(node, key) for key in ("level", "from_seq", "to_seq", "tokens", "tokenizer", "model")},
        "pk": found[0],
        "lines": json.dumps([[x.text, x.seqs, to_micros(x.at), x.weight, x.tokens] for x in node.lines]),
        "model_tokens": node.model_tokens,
        "created_at": to_micros(node.created_at),
    }
    if node.level == 0:
        if not connection.execute(_SQL["cover"], names).rowcount:
            raise Conflict(f"messages {node.from_seq}..{node.to_seq} are not the next ones to be summarised")
    else:
        first, last, count = connection.execute(_SQL["children"], names).fetchone()
        if (first, last) != (node.from_seq, node.to_seq) or count < 2:
            raise Conflict(f"no unrolled nodes of level {node.level - 1} make up {node.from_seq}..{node.to_seq}")
        connection.execute(_SQL["roll"], names)
    connection.execute(_SQL["insert"], names)


def _summary(row: tuple[Any, ...]) -> Summary:
    _, level, from_seq, to_seq, _, lines, tokens, tokenizer, model, model_tokens, created_at = row
    return Summary(
        from_seq=from_seq,
        to_seq=to_seq,
        level=level,
        lines=tuple(
            SummaryLine(text, tuple(seqs), from_micros(at), weight, counted)
            for text, seqs, at, weight, counted in json.loads(lines)
        ),
        tokens=tokens,
        tokenizer=tokenizer,
        model=model,
        created_at=from_micros(created_at),
        model_tokens=model_tokens,
    )
