"""The values of working memory: what is stored, what a store is told, and what it answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, Self, TypedDict

from llm_memory_plugins.types import Readable

ItemStatus = Literal["open", "done", "abandoned"]
EvictionPolicy = Literal["importance", "lru", "lfu", "fifo", "ttl"]


@dataclass(frozen=True, slots=True)
class Rules:
    """What a namespace holds at most, and what goes first.

    Attributes:
        capacity: Items.
        policy: See `working.rank`.
        half_life: Seconds in which what is not used loses half of its value.
    """

    capacity: int
    policy: EvictionPolicy
    half_life: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingItem(Readable):
    """A note, or a step of a chain of reasoning.

    Attributes:
        id: Its key in the namespace.
        content: Any JSON value, and what the codec adds to these; a copy of the reader's own.
        importance: 0..1.
        step: A label, or a number, that makes it a step.
        parent_id: The step it follows from.
        tags: Words to find it by.
        status: How far a step has come.
        conclusion: What came out of it.
        created_at: When it was stored first.
        updated_at: When it was stored or changed last.
        used_at: When it was last written, got, or shown in a context.
        uses: How often it was got or shown.
        expires_at: Its end, which waits for the steps below it.
        children: Steps directly below it.
        seq: Its place in the order of first storing; other numbers may lie between.
        turn: Its place in the order of last use.
        evicted: Ids that went for it, where storing it has returned it.
    """

    id: str
    namespace: str
    content: Any
    created_at: datetime
    updated_at: datetime
    used_at: datetime
    expires_at: datetime
    user_id: str = ""
    importance: float = 0.5
    step: str | int | float | None = None
    parent_id: str | None = None
    tags: tuple[str, ...] = ()
    status: ItemStatus = "open"
    conclusion: str | None = None
    uses: int = 0
    children: int = 0
    seq: int = 0
    turn: int = 0
    evicted: tuple[str, ...] = ()

    _also: ClassVar[tuple[str, ...]] = ("key", "is_step")

    @property
    def key(self) -> str:
        """Another name of its id."""
        return self.id

    @property
    def is_step(self) -> bool:
        """Whether it is part of a chain: it has a label, or something above or below it."""
        return self.step is not None or self.parent_id is not None or self.children > 0


class Fields(TypedDict, total=False):
    """What is written of an item; what is not named stays as it is. `content` is tagged JSON."""

    content: str
    importance: float
    step: str | int | float | None
    parent_id: str
    tags: tuple[str, ...]
    status: ItemStatus
    conclusion: str | None
    ttl_seconds: float


@dataclass(frozen=True, slots=True)
class Draft:
    """Something to be written.

    Attributes:
        fields: All but `parent_id`, unless `known`.
        known: Only where there is such an item.
    """

    id: str
    fields: Fields
    known: bool = False


class Stored(tuple[WorkingItem, ...]):
    """What was written, in the order given: a tuple of items.

    Attributes:
        evicted: Ids that went for it, in the order in which they went.
    """

    evicted: tuple[str, ...]

    def __new__(cls, items: Iterable[WorkingItem], evicted: Iterable[str] = ()) -> Self:
        """The items, and what went for them."""
        made = super().__new__(cls, items)
        made.evicted = tuple(evicted)
        return made


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All items of a namespace by `seq`, as they were at one moment."""

    items: tuple[WorkingItem, ...]
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingStats(Readable):
    """What there is in a namespace, told without reading it. All zero for one that does not exist.

    Attributes:
        item_count: In all.
        open_count, done_count, abandoned_count: By status.
        evicted: How many went since the namespace began: for `capacity`, and by their `ttl`.
        expires_at: The end of all of it, unless something is stored before.
    """

    namespace: str
    user_id: str = ""
    capacity_limit: int
    eviction_policy: EvictionPolicy
    item_count: int = 0
    open_count: int = 0
    done_count: int = 0
    abandoned_count: int = 0
    evicted: Mapping[str, int] = field(default_factory=lambda: {"capacity": 0, "ttl": 0})
    expires_at: datetime | None = None
