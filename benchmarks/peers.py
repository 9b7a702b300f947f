"""The contenders of other libraries in `chat_turn.py`: one small class each, with the same few methods."""

# ruff: noqa: D102 - methods are described once, in `Contender`; tables are named by code alone

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

from contenders import (
    LENGTH,
    POOL,
    START,
    TEXTS,
    WINDOW,
    AsyncpgFloor,
    Contender,
    PsycopgFloor,
    Rows,
    ThisProject,
    copy,
    push,
    role,
    text,
)


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
                yield session, at + n, role(n), status, dumped(n % 2, n // 2 % len(TEXTS))

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
