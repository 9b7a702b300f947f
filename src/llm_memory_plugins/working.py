"""Working memory's thinking: what an item is worth, what goes first, and which chain is active. Pure.

What an item is worth is its importance, lifted by use, and halved with every half-life that passes without use:

    value = max(importance, 0.01) * (1 + log2(1 + uses)) * 0.5 ** (seconds since use / half-life)

Generative Agents (Park et al., 2023, section 4.1) weigh memories by recency, decaying exponentially since the last
access, by importance and by relevance to a question, and add the three; recency and importance are multiplied here.
Then the order of any two items stays as it is while neither is used: the logarithm of the value, but for a term that is
the same for all, is `log2(importance * lift) + time of last use / half-life`. So the next one to be evicted is found in
a sorted set, and no item is touched because time passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from llm_memory_plugins.errors import InvalidInput
from llm_memory_plugins.working_items import Rules, WorkingItem

_LEAST_IMPORTANCE = 0.01
_MOST_USES = 65_535  # that lfu tells apart, so that both counts fit into the 53 bits of a float
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(moment: datetime) -> int:
    """Microseconds since 1970."""
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(count: int) -> datetime:
    """The moment `micros` gives that count for."""
    return _EPOCH + count * _MICROSECOND


def _lifted(item: WorkingItem) -> float:
    return max(item.importance, _LEAST_IMPORTANCE) * (1 + _log2(1 + item.uses))


def _log2(number: float) -> float:
    return math.log(number) / math.log(2)  # as Lua has to do it


def value(item: WorkingItem, at: datetime, half_life: float) -> float:
    """What an item is worth at a moment; see above."""
    idle = max(0.0, (at - item.used_at).total_seconds())
    return _lifted(item) * 0.5 ** (idle / half_life)


def rank(item: WorkingItem, rules: Rules) -> float:
    """The lowest of the items without any below them is evicted next; of equal ones the one of the lower id.

    `importance`: what is worth least. `lru`: what was used or written longest ago. `lfu`: what was used least often,
    and of these longest ago. `fifo`: what was stored first. `ttl`: what ends first.
    """
    if rules.policy == "lru":
        return item.turn
    if rules.policy == "lfu":
        return min(item.uses, _MOST_USES) * 2.0**36 + item.turn
    if rules.policy == "fifo":
        return item.seq
    if rules.policy == "ttl":
        return micros(item.expires_at)
    return _log2(_lifted(item)) + micros(item.used_at) / (rules.half_life * 1_000_000)


_REFUSALS = {
    "parent": ("parent_id", "names no item of this namespace; a step is stored after the one it follows from"),
    "cycle": ("parent_id", "names the item itself, or a step that follows from it"),
    "full": ("parent_id", "makes a chain longer than capacity_limit; conclude it and begin another one"),
    "children": ("cascade", "is not set, and there are steps that follow from this one; set it to remove them, too"),
}


def refusal(reason: str, place: str = "") -> InvalidInput:
    """Why a store changed nothing, in words.

    Args:
        reason: `parent`, `cycle`, `full` or `children`.
        place: What stands before the field, like `3.`.
    """
    field, problem = _REFUSALS[reason]
    return InvalidInput(f"{place}{field}", problem)


def path(items: Mapping[str, WorkingItem], end: str) -> tuple[WorkingItem, ...]:
    """The chain from its root to an item; empty where there is no such item."""
    steps: list[WorkingItem] = []
    item = items.get(end)
    while item is not None:
        steps.append(item)
        item = items.get(item.parent_id or "")
    return tuple(reversed(steps))


def active_path(items: Sequence[WorkingItem]) -> tuple[WorkingItem, ...]:
    """The chain to the newest open step or, where none is open, to the newest one that was not abandoned."""
    steps = [item for item in items if item.is_step]
    open_ = [item for item in steps if item.status == "open"] or [item for item in steps if item.status == "done"]
    newest = max(open_, key=lambda item: item.seq, default=None)
    return path({item.id: item for item in items}, newest.id) if newest else ()
