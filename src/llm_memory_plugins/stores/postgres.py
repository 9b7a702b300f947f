"""Calls the functions of `sql/` over a direct connection to PostgreSQL: one round trip a call.

Each call sets its role and the claims of its user for its own transaction only, in the same round trip: nothing of it
is left for the next borrower of the connection. A call about one user runs as `authenticated` with that user as its
subject, so that row-level security holds even against a fault in a function; one about all users as `service_role`.
The login needs no rights of its own but membership in the two roles, as Supabase's `authenticator` has.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, partial
from typing import Any, LiteralString, cast

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed
from pydantic import SecretStr

from llm_memory_plugins.errors import ConfigError, LLMMemoryError, StoreUnavailable
from llm_memory_plugins.stores.sql_transport import may_repeat, opened, translated, with_retries
from llm_memory_plugins.stores.whole import Whole

# In UTC, times come back whole: elsewhere the first hours of the year 1 would lie before it.
_ASSUME = """select set_config('role', %s, true), set_config('request.jwt.claims', %s, true),
                    set_config('timezone', 'UTC', true)"""


class _Connection(AsyncConnection[TupleRow]):
    """Cancelling a call closes its connection, at once.

    The driver would ask the server over a second connection to stop and wait for it, for ten seconds when the server
    hangs. We only cancel what has passed its deadline already.
    """

    async def cancel_safe(self, *, timeout: float = 0) -> None:  # noqa: ASYNC109 - the driver's signature
        with suppress(OSError), socket.fromfd(self.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM) as line:
            line.shutdown(socket.SHUT_RDWR)  # what waits for an answer reads its end, and the driver closes the rest


class PostgresTransport:
    """A pool of connections that calls functions.

    Args:
        url: `postgresql://...`.
        pool_size: Connections at most.
        timeout: Seconds a call may take, waiting for a connection included.
        hot: Whether this process keeps copies in a shared hot tier.
        transaction_pooler: True behind PgBouncer or Supavisor in transaction mode, which lose prepared statements.

    Raises:
        ConfigError: When the URL cannot be read.
    """

    def __init__(
        self,
        url: SecretStr,
        *,
        pool_size: int = 10,
        timeout: float = 5.0,
        hot: bool = False,
        transaction_pooler: bool = False,
    ) -> None:
        parts = parts_of(url)
        parts.setdefault("application_name", "llm-memory-plugins")
        parts.setdefault("connect_timeout", max(2, round(timeout)))  # libpq takes whole seconds, two at least
        # A network that swallows everything is noticed as soon as a server that hangs, not after a quarter of an hour.
        parts.setdefault("tcp_user_timeout", round(1000 * timeout))
        self._conninfo = SecretStr(make_conninfo("", **parts))
        self._options = {"autocommit": True, "prepare_threshold": None if transaction_pooler else 0}
        self.identity, self.copies_elsewhere = "", False
        self._hot = hot
        self._pool_size = pool_size
        self._timeout = timeout
        self._pool: AsyncConnectionPool[_Connection] | None = None
        self._opening = asyncio.Lock()
        self._calls = Whole()  # a caller that is cancelled leaves its connection in good order
        self._waiting: set[asyncio.Timeout] = set()  # of calls that have no connection yet
        self._refused_at = -1.0

    async def open(self) -> None:
        """Connect, and see whether the schema is there.

        Raises:
            StoreUnavailable: When the server cannot be reached, or the schema is missing or too old.
            AccessDenied: When the login may not act for users.
        """
        async with self._opening:
            if self._pool is not None:
                return
            await self._try_to_connect()  # says what is wrong, where a pool would only go on trying
            pool = AsyncConnectionPool(
                self._conninfo.get_secret_value(),
                connection_class=_Connection,
                kwargs=self._options,
                min_size=min(2, self._pool_size),
                max_size=self._pool_size,
                timeout=2 * self._timeout,  # ours ends first
                reconnect_timeout=0,  # it tries again when somebody asks, not after ever longer pauses
                reconnect_failed=self._refused,
                open=False,
                name="llm-memory",
            )
            await pool.open()
            self._pool = pool
            try:
                answer = await self.call("open_memory", {"hot": self._hot}, user_id=None)
                self.identity, self.copies_elsewhere = opened(answer, hot=self._hot)
            except BaseException:
                self._pool = None
                await pool.close()
                raise

    async def ping(self) -> None:
        """Call the smallest function there is."""
        await self.call("open_memory", {}, user_id=None)

    async def close(self) -> None:
        """Wait for running calls, then close all connections."""
        async with self._opening:
            await self._calls.ended()
            pool, self._pool = self._pool, None
            if pool is not None:
                await pool.close()

    async def call(
        self, function: str, arguments: Mapping[str, Any], *, user_id: str | None, repeatable: bool = True
    ) -> Any:
        """See `Transport.call`."""
        deadline = asyncio.get_running_loop().time() + self._timeout  # of all attempts together
        work = with_retries(
            partial(self._attempt, function, arguments, user_id, deadline),
            errors=(psycopg.Error,),
            repeat=lambda error: _is_transient(error, repeatable=repeatable),
            seconds=self._timeout,
        )
        return await self._calls.run(_translating(work))

    async def _attempt(self, function: str, arguments: Mapping[str, Any], user_id: str | None, deadline: float) -> Any:
        pool = self._pool
        if pool is None:
            raise StoreUnavailable("the database is closed; call initialize() first")
        role, claims = ("service_role", "") if user_id is None else ("authenticated", _claims(user_id))
        connection = await self._borrow(pool, deadline)
        try:
            async with asyncio.timeout_at(deadline):
                # Without BEGIN a pipeline is one transaction, which ends, and the role with it, where it is synced.
                async with connection.pipeline():
                    await connection.execute(_ASSUME, (role, claims))
                    answer = await connection.execute(_query(function, *arguments), arguments)
                row = await answer.fetchone()
        except psycopg.OperationalError:
            if connection.closed and not pool.closed:
                await pool.drain()  # where one connection was lost, the idle ones are likely to be lost too
            raise
        finally:
            await pool.putconn(connection)
        return row[0] if row else None

    async def _borrow(self, pool: AsyncConnectionPool[_Connection], deadline: float) -> _Connection:
        """A connection; or an error as soon as the server refuses one, where the pool would let the caller wait."""
        begun = asyncio.get_running_loop().time()
        waiting = asyncio.timeout_at(deadline)
        try:
            async with waiting:
                self._waiting.add(waiting)
                return await pool.getconn()
        except TimeoutError:
            if self._refused_at >= begun:
                raise psycopg.OperationalError("the server refuses connections") from None
            raise
        finally:
            self._waiting.discard(waiting)

    async def _refused(self, _: object) -> None:
        """The pool could not connect: let nobody wait any longer, unless it has connections that will come free."""
        if self._pool is not None and self._pool.get_stats().get("pool_size", 0) > 0:
            return
        self._refused_at = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            if not waiting.expired():  # else it is on its way out, and cannot be told again
                waiting.reschedule(self._refused_at)

    async def _try_to_connect(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                connection = await AsyncConnection.connect(self._conninfo.get_secret_value())
        except (psycopg.Error, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"PostgreSQL cannot be reached: {first_line(error)}") from None
        await connection.close()


async def _translating(work: Any) -> Any:
    try:
        return await work
    except (TimeoutError, PoolClosed):
        raise StoreUnavailable("PostgreSQL did not answer in time") from None
    except psycopg.Error as error:
        raise _translated(error) from None


def parts_of(url: SecretStr) -> dict[str, Any]:
    """The parameters of a connection.

    Raises:
        ConfigError: When the URL cannot be read, or a password was taken for a part that errors would show: one with
            an unescaped @ or / ends there, and its rest becomes the host or the port.
    """
    try:
        parts = conninfo_to_dict(url.get_secret_value())
    except psycopg.ProgrammingError:  # its text holds the URL
        parts = None
    if parts is None:
        raise ConfigError("database_url: is no PostgreSQL URL; write postgresql://user:password@host:5432/database")
    host, port = str(parts.get("host", "")), str(parts.get("port", ""))
    if "@" in host or (port and not port.replace(",", "").isdigit()):
        raise ConfigError("database_url: write @ as %40 and / as %2F in the password")
    return parts


def first_line(error: BaseException) -> str:
    """What the driver says of a failed connection: where and why, never the password."""
    return (str(error).strip().splitlines() or ["no answer in time"])[0]


def _translated(error: psycopg.Error) -> LLMMemoryError:
    return translated(error.sqlstate, error.diag.message_primary, error.diag.message_hint)


def _is_transient(error: Exception, *, repeatable: bool) -> bool:
    if isinstance(error, PoolClosed):
        return False
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return may_repeat(error.sqlstate, repeatable=repeatable)
    return isinstance(error, psycopg.Error) and may_repeat(error.sqlstate or "unknown", repeatable=repeatable)


def _claims(user_id: str) -> str:
    return json.dumps({"sub": user_id, "role": "authenticated"})


@cache
def _query(function: str, *arguments: str) -> LiteralString:
    """Functions and arguments are named by code alone, never by data."""
    named = ", ".join(f"p_{name} => %({name})s" for name in arguments)
    return cast("LiteralString", f"select public.{function}({named})")
