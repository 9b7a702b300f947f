"""Vector database memory: texts found again by meaning, by words, and by where they stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast, overload

from llm_memory_plugins import boundary, record_boundary, wiring, wiring_models
from llm_memory_plugins.config import VectorConfig
from llm_memory_plugins.context import Context
from llm_memory_plugins.engines._embedding import Embedding
from llm_memory_plugins.engines._engine import Engine
from llm_memory_plugins.engines._finding import Finder
from llm_memory_plugins.engines._ingest import BATCH, batches, ingest
from llm_memory_plugins.engines._recall import SOURCE, found, recall, with_parent
from llm_memory_plugins.errors import Conflict, InvalidInput, needs
from llm_memory_plugins.ports import Clock, Embedder, Reranker
from llm_memory_plugins.records import IndexStats, Record, SearchResults, Where
from llm_memory_plugins.rendering import CLOSING, opening, section
from llm_memory_plugins.telemetry import span
from llm_memory_plugins.types import Receipt, Usage
from llm_memory_plugins.wiring import VectorPorts, now

RecordLike = str | Record | Mapping[str, Any]

_BATCH = 256  # records written in one call
_AHEAD = 2  # batches read and embedded while an earlier one is written
_RERANKED = 50
_TRIES = 5  # at an update that others keep getting ahead of
_KNOWN_USERS = 10_000


class VectorDatabaseMemory(Engine[VectorConfig, VectorPorts]):
    """Remembers texts, from single sentences of a conversation to documents, and finds those that answer a question.

    A question is compared by meaning (cosine) and by words (BM25) in one call of the store; messages are lifted by
    what stands around them, by the speaker and the days a question names (see `ranking`). `record.why` tells how much
    each counted.

    Args:
        config: As for every engine.
        embedder: Makes the vectors, instead of what `embedding_model` and the keys choose: an `Embedder`, or any
            LangChain `Embeddings` or LlamaIndex `BaseEmbedding`.
        reranker: Orders the best 50 candidates anew: a cross-encoder or a chat model behind the port `Reranker`.
        ports, clock: As for every engine.
    """

    config_type = VectorConfig

    def __init__(
        self,
        config: VectorConfig | Mapping[str, Any] | None = None,
        *,
        embedder: object = None,
        reranker: Reranker | None = None,
        ports: VectorPorts | None = None,
        clock: Clock = now,
    ) -> None:
        super().__init__(config, ports=ports, clock=clock)
        self._embedding = Embedding(
            wiring_models.embedder(self.config, embedder),
            self._ports.queue,
            self._counter,
            passage_tokens=self.config.passage_tokens,
            spawn=self._spawn,
            user_id=self.config.user_id,
        )
        self._finder = Finder(self.config, self._ports.index, self._embedding, reranker, clock)

    def _connect(self) -> VectorPorts:
        return wiring.vectors(self.config)

    @property
    def embedder(self) -> Embedder:
        """What makes the vectors."""
        return self._embedding.embedder

    @property
    def usage(self) -> Usage:
        """What the embedder has cost since this engine was built."""
        return self._embedding.embedder.usage

    async def initialize(self) -> None:
        """See `Engine.initialize`. What waits for a vector is embedded in the background."""
        fresh = self._loop is None
        await super().initialize()
        if fresh:
            self._spawn(self._embedding.catch_up())

    async def close(self) -> None:
        """See `Engine.close`."""
        self._embedding.stop()
        await super().close()
        await self._embedding.embedder.close()

    # --- writing

    @overload
    async def store(self, item: RecordLike, *, progress: bool = False) -> Record: ...
    @overload
    async def store(self, item: Sequence[RecordLike], *, progress: bool = False) -> tuple[Record, ...]: ...
    async def store(
        self, item: RecordLike | Sequence[RecordLike], *, progress: bool = False
    ) -> Record | tuple[Record, ...]:
        """Store one text or many, in batches of 256: each is one round trip, and durable whole.

        A text that is there in the same words under the same id costs nothing, so a call that broke off is made
        again. One of another content under a known id replaces it. Without the embedder a text is stored all the
        same, is found by its words, and gets its vector later.

        Args:
            item: A text, or a mapping with `content` and optionally `user_id`, `id`, `session_id`, `source`, `role`,
                `name`, `created_at`, `metadata`, `importance`; or a list of these. The id of a text with a `source`
                is made from both, so that reading a file again stores nothing twice.
            progress: Show a bar.

        Returns:
            The record, or records in their order, as stored.

        Raises:
            InvalidInput: Names the field and the fix; nothing was stored.
            AccessDenied: When the engine is for another user.
            StoreUnavailable: When a batch could not be made durable. Those before it are.
        """
        await self.initialize()
        one = isinstance(item, str | Mapping)
        built = record_boundary.records(item, now=self._clock(), max_bytes=self.config.max_message_bytes)
        owned = [(self._user(user) or "", record, named) for user, record, named in built]
        done: dict[int, Record] = {}
        with span("store", records=len(owned)), _bar(len(owned) if progress else 0) as step:
            async for places, stored in ingest(batches(owned), self._ports.index, self._embedding):
                done.update(zip(places, stored, strict=True))
                step(len(stored))
        return done[0] if one else tuple(done[place] for place in range(len(owned)))

    async def update(self, id: str, *, user_id: str | None = None, **changes: Any) -> Record | None:  # noqa: A002
        """Change fields of a record; what is not named stays. Returns None when there is no such record.

        Args:
            id: Which.
            user_id: Whose.
            changes: `content`, `metadata` (all of it), `session_id`, `source`, `role`, `name`, `created_at`,
                `importance`.

        Raises:
            InvalidInput: Names the field and the fix; nothing was changed.
            Conflict: When others keep changing it at the same time.
        """
        await self.initialize()
        user = self._owner(user_id)
        for _ in range(_TRIES):
            held = await self._held(user, id)
            if held is None:
                return None
            changed = record_boundary.changed(held, changes, max_bytes=self.config.max_message_bytes)
            entries = await self._embedding.entries([changed], embed=changed.content != held.content)
            try:
                return (await self._ports.index.put(user, entries))[0]
            except Conflict:
                continue
        raise Conflict("others keep changing this record; try again")

    async def delete(
        self, ids: str | Sequence[str] | None = None, *, user_id: str | None = None, **where: Any
    ) -> Receipt:
        """Remove records by their ids, or by what they are like.

        Args:
            ids: Their ids.
            user_id: Whose.
            where: `filter`, `session_id`, `source`, `since`, `until`, all of which must hold.

        Raises:
            InvalidInput: When there is no condition at all: `forget` removes everything.
        """
        await self.initialize()
        wanted = record_boundary.where({**where, "ids": [ids] if isinstance(ids, str) else ids})
        if wanted.everything:
            raise InvalidInput("ids", "name ids or a condition; forget(user_id=...) removes everything of a user")
        return await self._ports.index.delete(self._owner(user_id), wanted)

    async def forget(self, *, user_id: str | None = None, session_id: str | None = None) -> Receipt:
        """Erase everything this memory holds of a user, or of one of the user's sessions."""
        await self.initialize()
        if user_id is None and session_id is None and self.config.user_id is None:
            raise InvalidInput("user_id", "name a user or a session; nothing was erased")
        return await self._ports.index.delete(self._owner(user_id), record_boundary.where({"session_id": session_id}))

    async def reindex(self, embedder: object = None, *, user_id: str | None = None, progress: bool = False) -> int:
        """Embed everything anew, by this engine's embedder or another one; returns how many vectors were made.

        It runs online: until it is done questions go to the old vectors, too. What was embedded already is not
        embedded again, so a call that broke off is made again. Afterwards the engine goes on with the new embedder.

        Args:
            embedder: As for the constructor; None for the engine's own, after `embedding_model` was changed.
            user_id: Only this user's; the others' stay as they are.
            progress: Show a bar.

        Raises:
            ModelError: When the new embedder fails.
        """
        await self.initialize()
        user = self._user(user_id)
        new = self._embedding.embedder if embedder is None else wiring_models.embedder(self.config, embedder)
        parts = (await self._ports.index.stats(user)).parts
        with span("reindex"), _bar(parts if progress else 0) as step:
            return await self._embedding.reindex(new, user_id=user, progress=step)

    # --- reading

    async def search(self, request: str | Mapping[str, Any], **more: Any) -> SearchResults:
        """The records that answer a question best, best first, each with `score`, `similarity` and `why`.

        Of a long text the passage that was found is in `record.passage`; `record.content` is all of it. Without the
        embedder only words are compared, and `results.errors` says so.

        Args:
            request: The question, or a mapping with `query` and the fields below.
            more: `user_id`, `session_id`, `source`, `since`, `until`, `filter`, `max_results`, `similarity_threshold`.

        Raises:
            InvalidInput: Names the field and the fix.
            ConfigError: When all vectors are another embedder's: names both, and how to make new ones.
            StoreUnavailable: When the store cannot be read.
        """
        await self.initialize()
        asked = record_boundary.vector_request(request, **more)
        user = self._owner(asked.user_id)
        with span("search"):
            pool, ranked, errors = await self._finder.find(user, asked)
            records = [found(pool, item) for item in ranked[: asked.max_results or self.config.max_results]]
            return SearchResults(await self._with_parents(user, records), errors)

    async def get_context(self, request: str | Mapping[str, Any]) -> Context:
        """What answers a question, ready for a prompt, by conversation and time.

        Args:
            request: As for `search`, and `max_tokens`. With `max_tokens` and without `max_results` the budget is
                filled.

        Raises:
            InvalidInput, ConfigError, StoreUnavailable: As `search`.
        """
        await self.initialize()
        asked = record_boundary.vector_request(request)
        user = self._owner(asked.user_id)
        budget = asked.max_tokens or self.config.max_total_tokens
        tags = self._counter.count(opening(SOURCE)) + self._counter.count(CLOSING)
        with span("get_context", kind="vector_database"):
            pool, ranked, errors = await self._finder.find(user, asked)
            chosen = recall(
                pool,
                ranked,
                room=None if budget is None else max(0, budget - tags),
                most=asked.max_results or (None if asked.max_tokens else self.config.max_results),
                counter=self._counter,
            )
            records = await self._with_parents(user, chosen.records)
        return Context(
            session_id=asked.session_id or "",
            user_id=user,
            records=records,
            recalled=section(SOURCE, (piece.text for piece in chosen.pieces)),
            tokens=sum(piece.tokens for piece in chosen.pieces) + (tags if chosen.pieces else 0),
            max_total_tokens=budget,
            pieces=chosen.pieces,
            dropped=chosen.dropped,
            errors=errors,
        )

    async def _with_parents(self, user: str, records: Sequence[Record]) -> tuple[Record, ...]:
        """Passages with the whole text they stand in."""
        ids = tuple(dict.fromkeys(record.id for record in records if record.passage))
        if not ids:
            return tuple(records)
        parents = {r.id: r for r in await self._ports.index.page(user, Where(ids=ids), limit=len(ids))}
        return tuple(with_parent(r, parents[r.id]) if r.passage and r.id in parents else r for r in records)

    async def get(self, id: str, *, user_id: str | None = None) -> Record | None:  # noqa: A002
        """A record by its id; None when there is none."""
        await self.initialize()
        return await self._held(self._owner(user_id), id)

    async def records(self, *, user_id: str | None = None, **where: Any) -> AsyncIterator[Record]:
        """Every record that is so, ordered by id, read page by page. Conditions as for `delete`."""
        await self.initialize()
        user, wanted = self._owner(user_id), record_boundary.where(where)
        after: str | None = None
        while page := await self._ports.index.page(user, wanted, after=after, limit=BATCH):
            for record in page:
                yield record
            after = page[-1].id

    async def count(self, *, user_id: str | None = None, **where: Any) -> int:
        """How many records there are; conditions as for `delete`."""
        await self.initialize()
        return await self._ports.index.count(self._owner(user_id), record_boundary.where(where))

    async def stats(self, *, user_id: str | None = None) -> IndexStats:
        """Records, parts, and vectors by embedder: of a user, or of all this engine may see."""
        await self.initialize()
        return await self._ports.index.stats(self._user(user_id))

    async def _held(self, user: str, identity: str) -> Record | None:
        wanted = record_boundary.where({"ids": [identity]})
        return next(iter(await self._ports.index.page(user, wanted, limit=1)), None)

    def _owner(self, user_id: str | None) -> str:
        """Whose records are meant: a call that names no user means those that belong to nobody in particular."""
        named = None if user_id is None else boundary.check_id(user_id, "user_id", empty=True)
        return self._user(named) or ""

    def _details(self) -> Mapping[str, Any]:
        return {**super()._details(), **({"embedder": self._embedding.problem} if self._embedding.problem else {})}


@contextmanager
def _bar(total: int) -> Generator[Callable[[int], None]]:
    """What tells a bar of so many steps to go on; of none, nothing."""
    if not total:
        yield lambda _: None
        return
    with needs("progress", "cli"):
        from tqdm.auto import tqdm
    with tqdm(total=total, unit=" texts") as shown:
        yield lambda steps: cast("None", shown.update(steps))
