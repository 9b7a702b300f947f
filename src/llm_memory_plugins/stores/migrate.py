"""Brings a PostgreSQL database up to the schema in `sql/`, as psql does with `database_migrations.sql`."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import LiteralString, cast

import psycopg
from pydantic import SecretStr

from llm_memory_plugins.errors import StoreUnavailable
from llm_memory_plugins.stores.postgres import first_line, parts_of

_LOCK = 7305716412045301  # any number, but the same in database_migrations.sql
_NUMBERED = re.compile(r"(\d{4})_(\w+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `sql/`."""

    version: int
    name: str
    sql: str


def folder() -> Traversable:
    """Where the migrations are: in the installed package, or beside the sources of a checkout.

    Raises:
        StoreUnavailable: When they are in neither place.
    """
    packaged = resources.files("llm_memory_plugins") / "sql"
    for place in (packaged, Path(__file__).parents[3] / "sql"):
        if (place / "database_migrations.sql").is_file():
            return place
    raise StoreUnavailable("the migrations are missing from this installation; install the package again")


def migrations() -> list[Migration]:
    """All of them, in order."""
    found = ((_NUMBERED.fullmatch(file.name), file) for file in folder().iterdir())
    read = [Migration(int(m[1]), m[2], file.read_text(encoding="utf-8")) for m, file in found if m]
    return sorted(read, key=lambda migration: migration.version)


async def migrate(url: SecretStr) -> AsyncIterator[tuple[Migration, int]]:
    """Apply what is missing, one transaction each, and yield each migration with how many are left after it.

    Of several who migrate at once one works and the others wait for it. After a failure, doing it again goes on where
    it stopped; doing it again after success does nothing.

    Args:
        url: Of a login that may create schemas and roles.

    Raises:
        ConfigError: When the URL cannot be read.
        StoreUnavailable: When the server cannot be reached, or refuses a migration.
    """
    wanted = migrations()
    connection = None
    try:
        connection = await psycopg.AsyncConnection.connect(**parts_of(url), autocommit=True)
        await connection.execute("set client_min_messages = warning")
        await connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
        applied = await _applied(connection)
        missing = [migration for migration in wanted if migration.version > applied]
        for number, migration in enumerate(missing, start=1):
            try:
                async with connection.transaction():
                    await connection.execute(cast("LiteralString", migration.sql))
            except psycopg.Error as error:
                raise StoreUnavailable(
                    f"migration {migration.version:04}_{migration.name} failed and was undone: "
                    f"{error.diag.message_primary or type(error).__name__}"
                ) from None
            yield migration, len(missing) - number
    except psycopg.ProgrammingError:
        raise StoreUnavailable("this login may not migrate: it cannot read llm_memory.migrations") from None
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL cannot be reached: {first_line(error)}") from None
    finally:
        if connection is not None:
            await connection.close()  # and with it the lock


async def index_embeddings(url: SecretStr, dimensions: int, *, drop: bool = False) -> None:
    """Make, or drop, the index for approximate search among vectors of so many dimensions.

    It serves users with more than 20,000 passages, is made in minutes for a million, during which nobody writes, and
    makes storing slower from then on.

    Args:
        url: Of the login that migrated.
        dimensions: As the embedder's identity ends; at most 4,000.
        drop: Drop it instead.

    Raises:
        ConfigError: When the URL cannot be read.
        StoreUnavailable: When the server cannot be reached, or refuses.
    """
    function = "drop_embeddings_index" if drop else "index_embeddings"
    try:
        async with await psycopg.AsyncConnection.connect(**parts_of(url), autocommit=True) as connection:
            await connection.execute(f"select llm_memory.{function}(%s)", (dimensions,))
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"PostgreSQL cannot be reached: {first_line(error)}") from None
    except psycopg.Error as error:
        raise StoreUnavailable(
            f"no index was made or dropped: {error.diag.message_primary or type(error).__name__}"
        ) from None


async def _applied(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> int:
    found = await connection.execute("select to_regclass('llm_memory.migrations') is not null")
    if (await found.fetchone()) != (True,):
        return 0
    newest = await connection.execute("select coalesce(max(version), 0) from llm_memory.migrations")
    row = await newest.fetchone()
    return cast("int", row[0]) if row else 0
