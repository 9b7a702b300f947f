"""The summariser that needs no key, no network and no model: it keeps what is stated, in few words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from anyio import to_thread

from llm_memory_plugins.compression import Line, choose
from llm_memory_plugins.types import SummaryLine, Usage

__all__ = ["OfflineSummariser"]

_AT_ONCE = 4000
"""Characters that are summarised where the caller runs: a few milliseconds. More goes to a worker thread."""


class OfflineSummariser:
    """Summarises by rule: rates each statement by its form, shortens it, and takes the best that fit.

    The same lines always give the same summary. How it chooses is in `compression`. It implements `Summariser`.
    What the budget leaves out is left out: `anchors.repair` puts names, numbers and addresses back.
    """

    identity = "offline/1"

    def __init__(self, *, count: Callable[[str], int]) -> None:
        """Keeps the way to count.

        Args:
            count: Tokens of a text, for example the `count` method of a `TokenCounter`. It may be called from another
                thread than the event loop's.
        """
        self._count = count

    async def summarise(self, lines: Sequence[SummaryLine], *, max_tokens: int) -> tuple[list[SummaryLine], Usage]:
        """Lines of at most `max_tokens` in all, each with its line break, in the order of `lines`.

        Each speaks for the messages of the one line that it was made from; a line given may become several.
        """
        work = partial(self._summarise, tuple(lines), max_tokens)
        if sum(len(line.text) for line in lines) <= _AT_ONCE:
            return work(), Usage()
        return await to_thread.run_sync(work), Usage()

    def _summarise(self, lines: Sequence[SummaryLine], max_tokens: int) -> list[SummaryLine]:
        chosen = choose(
            [line.text for line in lines],
            budget=max_tokens,
            cost=lambda text: self._count(text + "\n"),
            # 0.5 is what a message comes with; the lines of finer summaries bring what they were found to be worth.
            weights=[max(0.01, 2 * line.weight) for line in lines],
        )
        return [_line(lines[line.source], line) for line in chosen]


def _line(source: SummaryLine, line: Line) -> SummaryLine:
    # Rates have no upper end; this keeps their order and maps 1 to the 0.5 of a plain message.
    return SummaryLine(line.text, source.seqs, source.at, round(line.rate / (1 + line.rate), 3))
