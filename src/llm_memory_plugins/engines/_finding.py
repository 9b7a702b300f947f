"""From a question to ranked candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import anyio
from cachetools import LRUCache

from llm_memory_plugins import lexicon, queries
from llm_memory_plugins.config import VectorConfig
from llm_memory_plugins.engines._embedding import Embedding
from llm_memory_plugins.errors import ConfigError, ModelError
from llm_memory_plugins.ports import Clock, Reranker, VectorIndex
from llm_memory_plugins.ranking import Ranked, Weights, rank
from llm_memory_plugins.record_boundary import VectorRequest
from llm_memory_plugins.records import Pool, Probe

_CANDIDATES = 100  # by meaning, and by words; twice as many found nothing more and took twice the time
_RERANKED = 50
_KNOWN_USERS = 10_000


class Finder:
    """Asks the store once, and again only where a question turns out to name somebody who speaks there."""

    def __init__(
        self, config: VectorConfig, index: VectorIndex, embedding: Embedding, reranker: Reranker | None, clock: Clock
    ) -> None:
        self._threshold = config.similarity_threshold
        self._weights = Weights(
            recency=config.recency_weight,
            importance=config.importance_weight,
            half_life_days=config.recency_half_life_days,
        )
        self._index = index
        self._embedding = embedding
        self._reranker = reranker
        self._clock = clock
        self._speakers = LRUCache[str, tuple[str, ...]](_KNOWN_USERS)

    async def find(self, user: str, asked: VectorRequest) -> tuple[Pool, list[Ranked], Mapping[str, str]]:
        """The candidates for a question, best first, and what could not be asked.

        Raises:
            ConfigError: When all vectors are another embedder's.
            StoreUnavailable: When the store cannot be read.
        """
        speakers = self._speakers.get(user, ())
        while True:
            query = queries.parse(asked.query, self._clock(), speakers)
            vectors, errors = await self._embedding.question(query.bare)
            terms = tuple(lexicon.term(stem) for stem in query.terms)
            pool = await self._index.match(
                user, Probe(vectors=vectors, terms=terms, where=asked.where, limit=_CANDIDATES)
            )
            self._speakers[user] = pool.speakers
            if pool.speakers == speakers or queries.parse(asked.query, self._clock(), pool.speakers) == query:
                break
            speakers = pool.speakers  # the question names somebody who was not known to speak here
        identities = {identity for identity, _ in vectors}
        if identities and pool.embedders and identities.isdisjoint(pool.embedders):
            raise ConfigError(
                f"embedding_model: these texts were embedded by {', '.join(pool.embedders)}, this engine embeds by "
                f"{', '.join(identities)}; set it back, or run `llm-memory reindex` (`await memory.reindex()`)"
            )
        threshold = asked.similarity_threshold
        ranked = await anyio.to_thread.run_sync(
            lambda: rank(
                query,
                pool.rows,
                pool.corpus,
                self._weights,
                threshold=self._threshold if threshold is None else threshold,
                now=self._clock(),
            )
        )
        if self._reranker is not None and ranked:
            ranked, errors = await self._reranked(asked.query, ranked, errors)
        return pool, ranked, errors

    async def _reranked(
        self, query: str, ranked: list[Ranked], errors: Mapping[str, str]
    ) -> tuple[list[Ranked], Mapping[str, str]]:
        """The best ones in the reranker's order; their scores go to those that now stand in their places."""
        assert self._reranker is not None  # noqa: S101
        best = ranked[:_RERANKED]
        try:
            judged = list(await self._reranker.rerank(query, [item.row.text for item in best]))
        except ModelError as error:
            return ranked, {**errors, "reranker": str(error)}
        if len(judged) != len(best) or not all(map(math.isfinite, judged)):
            return ranked, {**errors, "reranker": "did not answer one number a text"}
        order = sorted(range(len(best)), key=lambda place: -judged[place])
        anew = [
            replace(best[place], score=slot.score, why={**best[place].why, "reranker": float(judged[place])})
            for place, slot in zip(order, best, strict=True)
        ]
        return anew + ranked[_RERANKED:], errors
