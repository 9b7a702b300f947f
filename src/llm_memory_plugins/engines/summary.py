"""Conversation summary: the last turns verbatim, everything older in a summary that grows by its logarithm."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from cachetools import LRUCache

from llm_memory_plugins import boundary, budget, summaries, windows, wiring_models
from llm_memory_plugins.config import SummaryConfig
from llm_memory_plugins.context import Context
from llm_memory_plugins.engines._compaction import Compactor
from llm_memory_plugins.engines._conversation import ConversationMemory
from llm_memory_plugins.errors import LLMMemoryError, StoreUnavailable
from llm_memory_plugins.ports import Clock, Summariser
from llm_memory_plugins.telemetry import logger, span
from llm_memory_plugins.types import (
    Appended,
    ContextRequest,
    Dropped,
    Piece,
    SessionRef,
    SummaryLine,
    SummaryState,
    Tail,
    Usage,
    Window,
)
from llm_memory_plugins.wiring import ConversationPorts, now

_WATCHED = 10_000  # sessions
_LONGEST_WAIT = 300.0  # seconds between two tries at a range whose summariser fails


class ConversationSummaryMemory(ConversationMemory[SummaryConfig]):
    """Remembers a conversation of any length within a fixed budget.

    The newest `buffer_window_size` turns stay verbatim. What leaves them is summarised in the background, in ranges of
    about `summary_trigger_tokens`; until that has happened it stays verbatim too, as far as the budget goes.

    Args:
        config: As for every engine.
        summariser: Writes the summaries, instead of what `summarization_model` and the keys choose.
        ports, clock: As for every engine.
    """

    config_type = SummaryConfig

    def __init__(
        self,
        config: SummaryConfig | Mapping[str, Any] | None = None,
        *,
        summariser: Summariser | None = None,
        ports: ConversationPorts | None = None,
        clock: Clock = now,
    ) -> None:
        super().__init__(config, ports=ports, clock=clock)
        if summariser is None:
            summariser, models = wiring_models.summariser(self.config, self._ports.counter)
            self._backends.update(models)
        self._compactor = Compactor(self.config, self._ports, summariser, clock)
        # Tokens stored since it was last seen whether to summarise; a session that fell out is simply looked at again.
        self._unchecked = LRUCache[SessionRef, int](_WATCHED)
        self._compacting: set[SessionRef] = set()
        self._failures: dict[SessionRef, int] = {}
        self._retries: dict[SessionRef, asyncio.TimerHandle] = {}
        self._last_failure = ""

    @property
    def usage(self) -> Usage:
        """What the summariser has cost since this engine was built."""
        return self._compactor.usage

    async def get_context(self, request: ContextRequest | Mapping[str, Any] | str) -> Context:
        """The summary of older turns and the newest turns verbatim, never above the budget together.

        Args:
            request: `session_id`, and optionally `user_id`, `max_total_tokens` and `query`, which chooses among the
                lines of the summary when not all fit.

        Raises:
            InvalidInput: When a field is unknown or malformed.
            AmbiguousSession: When no user is named and several have a session of this name.
            BudgetError: When the budget cannot hold even the newest user message, shortened.
            StoreUnavailable: When the session cannot be read.
        """
        await self.initialize()
        asked = boundary.context_request(request)
        ref = self._session(asked.session_id, asked.user_id)
        limit, room = self._room(asked, "messages")
        assert limit is not None and room is not None  # noqa: S101, PT018 - this engine's budget has a default
        newest = Window("turns", self.config.buffer_window_size)
        with span("get_context", kind="conversation_summary"):
            tail, (state, problem) = await asyncio.gather(
                self._ports.log.recent(ref, Window("tokens", limit)), self._read_summaries(ref, limit)
            )
            everything = summaries.finest(state.nodes, self._counter)
            lines = [line for line in everything if self._alive(line)]
            wanted = windows.select(tail, newest, counter=self._counter, keep_after=state.covered)
            spare = max(0, room - self._overhead("summary"))
            weight = self.config.summary_context_weight
            _, for_messages = budget.shares(
                spare, [weight, 1 - weight], [summaries.whole_size(lines, self._counter), wanted.tokens]
            )
            chosen = windows.select(
                tail,
                newest,
                counter=self._counter,
                # The newest message is what the call is about: the summary gets none of what that needs.
                max_tokens=max(for_messages, min(room, self._newest(tail))) if lines else room,
                keep_after=state.covered,
                not_before=self._expired_before(),
            )
            for_summary = max(0, spare - chosen.tokens)  # whole turns seldom use their share to the end
            if not asked.query:  # nothing says which part matters: speak for all of it
                everything = summaries.detailed(state.nodes, for_summary, self._counter)
                lines = [line for line in everything if self._alive(line)]
            kept, scores = summaries.choose(lines, for_summary, counter=self._counter, query=asked.query)
        return self._context(
            asked,
            tail,
            chosen,
            budget=limit,
            why=f"within the last {newest.size} turns, or not summarised yet",
            recalled=self._pieces(kept, scores, by_query=bool(asked.query)),
            summary="\n".join(line.text for line in kept),
            dropped=_left_out(lines, kept),
            errors={"summary": problem} if problem else {},
        )

    async def compact(self, session_id: str, user_id: str | None = None) -> int:
        """Summarise now everything that is older than the buffer. Returns the number of summaries written.

        Raises:
            ModelError: When the summariser failed. Messages and earlier summaries are as they were.
        """
        await self.initialize()
        await self.drain()  # this engine's own background work may hold the range
        found = await self.get_session_stats(session_id, user_id)
        return await self._compactor.run(SessionRef(found.session_id, found.user_id), everything=True)

    async def close(self) -> None:
        """Let running background work finish for a moment, then let go of everything. Idempotent."""
        self._cancel_retries()
        await super().close()
        self._cancel_retries()  # what failed while closing is for the next engine

    def _cancel_retries(self) -> None:
        for timer in self._retries.values():
            timer.cancel()
        self._retries.clear()

    def _details(self) -> Mapping[str, Any]:
        failing = {"summariser_failure": self._last_failure} if self._failures else {}
        return {
            **super()._details(),
            "summariser": self._compactor.summariser.identity,
            "sessions_waiting_for_summariser": len(self._failures),
            **failing,
        }

    async def _read_summaries(self, ref: SessionRef, limit: int) -> tuple[SummaryState, str]:
        """The summaries, or none and what is wrong: the messages may still come from their hot copy."""
        try:
            return await self._ports.summaries.read(ref, finest=self._leaves_for(limit)), ""
        except StoreUnavailable as error:
            return SummaryState(), str(error)

    def _newest(self, tail: Tail) -> int:
        """Tokens that the newest user message and the system message take."""
        shown = (tail.system, tail.opening, *tail.messages)
        newest = {m.role: m for m in shown if m and m.role in {"user", "system"}}
        return sum(windows.cost(m, self._counter) for m in newest.values())

    def _leaves_for(self, limit: int) -> int:
        """Leaves worth reading: some four times what the budget could show, so that a query has a choice."""
        leaf = self.config.summary_trigger_tokens * self.config.summary_ratio
        return max(8, int(4 * limit / leaf))

    def _alive(self, line: SummaryLine) -> bool:
        before = self._expired_before()
        return before is None or line.at >= before

    def _pieces(self, lines: Sequence[SummaryLine], scores: Sequence[float], *, by_query: bool) -> list[Piece]:
        by_line = dict(zip(lines, scores, strict=True))
        ordered = sorted(lines, key=lambda x: (summaries.heading(x), min(x.seqs)))
        return [
            Piece(
                text=text,
                tokens=line.tokens
                + (self._counter.count(summaries.heading(line)) if text.startswith(summaries.heading(line)) else 0),
                source="summary",
                score=by_line[line],
                reason="summarised; chosen for the question and its weight" if by_query else "summarised; by weight",
                ids=tuple(f"seq {seq}" for seq in line.seqs),
            )
            for line, text in zip(ordered, summaries.under_headings(ordered), strict=True)
        ]

    def _after_append(self, done: Appended) -> None:
        super()._after_append(done)
        for stats in done.stats:
            ref = SessionRef(stats.session_id, stats.user_id)
            new = sum(m.tokens for m in done.messages if (m.session_id, m.user_id) == (ref.session_id, ref.user_id))
            self._unchecked[ref] = self._unchecked.get(ref, self.config.summary_trigger_tokens) + new
            if self._unchecked[ref] >= self.config.summary_trigger_tokens // 4 and ref not in self._retries:
                self._unchecked[ref] = 0
                self._compact_soon(ref)

    def _compact_soon(self, ref: SessionRef) -> None:
        self._retries.pop(ref, None)
        if ref not in self._compacting:
            self._compacting.add(ref)
            self._spawn(self._compact_quietly(ref))

    async def _compact_quietly(self, ref: SessionRef) -> None:
        """Summarise full ranges; after a failure try again later, each time after twice as long."""
        try:
            if await self._compactor.is_due(ref) and not await self._compactor.run(ref, everything=False):
                # Another process holds the claim. Should it die, the claim runs out, and somebody has to go on.
                wait = 2 * self.config.model_timeout
                self._retries[ref] = asyncio.get_running_loop().call_later(wait, self._compact_soon, ref)
            self._failures.pop(ref, None)
        except LLMMemoryError as error:
            tries = self._failures[ref] = self._failures.get(ref, 0) + 1
            self._last_failure = str(error)
            wait = max(min(2.0**tries, _LONGEST_WAIT), getattr(error, "retry_after", None) or 0)
            logger.warning("summarising failed and is tried again in %.0f s: %s", wait, error)
            self._retries[ref] = asyncio.get_running_loop().call_later(wait, self._compact_soon, ref)
        finally:
            self._compacting.discard(ref)


def _left_out(lines: Sequence[SummaryLine], kept: Sequence[SummaryLine]) -> list[Dropped]:
    gone = [line for line in lines if line not in set(kept)]
    if not gone:
        return []
    return [
        Dropped(
            source="summary",
            reason="worth less per token than what is in",
            count=len(gone),
            tokens=sum(line.tokens for line in gone),
            ids=tuple(f"seq {seq}" for line in gone for seq in line.seqs),
        )
    ]
