"""From records to what is searched of them: read, split, embedded; and the vectors that still have to be made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import numpy as np

from llm_memory_plugins import lexicon, passages, queries
from llm_memory_plugins.errors import InvalidInput, LLMMemoryError, ModelError
from llm_memory_plugins.ports import EmbeddingQueue, TokenCounter
from llm_memory_plugins.providers.embedders.cached import CachedEmbedder
from llm_memory_plugins.records import Entry, Part, Passage, Record, Unembedded
from llm_memory_plugins.rendering import record_line
from llm_memory_plugins.telemetry import logger

if TYPE_CHECKING:
    from numpy.typing import NDArray

Vectors = tuple[tuple[str, "NDArray[np.float32]"], ...]

_PAGE = 256  # parts embedded at a time
_SHORTEST = 16  # tokens; no model's window is that small
_LONGEST_WAIT = 300.0  # seconds between two tries at an embedder that fails
_REFUSED = re.compile(r"texts\[(\d+)\]")


class Embedding:
    """Reads texts for a memory and embeds them.

    Args:
        embedder: What embeds them.
        queue: The store's list of parts without a vector.
        counter: Counts tokens.
        passage_tokens: Longest passage of a document.
        spawn: Runs something in the background.
        user_id: The one user this is for; None for all.
    """

    def __init__(
        self,
        embedder: CachedEmbedder,
        queue: EmbeddingQueue,
        counter: TokenCounter,
        *,
        passage_tokens: int,
        spawn: Callable[[Coroutine[Any, Any, object]], None],
        user_id: str | None,
    ) -> None:
        self.embedder = embedder
        self.problem = ""
        self._former: CachedEmbedder | None = None  # while its vectors are being replaced
        self._queue = queue
        self._counter = counter
        self._passage_tokens = passage_tokens
        self._spawn = spawn
        self._user_id = user_id
        self._failures = 0
        self._retry: asyncio.TimerHandle | None = None

    async def question(self, text: str) -> tuple[Vectors, Mapping[str, str]]:
        """The question by every embedder there are vectors of, and what went wrong."""
        found: list[tuple[str, NDArray[np.float32]]] = []
        problem = ""
        for embedder in filter(None, (self.embedder, self._former)):
            try:
                rows, _ = await embedder.embed([text], kind="query")
            except InvalidInput:
                problem = "the question is too long to be embedded; only its words were looked up"
            except ModelError as error:
                problem = f"only words were looked up: {error}"
            else:
                found.append((embedder.identity, rows[0]))
        return tuple(found), {} if found or not problem else {"embedder": problem}

    async def entries(self, records: Sequence[Record], *, embed: bool = True) -> list[Entry]:
        """The records as they are written; without vectors where the embedder fails, which is made up for later."""
        read = await anyio.to_thread.run_sync(lambda: [self._read(record, self._limit(record)) for record in records])
        return await self._embedded(read) if embed else read

    async def _embedded(self, entries: list[Entry]) -> list[Entry]:
        while True:
            texts = [_text(entry, part) for entry in entries for part in entry.parts]
            try:
                rows, _ = await self.embedder.embed(texts, kind="document")
            except ModelError as error:
                self._failed(error)
                return entries
            except InvalidInput as error:  # longer by the model's count than by ours
                self._split(entries, error)
            else:
                break
        self.problem = ""
        vectors = iter(rows)
        identity = self.embedder.identity
        return [
            replace(entry, embedder=identity, parts=tuple(replace(part, vector=next(vectors)) for part in entry.parts))
            for entry in entries
        ]

    def _split(self, entries: list[Entry], error: InvalidInput) -> None:
        """Read the record anew whose text was refused, in smaller parts."""
        refused = _REFUSED.match(error.field)
        place = int(refused[1]) if refused else 0
        for index, entry in enumerate(entries):
            if place < len(entry.parts):
                part = entry.parts[place]
                shorter = self._counter.count(_text(entry, part)) // 2
                if refused is None or shorter < _SHORTEST:
                    raise error
                entries[index] = self._read(entry.record, shorter)
                return
            place -= len(entry.parts)

    def _limit(self, record: Record) -> int | None:
        window = self.embedder.max_tokens
        if record.speaker:
            return window
        return min(self._passage_tokens, window or self._passage_tokens)

    def _read(self, record: Record, limit: int | None) -> Entry:
        content = record.content
        spans = [(0, len(content))] if limit is None else passages.spans(content, limit, self._counter.count)
        parts: list[Part] = []
        for number, (start, stop) in enumerate(spans):
            text = content[start:stop]
            read = queries.traits(text, said=bool(record.speaker))
            terms, counts = lexicon.postings(read.counts)
            shown = record if len(spans) == 1 else replace(record, passage=Passage(number, start, stop, text))
            tokens = self._counter.count(record_line(shown))
            parts.append(
                Part(
                    start=start,
                    stop=stop,
                    terms=terms,
                    counts=counts,
                    length=read.length,
                    telling=read.telling,
                    tokens=tokens,
                )
            )
        return Entry(record=record, parts=tuple(parts), embedder="", tokenizer=self._counter.name)

    # --- what is still to be embedded

    def _failed(self, error: LLMMemoryError) -> None:
        """Remember what is wrong, and try again later what has been stored without a vector."""
        if not self.problem:
            logger.warning("texts are stored without vectors, which are made later: %s", error)
        self.problem = str(error)
        self._failures += 1
        wait = min(_LONGEST_WAIT, 2.0 ** min(self._failures, 10))
        if isinstance(error, ModelError) and error.retry_after:
            wait = max(wait, error.retry_after)
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(wait, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._spawn(self.catch_up())

    async def catch_up(self) -> int:
        """Embed what waits for a vector; returns how many parts that were. A failure is tried again later."""
        done = 0
        try:
            while waiting := await self._queue.pending(user_id=self._user_id, limit=_PAGE):
                filled = await self._fill(self.embedder, waiting)
                done += filled
                if not filled:  # somebody else is faster
                    break
        except LLMMemoryError as error:
            self._failed(error)
        else:
            self.problem, self._failures = "", 0
        return done

    def stop(self) -> None:
        """Try nothing again."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def _fill(self, embedder: CachedEmbedder, waiting: Sequence[Unembedded]) -> int:
        rows = await self._embed_any(embedder, [part.text for part in waiting])
        return await self._queue.fill(embedder.identity, list(zip(waiting, rows, strict=True)))

    async def _embed_any(self, embedder: CachedEmbedder, texts: list[str]) -> list[NDArray[np.float32]]:
        """One vector a text. One that is too long for this embedder gets the mean of its pieces'."""
        try:
            rows, _ = await embedder.embed(texts, kind="document")
            return list(rows)
        except InvalidInput:
            if len(texts) > 1:
                return [row for text in texts for row in await self._embed_any(embedder, [text])]
            size = self._counter.count(texts[0]) // 2
            if size < _SHORTEST:
                raise
        pieces = [texts[0][start:stop] for start, stop in passages.spans(texts[0], size, self._counter.count)]
        whole = np.stack(await self._embed_any(embedder, pieces)).sum(axis=0)
        return [(whole / np.sqrt(whole @ whole)).astype(np.float32)]

    async def reindex(
        self, embedder: CachedEmbedder, *, user_id: str | None, progress: Callable[[int], None] | None
    ) -> int:
        """Give every part a vector of `embedder`, then remove those of all others; returns how many were made.

        Meanwhile questions go to both.
        """
        if embedder is not self.embedder:
            self._former, self.embedder = self.embedder, embedder
        await embedder.open()
        done = 0
        after: Unembedded | None = None
        while True:
            waiting = await self._queue.pending(embedder.identity, user_id=user_id, after=after, limit=_PAGE)
            if not waiting and after is None:
                break
            after = waiting[-1] if waiting else None  # once more from the start: others may have stored meanwhile
            if waiting:
                done += await self._fill(embedder, waiting)
                if progress:
                    progress(len(waiting))
        await self._queue.retire(embedder.identity, user_id=user_id)
        if user_id is None or user_id == self._user_id:
            former, self._former = self._former, None
            if former is not None:
                await former.close()
        return done


def _text(entry: Entry, part: Part) -> str:
    return entry.record.content[part.start : part.stop]
