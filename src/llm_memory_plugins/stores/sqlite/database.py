"""One SQLite file: a writer thread, a few reader threads, and migrations.

An operation is one function that runs whole on one thread, in one transaction. A caller that is cancelled while it
waits therefore never leaves a transaction open or half done; that is also why this does not use a statement-at-a-time
async driver.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import TypeVar

from llm_memory_plugins.errors import StoreUnavailable
from llm_memory_plugins.telemetry import logger

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

_BUSY_SECONDS = 10.0
_READERS = 2


@cache
def queries(name: str) -> Mapping[str, str]:
    """The statements of `<name>.sql` beside this file, by the name in the `-- name:` line above each."""
    text = (resources.files(__package__ or "") / f"{name}.sql").read_text(encoding="utf-8")
    found = re.findall(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", text, re.MULTILINE | re.DOTALL)
    return {key: statement.strip().rstrip(";") for key, statement in found}


class Database:
    """Runs operations on one SQLite file, or in memory when `path` is None.

    Durable: a write returns after its commit has reached the disk (WAL with `synchronous=full`).
    """

    def __init__(self, path: Path | None, *, hot: bool = False) -> None:
        self.identity, self.copies_elsewhere = "", False
        self._path = path
        self._hot = hot  # whether this process keeps copies in a shared hot tier
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._writer: ThreadPoolExecutor | None = None
        self._readers: ThreadPoolExecutor | None = None
        self._opening = asyncio.Lock()
        self.kept: dict[str, object] = {}  # by user, what is held in memory of theirs; gone when they are erased

    async def open(self) -> None:
        """Create the file where needed and bring its schema up to date.

        Raises:
            StoreUnavailable: When the file cannot be opened, is no SQLite database, or is from a newer version.
        """
        async with self._opening:
            if self._writer is not None:
                return
            writer = ThreadPoolExecutor(1, thread_name_prefix="llm-memory-sqlite-writer")
            try:
                await asyncio.get_running_loop().run_in_executor(writer, self._migrate)
            except (sqlite3.Error, OSError) as error:
                self._close_connections()
                writer.shutdown(wait=False)
                raise StoreUnavailable(f"the SQLite file cannot be opened: {error}") from error
            except StoreUnavailable:
                self._close_connections()
                writer.shutdown(wait=False)
                raise
            self._writer = writer
            # A database in memory belongs to one connection, so there its reads go through the writer too.
            self._readers = writer if self._path is None else ThreadPoolExecutor(_READERS, "llm-memory-sqlite-reader")

    async def ping(self) -> None:
        """Read one value from the file."""
        await self.read(lambda connection: connection.execute("select max(pk) from sessions").fetchone())

    async def close(self) -> None:
        """Wait for running operations, then close all connections."""
        async with self._opening:
            writer, readers = self._writer, self._readers
            self._writer = self._readers = None
            for pool in (writer, readers):
                if pool is not None:
                    await asyncio.to_thread(pool.shutdown, wait=True)
            self._close_connections()
            self.kept.clear()  # the next open() may find another file

    async def read(self, operation: Operation[T]) -> T:
        """Run an operation on one snapshot.

        Raises:
            StoreUnavailable: When the file cannot be read or the database is closed.
        """
        return await self._run(self._readers, partial(self._transact, "begin", operation))

    async def write(self, operation: Operation[T]) -> T:
        """Run an operation in one transaction that holds the write lock from its start; all or nothing.

        Raises:
            StoreUnavailable: When the file cannot be written or the database is closed.
        """
        return await self._run(self._writer, partial(self._transact, "begin immediate", operation))

    async def _run(self, pool: ThreadPoolExecutor | None, job: Callable[[], T]) -> T:
        if pool is None:
            raise StoreUnavailable("the database is closed; call initialize() first")
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, job)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"SQLite: {error}") from error

    def _transact(self, begin: str, operation: Operation[T]) -> T:
        connection = self._connection()
        connection.execute(begin)
        try:
            result = operation(connection)
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
        return result

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connections.append(connection)
            for pragma in ("journal_mode=wal", "synchronous=full", "foreign_keys=on", "cache_size=-16000"):
                connection.execute(f"pragma {pragma}")
            self._local.connection = connection
        return connection

    def _close_connections(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._local = threading.local()

    @staticmethod
    def _check_owner(path: Path) -> None:
        """Refuse another program's database before anything in it is touched."""
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
            (version,) = connection.execute("pragma user_version").fetchone()
            (tables,) = connection.execute("select count(*) from sqlite_master where type = 'table'").fetchone()
        if version == 0 and tables:
            raise StoreUnavailable("the SQLite file belongs to another program; give database_url another path")

    def _migrate(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._path.exists():  # conversations are private: nobody else on the machine may read the file
                self._path.touch(mode=0o600)
            self._check_owner(self._path)
        connection = self._connection()
        folder = resources.files(__package__ or "") / "schema"
        migrations = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
        connection.execute("begin immediate")  # of two processes that start at once, one migrates
        try:
            (version,) = connection.execute("pragma user_version").fetchone()
            if version > len(migrations):
                raise StoreUnavailable(  # noqa: TRY301 - the transaction has to be rolled back all the same
                    f"the SQLite file has schema {version}, this version knows {len(migrations)}; upgrade the package"
                )
            for number, migration in enumerate(migrations[version:], start=version + 1):
                logger.debug("applying %s", migration.name)
                for statement in _statements(migration.read_text(encoding="utf-8")):
                    connection.execute(statement)
                connection.execute(f"pragma user_version = {number}")
            if self._hot:
                connection.execute("update store set hot = 1 where hot = 0")
            self.identity, hot = connection.execute("select id, hot from store").fetchone()
            self.copies_elsewhere = bool(hot) and not self._hot
            connection.execute("commit")
        except BaseException:
            connection.execute("rollback")
            raise


def _statements(script: str) -> list[str]:
    """Single statements: `executescript` would commit before it begins."""
    statements: list[str] = []
    part = ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            statements.append(part)
            part = ""
    return statements
