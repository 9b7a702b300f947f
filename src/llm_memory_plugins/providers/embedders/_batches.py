"""Many texts in several requests: cut in order, and all of them or an error."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any, TypeVar

from llm_memory_plugins.errors import ModelError

T = TypeVar("T")


def batches_of(texts: Sequence[str], *, most: int, most_bytes: int) -> Iterator[list[str]]:
    """The texts in their order, cut where a batch is full: `most` texts, or `most_bytes` of UTF-8."""
    batch: list[str] = []
    filled = 0
    for text in texts:
        size = len(text.encode())
        if batch and (len(batch) == most or filled + size > most_bytes):
            yield batch
            batch, filled = [], 0
        batch.append(text)
        filled += size
    if batch:
        yield batch


async def all_or_none(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The results in order. When one fails the others are cancelled, and the failure worth acting on is raised."""
    if len(calls) == 1:
        return [await calls[0]]
    failed: list[Exception] = []
    tasks: list[asyncio.Task[T]] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except* Exception as several:  # noqa: BLE001 - one of them is raised below, so that nobody gets a group
        failed = list(several.exceptions)
    if failed:
        raise max(failed, key=_urgency)
    return [task.result() for task in tasks]


def _urgency(error: Exception) -> tuple[bool, float]:
    """What another try does not mend comes first, then who asks for the longest wait."""
    if not isinstance(error, ModelError):
        return True, math.inf
    return not error.retryable, error.retry_after or 0.0
