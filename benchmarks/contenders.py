"""What `chat_turn.py` compares: the base of all contenders, the floors, and this project. The peers are in `peers.py`.

Message `n` of every session is `text(n)`, said by the user when `n` is even. So each contender can fill its store by
itself, in bulk but with the very rows it would have written, and what it reads back can be checked.
"""

# ruff: noqa: D102, S608 - methods are described once, in `Contender`; tables are named by code alone

from __future__ import annotations

import asyncio
import json
import random
import statistics
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from typing import Any

WINDOW = 20
POOL = 10  # connections, where a contender lets one choose: as many as this project has by default
START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = [
    "the",
    "plan",
    "for",
    "next",
    "week",
    "says",
    "that",
    "we",
    "meet",
    "station",
    "bring",
    "what",
    "agreed",
    "phone",
]
COPIES = 2000  # messages: so many copies of a short history together hold as many
LENGTH = 40  # words of a message; all of them are one token each
_rng = random.Random(0)
TEXTS = [" ".join(_rng.choices(WORDS, k=LENGTH)) for _ in range(1009)]

Rows = Iterator[Sequence[Any]]


def text(n: int) -> str:
    """What message `n` says."""
    return TEXTS[n % len(TEXTS)]


def role(n: int) -> str:
    """Who says it."""
    return ("user", "assistant")[n % 2]


def batches(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """The items, some at a time."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


async def copy(database_url: str, table: str, rows: Rows) -> None:
    """Write rows by COPY, behind the back of whose table it is."""
    import psycopg

    async with (
        await psycopg.AsyncConnection.connect(database_url) as connection,
        connection.cursor() as cursor,
        cursor.copy(f"copy {table} from stdin") as stream,
    ):
        for row in rows:
            await stream.write_row(row)


async def push(redis_url: str, command: str, key: str, size: int, element: Callable[[int], str]) -> None:
    """Write a list of `size` elements; those of equal text and role are encoded once."""
    import redis.asyncio

    encoded = cache(lambda kind, which: element(2 * which + kind))
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        for batch in batches(range(size), 1000):
            await client.execute_command(command, key, *(encoded(n % 2, n // 2 % len(TEXTS)) for n in batch))


class Contender:
    """Appends turns to sessions and reads the last `WINDOW` messages.

    Attributes:
        name: In the tables.
        durability: What survives when `append` has returned.
        whole: True when every turn reads or rewrites the whole history, so that long ones need a time limit.
        longest: History that can be filled.
        in_threads: Set to run a blocking contender in threads, for many sessions at once.
        degraded: Reads that said they were slower than they should have been.
    """

    name: str
    durability: str
    whole = False
    longest = 1_000_000_000
    in_threads = False
    degraded = 0

    async def open(self, database_url: str, redis_url: str) -> None:
        """Connect, and make tables where there are none."""
        raise NotImplementedError

    async def fill(self, session: str, size: int) -> None:
        """Make a session of `size` messages."""
        raise NotImplementedError

    async def append(self, session: str, first: int) -> None:
        """Add the messages `first` and `first + 1`."""
        raise NotImplementedError

    async def read(self, session: str) -> list[str]:
        """What the last messages say, oldest first."""
        raise NotImplementedError

    async def close(self) -> None:
        """Disconnect."""

    async def _blocking(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments) if self.in_threads else function(*arguments)


class Floor(Contender):
    """The least that does the same: one statement of two rows, one pipeline, and for a read one more.

    It counts no tokens, checks nothing, knows no user, keeps no totals, and lets a sequence number the rows, so
    that concurrent writers of a session leave gaps in no particular order.
    """

    durability = "durable: PostgreSQL has committed (fsync); Redis holds a copy of the end"
    table = "floor_messages"
    _cap, _ttl = WINDOW, 3600

    async def open(self, database_url: str, redis_url: str) -> None:
        import redis.asyncio

        self._url = database_url
        self._redis = redis.asyncio.Redis.from_url(redis_url)
        self._free: asyncio.LifoQueue[Any] = asyncio.LifoQueue()
        connections = [await self._connect(database_url) for _ in range(POOL)]
        await self._execute(
            connections[0],
            f"create table if not exists {self.table} (session text not null, seq bigint generated always as identity,"
            "role text not null, content text not null, created_at timestamptz not null default now(),"
            "primary key (session, seq))",
        )
        for connection in connections:
            self._free.put_nowait(connection)

    async def fill(self, session: str, size: int) -> None:
        rows = ((session, role(n), text(n)) for n in range(size))
        await copy(self._url, f"{self.table} (session, role, content)", rows)

    async def append(self, session: str, first: int) -> None:
        said = [(role(n), text(n)) for n in (first, first + 1)]
        await self._ask(self._insert, session, *said[0], *said[1])
        await self._push(session, said)

    async def read(self, session: str) -> list[str]:
        pipe = self._redis.pipeline(transaction=False)
        pipe.lrange(f"{self.name}:{session}", -WINDOW, -1)
        (elements,) = await pipe.execute()
        if len(elements) == WINDOW:
            return [json.loads(element)[1] for element in elements]
        rows = await self._ask(self._select, session)
        said = [(row[0], row[1]) for row in reversed(rows)]
        await self._push(session, said, anew=True)
        return [content for _, content in said]

    async def close(self) -> None:
        await self._redis.aclose()
        while not self._free.empty():
            await self._free.get_nowait().close()

    async def _push(self, session: str, said: Sequence[tuple[str, str]], anew: bool = False) -> None:
        key = f"{self.name}:{session}"
        pipe = self._redis.pipeline(transaction=False)
        if anew:
            pipe.delete(key)
        pipe.rpush(key, *(json.dumps(entry) for entry in said))
        pipe.ltrim(key, -self._cap, -1)
        pipe.expire(key, self._ttl)
        await pipe.execute()

    async def _ask(self, statement: str, *arguments: str) -> list[Any]:
        connection = await self._free.get()
        try:
            return await self._execute(connection, statement, *arguments)
        finally:
            self._free.put_nowait(connection)

    _insert: str
    _select: str

    async def _connect(self, url: str) -> Any:
        raise NotImplementedError

    async def _execute(self, connection: Any, statement: str, *arguments: str) -> list[Any]:
        raise NotImplementedError


class AsyncpgFloor(Floor):
    """Over asyncpg, which prepares each statement once."""

    name = "raw asyncpg + redis-py"
    table = "floor_asyncpg"
    _insert = f"insert into {table} (session, role, content) values ($1, $2, $3), ($1, $4, $5)"
    _select = f"select role, content from {table} where session = $1 order by seq desc limit {WINDOW}"

    async def _connect(self, url: str) -> Any:
        import asyncpg

        return await asyncpg.connect(url)

    async def _execute(self, connection: Any, statement: str, *arguments: str) -> list[Any]:
        return await connection.fetch(statement, *arguments)


class PsycopgFloor(Floor):
    """Over psycopg, prepared. One statement needs no pipeline, which would only cost time."""

    name = "raw psycopg + redis-py"
    table = "floor_psycopg"
    _insert = f"insert into {table} (session, role, content) values (%s, %s, %s), (%s, %s, %s)"
    _select = f"select role, content from {table} where session = %s order by seq desc limit {WINDOW}"

    async def _connect(self, url: str) -> Any:
        import psycopg

        return await psycopg.AsyncConnection.connect(url, autocommit=True, prepare_threshold=0)

    async def _execute(self, connection: Any, statement: str, *arguments: str) -> list[Any]:
        if len(arguments) > 1:  # it has no numbered parameters
            arguments = (*arguments[:3], arguments[0], *arguments[3:])
        cursor = await connection.execute(statement, arguments or None)
        return await cursor.fetchall() if cursor.description else []


class ThisProject(Contender):
    """`ConversationBufferMemory` on PostgreSQL and Redis, everything else at its default."""

    name = "this project"
    durability = "durable: PostgreSQL has committed (fsync); Redis holds a copy of the end"
    user = "user@example.org"

    async def open(self, database_url: str, redis_url: str) -> None:
        from llm_memory_plugins import ConversationBufferMemory

        self._url = database_url
        config = {"database_url": database_url, "redis_url": redis_url, "window_size": WINDOW // 2}
        self._memory = ConversationBufferMemory(config)
        self._make = ConversationBufferMemory
        await self._memory.initialize()

    async def fill(self, session: str, size: int) -> None:
        import psycopg
        from uuid_utils import uuid7

        # The first turn by an engine without Redis, so that the copy cannot miss what is written behind its back.
        async with self._make({"database_url": self._url, "redis_url": None}) as memory:
            stored = await memory.store([self._message(session, n) | {"created_at": START} for n in (0, 1)])
            pk = (await memory.get_session_stats(session, self.user)).epoch
        tokens = [message.tokens for message in stored]  # texts are of equal length
        ever = [sum(tokens) * (n // 2) + sum(tokens[: n % 2 + 1]) for n in range(size)]
        tokenizer = stored[0].tokenizer

        def rows() -> Rows:
            for n in range(2, size):
                at, own = START + timedelta(seconds=n), tokens[n % 2]
                yield self.user, pk, n + 1, str(uuid7()), role(n), None, text(n), at, own, tokenizer, ever[n], None

        await copy(self._url, "llm_memory.messages", rows())
        async with await psycopg.AsyncConnection.connect(self._url) as connection:
            await connection.execute(
                "update llm_memory.sessions set last_seq = %(n)s, message_count = %(n)s, turn_count = %(n)s / 2,"
                "tokens = %(t)s, tokens_ever = %(t)s, last_at = %(at)s where pk = %(pk)s",
                {"n": size, "t": ever[-1], "at": START + timedelta(seconds=size - 1), "pk": pk},
            )

    async def append(self, session: str, first: int) -> None:
        await self._memory.store([self._message(session, n) for n in (first, first + 1)])

    async def read(self, session: str) -> list[str]:
        context = await self._memory.get_context({"session_id": session, "user_id": self.user})
        self.degraded += bool(context.errors)
        return [message.content for message in context.messages]

    async def close(self) -> None:
        await self._memory.close()

    def _message(self, session: str, n: int) -> dict[str, Any]:
        return {"session_id": session, "user_id": self.user, "role": role(n), "content": text(n)}


class Cell:
    """What was measured of one contender in histories of one length."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.copies = max(1, COPIES // size)
        self.turns = 0  # that were begun
        self.tried = False  # whether a trial turn has shown how long one takes
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.note = ""  # why there are no figures, or few

    def session(self, copy: int) -> str:
        """The id of one of the histories."""
        return session(f"{self.size} {copy}")

    def following(self) -> tuple[str, int]:
        """Where the next turn takes place, and the number of its first message."""
        round_, copy = divmod(self.turns, self.copies)
        self.turns += 1
        return self.session(copy), self.size + 2 * round_

    def p50(self, part: str) -> float | None:
        """Median in milliseconds."""
        return 1000 * statistics.median(self.seconds[part]) if self.seconds[part] else None

    def p95(self, part: str) -> float | None:
        """95th percentile in milliseconds."""
        taken = sorted(self.seconds[part])
        return 1000 * taken[int(0.95 * (len(taken) - 1))] if taken else None


def session(name: object) -> str:
    """The id of a session; LangChain wants a UUID."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(name)))
