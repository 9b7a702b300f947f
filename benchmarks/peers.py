"""The contenders of `chat_turn.py`: one small class each, with the same few methods.

Message `n` of every session is `text(n)`, said by the user when `n` is even. So each contender can fill its store by
itself, in bulk but with the very rows it would have written, and what it reads back can be checked.
"""

# ruff: noqa: D102, S608 - methods are described once, in `Contender`; tables are named by code alone

from __future__ import annotations

import asyncio
import json
import random
import warnings
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
LENGTH = 40  # words of a message; all of them are one token each
_rng = random.Random(0)
_TEXTS = [" ".join(_rng.choices(WORDS, k=LENGTH)) for _ in range(1009)]

Rows = Iterator[Sequence[Any]]


def text(n: int) -> str:
    """What message `n` says."""
    return _TEXTS[n % len(_TEXTS)]


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
            await client.execute_command(command, key, *(encoded(n % 2, n // 2 % len(_TEXTS)) for n in batch))


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


class LangChainWindow(Contender):
    """`ConversationBufferWindowMemory` over `RedisChatMessageHistory` of langchain-community (sync drivers).

    langchain-redis has a class of the same name, which needs the RediSearch module.
    """

    name = "LangChain window on Redis"
    durability = "NOT durable: in Redis alone, lost with it (here it keeps nothing on disk)"
    whole = True

    async def open(self, database_url: str, redis_url: str) -> None:
        from langchain_classic.memory import ConversationBufferWindowMemory
        from langchain_community.chat_message_histories import RedisChatMessageHistory

        self._redis_url = redis_url
        warnings.simplefilter("ignore")  # deprecations; after the imports, which set filters of their own

        @cache
        def memory(session: str) -> ConversationBufferWindowMemory:
            history = RedisChatMessageHistory(session, url=redis_url)
            return ConversationBufferWindowMemory(k=WINDOW // 2, chat_memory=history, return_messages=True)

        self._memory = memory

    async def fill(self, session: str, size: int) -> None:
        from langchain_core.messages import message_to_dict

        await push(
            self._redis_url, "LPUSH", f"message_store:{session}", size,
            lambda n: json.dumps(message_to_dict(langchain_message(n))),
        )  # fmt: skip

    async def append(self, session: str, first: int) -> None:
        save = self._memory(session).save_context
        await self._blocking(save, {"input": text(first)}, {"output": text(first + 1)})

    async def read(self, session: str) -> list[str]:
        found = await self._blocking(self._memory(session).load_memory_variables, {})
        return [message.content for message in found["history"]]


class LangChainPostgres(Contender):
    """`PostgresChatMessageHistory` of langchain-postgres, async, a connection for each session."""

    name = "LangChain history on PostgreSQL"
    durability = "durable: PostgreSQL has committed (fsync)"
    whole = True
    table = "langchain_history"

    async def open(self, database_url: str, redis_url: str) -> None:
        import psycopg
        from langchain_postgres import PostgresChatMessageHistory

        self._url = database_url
        self._make = PostgresChatMessageHistory
        self._connections: dict[str, Any] = {}
        async with await psycopg.AsyncConnection.connect(database_url) as connection:
            await PostgresChatMessageHistory.acreate_tables(connection, self.table)

    async def fill(self, session: str, size: int) -> None:
        from langchain_core.messages import message_to_dict

        rows = ((session, json.dumps(message_to_dict(langchain_message(n)))) for n in range(size))
        await copy(self._url, f"{self.table} (session_id, message)", rows)

    async def append(self, session: str, first: int) -> None:
        history = await self._history(session)
        await history.aadd_messages([langchain_message(n) for n in (first, first + 1)])

    async def read(self, session: str) -> list[str]:
        history = await self._history(session)
        return [message.content for message in (await history.aget_messages())[-WINDOW:]]

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    async def _history(self, session: str) -> Any:
        import psycopg

        if session not in self._connections:
            self._connections[session] = await psycopg.AsyncConnection.connect(self._url)
        return self._make(self.table, session, async_connection=self._connections[session])


class LangGraphCheckpoints(Contender):
    """`AsyncPostgresSaver` below a graph of one node: the state is the list of all messages.

    `durability="exit"` writes one checkpoint a turn; the default, "async", writes one a step.
    """

    name = "LangGraph on PostgreSQL"
    durability = "durable: PostgreSQL has committed the checkpoint (fsync)"
    whole = True
    longest = 100_000  # of a million it would write one value of about 400 MB every turn

    async def open(self, database_url: str, redis_url: str) -> None:
        from langchain_core.messages import AIMessage
        from langchain_core.runnables import RunnableConfig
        from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
        from langgraph.graph import START as BEGIN
        from langgraph.graph import MessagesState, StateGraph
        from psycopg.rows import dict_row
        from psycopg_pool import AsyncConnectionPool

        def answer(state: MessagesState, config: RunnableConfig) -> dict[str, Any]:
            return {"messages": [AIMessage(config["configurable"]["answer"])]}

        answer.__annotations__ = {"state": MessagesState, "config": RunnableConfig}  # which it evaluates elsewhere
        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        self._pool = AsyncConnectionPool(database_url, kwargs=options, min_size=2, max_size=POOL, open=False)
        await self._pool.open(wait=True)
        saver = AsyncPostgresSaver(self._pool)
        await saver.setup()
        graph = StateGraph(MessagesState)
        graph.add_node("answer", answer)
        graph.add_edge(BEGIN, "answer")
        self._graph = graph.compile(checkpointer=saver)

    async def fill(self, session: str, size: int) -> None:
        said = [langchain_message(n).model_copy() for n in range(size)]
        await self._graph.aupdate_state(self._config(session), {"messages": said}, as_node="answer")

    async def append(self, session: str, first: int) -> None:
        said = {"messages": [langchain_message(first).model_copy()]}
        await self._graph.ainvoke(said, self._config(session, answer=text(first + 1)), durability="exit")

    async def read(self, session: str) -> list[str]:
        state = await self._graph.aget_state(self._config(session))
        return [message.content for message in state.values["messages"][-WINDOW:]]

    async def close(self) -> None:
        await self._pool.close()

    def _config(self, session: str, **more: str) -> Any:
        return {"configurable": {"thread_id": session, **more}}


class LlamaIndexBuffer(Contender):
    """`ChatMemoryBuffer` on `RedisChatStore` (sync drivers), its token limit set to the length of the window."""

    name = "LlamaIndex buffer on Redis"
    durability = "NOT durable: in Redis alone, lost with it (here it keeps nothing on disk)"
    whole = True

    async def open(self, database_url: str, redis_url: str) -> None:
        from llama_index.core.memory import ChatMemoryBuffer
        from llama_index.storage.chat_store.redis import RedisChatStore

        self._redis_url = redis_url
        store = RedisChatStore(redis_url=redis_url)
        limit = WINDOW * LENGTH + LENGTH // 2
        self._memory = cache(
            lambda session: ChatMemoryBuffer.from_defaults(token_limit=limit, chat_store=store, chat_store_key=session)
        )

    async def fill(self, session: str, size: int) -> None:
        await push(self._redis_url, "RPUSH", session, size, lambda n: llama_message(n).model_dump_json())

    async def append(self, session: str, first: int) -> None:
        said = [llama_message(n) for n in (first, first + 1)]
        await self._blocking(self._memory(session).put_messages, said)

    async def read(self, session: str) -> list[str]:
        return [message.content for message in await self._blocking(self._memory(session).get)]


class LlamaIndexMemory(Contender):
    """`Memory.from_defaults` on its own tables in PostgreSQL (asyncpg below SQLAlchemy).

    Limits are set so that the short-term queue is the window; what leaves it is archived in the same table.
    """

    name = "LlamaIndex Memory on PostgreSQL"
    durability = "durable: PostgreSQL has committed (fsync)"
    table = "llama_index_memory"

    async def open(self, database_url: str, redis_url: str) -> None:
        from llama_index.core.memory import Memory
        from sqlalchemy.ext.asyncio import create_async_engine

        self._url = database_url
        scheme, _, rest = database_url.partition("://")
        self._engine = create_async_engine(f"{scheme}+asyncpg://{rest}", pool_size=POOL)
        limits = {"token_limit": WINDOW * LENGTH + LENGTH // 2, "token_flush_size": 1, "chat_history_token_ratio": 1.0}
        self._memory = cache(lambda session: Memory.from_defaults(session, async_engine=self._engine, **limits))
        await self._memory("none").aget_all()  # makes the table

    async def fill(self, session: str, size: int) -> None:
        dumped = cache(lambda kind, which: json.dumps(llama_message(2 * which + kind).model_dump(mode="json")))
        at = int(START.timestamp() * 1e9)

        def rows() -> Rows:
            for n in range(size):
                status = "active" if n >= size - WINDOW else "archived"
                yield session, at + n, role(n), status, dumped(n % 2, n // 2 % len(_TEXTS))

        await copy(self._url, f"{self.table} (key, timestamp, role, status, data)", rows())

    async def append(self, session: str, first: int) -> None:
        await self._memory(session).aput_messages([llama_message(n) for n in (first, first + 1)])

    async def read(self, session: str) -> list[str]:
        return [message.content for message in await self._memory(session).aget()]

    async def close(self) -> None:
        await self._engine.dispose()


def langchain_message(n: int) -> Any:
    """Message `n` as LangChain's."""
    from langchain_core.messages import AIMessage, HumanMessage

    return (AIMessage if n % 2 else HumanMessage)(text(n))


def llama_message(n: int) -> Any:
    """Message `n` as LlamaIndex's."""
    from llama_index.core.llms import ChatMessage

    return ChatMessage(role=role(n), content=text(n))


CONTENDERS: dict[str, type[Contender]] = {
    kind.name: kind
    for kind in (
        AsyncpgFloor,
        PsycopgFloor,
        ThisProject,
        LangChainWindow,
        LangChainPostgres,
        LangGraphCheckpoints,
        LlamaIndexBuffer,
        LlamaIndexMemory,
    )
}
