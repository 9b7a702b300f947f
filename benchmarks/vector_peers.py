"""The contenders of other libraries in `vector.py`: one small class each, with the same few methods.

All are handed the same offline embedder as their embedding object, and have a collection or a table for each tenant. A
peer whose package is missing says so when it is opened.
"""

# ruff: noqa: D102, S608 - methods are described once, in `Contender`; tables are named by code alone

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from vector_contenders import BEST, DIMENSIONS, Contender, embed, key, metadata, number_of


class Peer(Contender):
    """What the peers share: a store for each tenant, made when it is first needed."""

    peer = True

    async def open(self, place: str) -> None:
        self._place = place
        self._stores: dict[str, Any] = {}
        self._import()
        warnings.simplefilter("ignore")  # deprecations; after the imports, which set filters of their own

    def _store(self, tenant: str) -> Any:
        if tenant not in self._stores:
            self._stores[tenant] = self._made(tenant)
        return self._stores[tenant]

    def _import(self) -> None:
        """Import what is needed. Raises `ImportError` where it is not installed."""
        raise NotImplementedError

    def _made(self, tenant: str) -> Any:
        raise NotImplementedError


class LangChainPeer(Peer):
    """A `VectorStore` of LangChain's, with an `Embeddings` object that embeds offline."""

    def _import(self) -> None:
        from langchain_core.embeddings import Embeddings

        class Offline(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return embed(texts).tolist()

            def embed_query(self, text: str) -> list[float]:
                return embed([text])[0].tolist()

        self._embeddings = Offline()

    async def ingest(self, tenant: str, texts: list[str]) -> None:
        numbers = range(len(texts))
        self._store(tenant).add_texts(texts, [metadata(n) for n in numbers], ids=[key(tenant, n) for n in numbers])

    async def query(self, tenant: str, question: Any, lot: int | None = None) -> Any:
        only = {} if lot is None else {"filter": self._only(lot)}
        return self._store(tenant).similarity_search_with_score(question, BEST, **only)

    def numbers(self, answer: Any) -> list[int]:
        return [number_of(str(document.id)) for document, _ in answer]

    def _only(self, lot: int) -> Any:
        return {"lot": lot}


class LangChainInMemory(LangChainPeer):
    """`InMemoryVectorStore` of langchain-core."""

    name = "LangChain InMemoryVectorStore"
    durability = "NOT durable: in this process alone"

    def _import(self) -> None:
        super()._import()
        from langchain_core.vectorstores import InMemoryVectorStore

        self._made = lambda tenant: InMemoryVectorStore(self._embeddings)

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        await self.ingest(tenant, texts)

    def _only(self, lot: int) -> Any:
        return lambda document: document.metadata["lot"] == lot


class LangChainPGVector(LangChainPeer):
    """`PGVector` of langchain-postgres, over psycopg: one table for all collections, no index on them."""

    name = "LangChain PGVector"
    durability = "durable: PostgreSQL has committed (fsync)"

    def _import(self) -> None:
        super()._import()
        import sqlalchemy
        from langchain_postgres import PGVector

        self._engine = sqlalchemy.create_engine(self._place.replace("://", "+psycopg://", 1))
        self._text = sqlalchemy.text
        self._made = lambda tenant: PGVector(
            self._embeddings, collection_name=tenant, connection=self._engine, embedding_length=DIMENSIONS
        )

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        self._store(tenant)
        with self._engine.begin() as connection:
            connection.execute(
                self._text(
                    "insert into langchain_pg_embedding (id, collection_id, embedding, document, cmetadata) select id,"
                    "(select uuid from langchain_pg_collection where name = :tenant), embedding, content, metadata"
                    " from floor.plain where user_id = :tenant"
                ),
                {"tenant": tenant},
            )

    async def close(self) -> None:
        self._engine.dispose()


class LangChainPGVectorStore(LangChainPeer):
    """`PGVectorStore` of langchain-postgres, over asyncpg, which succeeds `PGVector`: a table for each tenant."""

    name = "LangChain PGVectorStore"
    durability = "durable: PostgreSQL has committed (fsync), each row by itself"

    def _import(self) -> None:
        super()._import()
        from langchain_postgres import Column, PGEngine, PGVectorStore

        self._engine = PGEngine.from_connection_string(self._place.replace("://", "+asyncpg://", 1))

        def made(tenant: str) -> PGVectorStore:
            self._engine.init_vectorstore_table(tenant, DIMENSIONS, metadata_columns=[Column("lot", "integer")])
            return PGVectorStore.create_sync(self._engine, self._embeddings, tenant, metadata_columns=["lot"])

        self._made = made

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        import psycopg

        self._store(tenant)
        async with await psycopg.AsyncConnection.connect(self._place) as connection:
            await connection.execute(
                f'insert into "{tenant}" (langchain_id, content, embedding, lot, langchain_metadata)'
                "select id::uuid, content, embedding, (metadata -> 'lot')::integer, metadata - 'lot'"
                " from floor.plain where user_id = %s",
                [tenant],
            )

    async def close(self) -> None:
        self._engine._run_as_sync(self._engine.close())


class LlamaIndexPeer(Peer):
    """A vector store of LlamaIndex's, with a `BaseEmbedding` object that embeds offline."""

    def _import(self) -> None:
        from llama_index.core.base.embeddings.base import BaseEmbedding
        from llama_index.core.schema import TextNode
        from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, VectorStoreQuery

        class Offline(BaseEmbedding):
            def _get_text_embedding(self, text: str) -> list[float]:
                return embed([text])[0].tolist()

            def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
                return embed(texts).tolist()

            def _get_query_embedding(self, query: str) -> list[float]:
                return embed([query])[0].tolist()

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_query_embedding(query)

        self._embedding = Offline(embed_batch_size=256)
        self._node, self._query = TextNode, VectorStoreQuery
        self._filters = lambda lot: lot and MetadataFilters(filters=[MetadataFilter(key="lot", value=lot)])

    async def ingest(self, tenant: str, texts: list[str]) -> None:
        self._add(tenant, texts, self._embedding.get_text_embedding_batch(texts))

    def _add(self, tenant: str, texts: list[str], vectors: list[list[float]]) -> None:
        made = [
            self._node(id_=key(tenant, n), text=text, metadata=metadata(n), embedding=vector)
            for n, (text, vector) in enumerate(zip(texts, vectors, strict=True))
        ]
        self._store(tenant).add(made)

    async def query(self, tenant: str, question: Any, lot: int | None = None) -> Any:
        asked = self._query(
            query_embedding=self._embedding.get_query_embedding(question),
            similarity_top_k=BEST,
            filters=self._filters(lot),
        )
        return self._store(tenant).query(asked)

    def numbers(self, answer: Any) -> list[int]:
        return [number_of(found) for found in answer.ids]


class LlamaIndexSimple(LlamaIndexPeer):
    """`SimpleVectorStore` of llama-index-core."""

    name = "LlamaIndex SimpleVectorStore"
    durability = "NOT durable: in this process alone"

    def _import(self) -> None:
        super()._import()
        from llama_index.core.vector_stores import SimpleVectorStore

        self._made = lambda tenant: SimpleVectorStore()

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        self._add(tenant, texts, vectors.tolist())


class LlamaIndexPGVector(LlamaIndexPeer):
    """`PGVectorStore` of llama-index-vector-stores-postgres, over psycopg2: a table for each tenant."""

    name = "LlamaIndex PGVectorStore"
    durability = "durable: PostgreSQL has committed (fsync)"

    def _import(self) -> None:
        super()._import()
        from llama_index.vector_stores.postgres import PGVectorStore

        urls = {
            "connection_string": self._place.replace("://", "+psycopg2://", 1),
            "async_connection_string": self._place.replace("://", "+asyncpg://", 1),
        }
        self._made = lambda tenant: PGVectorStore.from_params(
            **urls, table_name=tenant, embed_dim=DIMENSIONS, use_jsonb=True
        )

    async def fill(self, tenant: str, texts: list[str], vectors: np.ndarray) -> None:
        import psycopg

        self._add(tenant, texts[:1], vectors[:1].tolist())  # makes the table, and a row to go by
        table = f'"data_{tenant}"'
        async with await psycopg.AsyncConnection.connect(self._place) as connection:
            await connection.execute(
                f"insert into {table} (text, metadata_, node_id, embedding) select content, m.metadata_ || metadata ||"
                " jsonb_build_object('ref_doc_id', m.metadata_ -> 'ref_doc_id'), p.id, p.embedding"
                f" from floor.plain p, {table} m where user_id = %s and p.id <> m.node_id",
                [tenant],
            )

    async def close(self) -> None:
        for store in self._stores.values():
            await store.close()


ON_SQLITE: tuple[type[Peer], ...] = (LangChainInMemory, LlamaIndexSimple)
ON_POSTGRESQL: tuple[type[Peer], ...] = (LangChainPGVector, LangChainPGVectorStore, LlamaIndexPGVector)
