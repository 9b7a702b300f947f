"""Work that goes on to its end when whoever waits for it is cancelled: what has begun is not left half done."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Whole:
    """Runs pieces of work, each in a task of its own."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`; a caller that is cancelled leaves it to finish."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def ended(self) -> None:
        """Wait for what is running."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        mark_seen(task)


def mark_seen(task: asyncio.Task[Any]) -> None:
    """Whoever waited has the error, unless all were cancelled; asyncio complains of errors nobody has seen."""
    if not task.cancelled():
        task.exception()
