"""Turning old messages into summaries: off the write path, resumable, once per range.

A worker claims what follows the summarised part of a session, asks the summariser, checks and repairs the answer, and
commits it with a compare-and-set on the range. Any failure before the commit leaves messages and summaries as they
were; the claim runs out by itself when a process dies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import anyio
from uuid_utils import uuid4

from llm_memory_plugins import anchors, budget, summaries, windows
from llm_memory_plugins.config import SummaryConfig
from llm_memory_plugins.errors import BudgetError, Conflict, ModelError
from llm_memory_plugins.ports import Clock, Summariser
from llm_memory_plugins.telemetry import logger, span
from llm_memory_plugins.types import Message, SessionRef, Summary, SummaryLine, SummaryState, Usage, Window
from llm_memory_plugins.wiring import ConversationPorts

_PAGE = 200
_POLL_SECONDS = 0.1
_ROLLED_LEAVES = 2  # a rolled-up node may be as long as so many leaves; beyond, its least weighty lines go


@dataclass
class Compactor:
    """Summarises sessions on the given ports.

    Attributes:
        usage: What the summariser has cost so far.
    """

    config: SummaryConfig
    ports: ConversationPorts
    summariser: Summariser
    clock: Clock
    usage: Usage = field(default_factory=Usage)

    async def run(self, session: SessionRef, *, everything: bool) -> int:
        """Summarise what has left the buffer: full ranges only, or everything. Returns the nodes written.

        Raises:
            ModelError: When the summariser failed; nothing of the range was written.
            StoreUnavailable: When a store failed.
        """
        written, waited = 0, 0.0
        holder = str(uuid4())
        try:
            while (done := await self._step(session, holder, everything=everything)) is not False:
                written += done is True
                if done is None:  # another worker is at it
                    if not everything or waited > 2 * self.config.model_timeout:
                        break
                    waited += _POLL_SECONDS
                    await anyio.sleep(_POLL_SECONDS)
        except Conflict as lost:  # another process did this range: nothing is missing
            logger.debug("a summary was not written: %s", lost)
        finally:
            with anyio.CancelScope(shield=True):
                await self.ports.summaries.release(session, holder=holder)
        return written

    async def is_due(self, session: SessionRef) -> bool:
        """Whether a full range has left the buffer."""
        state = await self.ports.summaries.read(session, finest=0)
        if state.pending_tokens < self.config.summary_trigger_tokens:
            return False
        return bool(await self._next_range(session, state, everything=False))

    async def _step(self, session: SessionRef, holder: str, *, everything: bool) -> bool | None:
        """Write one node: True when done, False when nothing is left to do, None when another holds the claim."""
        state = await self.ports.summaries.read(session, finest=0)
        children = summaries.rollable(state.nodes)
        messages = [] if children else await self._next_range(session, state, everything=everything)
        if not children and not messages:
            return False
        now = self.clock()
        until = now + timedelta(seconds=2 * self.config.model_timeout)
        if not await self.ports.summaries.claim(session, after=state.covered, holder=holder, until=until, now=now):
            return None
        if children:
            node = await self._parent(children)
        else:
            node = await self._leaf(state.covered + 1, messages)
        await self.ports.summaries.commit(session, node, holder=holder)
        return True

    async def _next_range(self, session: SessionRef, state: SummaryState, *, everything: bool) -> list[Message]:
        """The next messages to summarise: whole turns behind what is covered and before the buffer."""
        size = self.config.summary_trigger_tokens
        first = await self._buffer_begins(session)
        found: list[Message] = []
        tokens = 0
        after = state.covered
        while page := await self.ports.log.page(session, after=after, limit=_PAGE):
            for message in page:
                if message.seq >= first:
                    return found if everything else []
                if tokens >= size and message.role == "user":
                    return found
                found.append(message)
                tokens += message.tokens
            after = page[-1].seq
        return []

    async def _buffer_begins(self, session: SessionRef) -> int:
        """`seq` of the first message that a context shows verbatim: of the last turns, those that fit its share."""
        share = int(self.config.max_total_tokens * (1 - self.config.summary_context_weight))
        window = Window("turns", self.config.buffer_window_size, max_tokens=max(1, share))
        end = await self.ports.log.recent(session, window)
        try:
            kept = windows.select(end, window, counter=self.ports.counter, max_tokens=share).messages
        except BudgetError:  # only a piece of the newest user message will fit
            kept = tuple(m for m in (end.opening, *end.messages) if m and m.role == "user")[-1:]
        return min((m.seq for m in kept if m.role != "system"), default=0)

    async def _leaf(self, from_seq: int, messages: Sequence[Message]) -> Summary:
        sources = summaries.source_lines(messages)
        tokens = sum(m.tokens for m in messages)
        lines, cost = await self._summarised(sources, max_tokens=max(16, int(tokens * self.config.summary_ratio)))
        return self._node(0, from_seq, messages[-1].seq, lines, cost)

    async def _parent(self, children: Sequence[Summary]) -> Summary:
        sources = [line for child in children for line in child.lines]
        leaf = int(self.config.summary_trigger_tokens * self.config.summary_ratio)
        lines, cost = await self._summarised(sources, max_tokens=leaf)
        if sum(line.tokens for line in lines) > (limit := leaf * _ROLLED_LEAVES):
            items = [budget.Item(line.tokens, line.weight) for line in lines]
            lines = tuple(lines[i] for i in budget.fill(items, limit))
        return self._node(children[0].level + 1, children[0].from_seq, children[-1].to_seq, lines, cost)

    async def _summarised(
        self, sources: Sequence[SummaryLine], *, max_tokens: int
    ) -> tuple[tuple[SummaryLine, ...], Usage]:
        """Fewer lines that say nothing the sources do not, and hold every anchor that the sources hold."""
        if not sources:
            return (), Usage()
        with span("summarise", lines=len(sources)):
            try:
                with anyio.fail_after(self.config.model_timeout):
                    answer, cost = await self.summariser.summarise(sources, max_tokens=max_tokens)
            except TimeoutError:
                raise ModelError(
                    f"{self.summariser.identity} did not answer within model_timeout={self.config.model_timeout:g} s",
                    retryable=True,
                ) from None
        self.usage += cost
        return await anyio.to_thread.run_sync(self._checked, sources, answer), cost  # long texts take a while

    def _checked(self, sources: Sequence[SummaryLine], answer: Sequence[SummaryLine]) -> tuple[SummaryLine, ...]:
        storable = [replace(x, text=x.text.replace("\0", "").encode(errors="replace").decode()) for x in answer]
        kept = summaries.grounded(storable, sources)
        if answer and not kept:
            raise ModelError(f"{self.summariser.identity} answered nothing that the messages say", retryable=True)
        lines = summaries.in_order(anchors.repair(sources, kept))
        return summaries.counted([_weighed(line) for line in lines], self.ports.counter)

    def _node(self, level: int, from_seq: int, to_seq: int, lines: tuple[SummaryLine, ...], cost: Usage) -> Summary:
        return Summary(
            level=level,
            from_seq=from_seq,
            to_seq=to_seq,
            lines=lines,
            tokens=sum(line.tokens for line in lines),
            tokenizer=self.ports.counter.name,
            model=self.summariser.identity,
            model_tokens=cost.total,
            created_at=self.clock(),
        )


def _weighed(line: SummaryLine) -> SummaryLine:
    """Lines that hold an anchor weigh at least half: they are what can be asked for and not be guessed."""
    return replace(line, weight=0.5 + line.weight / 2) if anchors.find(line.text) else line
