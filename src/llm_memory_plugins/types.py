"""The values that travel between the rooms: frozen, typed, and readable like mappings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import cache
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
WindowType = Literal["turns", "tokens", "time"]
Status = Literal["healthy", "degraded", "unhealthy"]

EMPTY: Mapping[str, Any] = {}


@cache
def _names(cls: type) -> tuple[str, ...]:
    return (*(f.name for f in fields(cls)), *getattr(cls, "_also", ()))


class Readable(Mapping[str, Any]):
    """Lets a frozen dataclass be read like a mapping: `message["content"]`, `context.get("summary", "")`.

    A subclass lists properties that should be readable too in `_also`.
    """

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        if key in _names(type(self)):
            return getattr(self, key)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(_names(type(self)))

    def __len__(self) -> int:
        return len(_names(type(self)))


class MemoryType(StrEnum):
    """The kinds of memory, as `enabled_memories` names them."""

    CONVERSATION_BUFFER = "conversation_buffer"
    CONVERSATION_SUMMARY = "conversation_summary"
    VECTOR_DATABASE = "vector_database"
    WORKING_MEMORY = "working_memory"
    KEY_VALUE_STORE = "key_value_store"
    ENTITY_MEMORY = "entity_memory"


@dataclass(frozen=True, slots=True)
class SessionRef:
    """Names a session: by (`user_id`, `session_id`), or by `session_id` alone.

    `user_id=None` means "the one session of that name that can be seen"; several are an error.
    The empty user is the single user of an application that has no users.
    """

    session_id: str
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """How much of a session's end is wanted.

    Attributes:
        kind: What `size` counts: user turns, tokens, or seconds before `now`.
        size: Turns, tokens or seconds; at least 1.
        now: Only for `time`: the moment the seconds are counted back from.
        max_tokens: However many turns or seconds are wanted, more tokens than these need not be read.
    """

    kind: WindowType
    size: int
    now: datetime | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ToolCall(Readable):
    """One call of a tool that an assistant message asks for. `arguments` is the JSON text the model wrote."""

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Readable):
    """One message of a conversation, as it was said.

    Attributes:
        id: The client's id, unique in its session (a UUIDv7 when none was given).
        user_id: The owner. None only before storing: "the one session of that name".
        content: The plain text; may be empty when `tool_calls` or `payload` say something.
        payload: The framework's own encoding of the message, kept beside the plain text, tagged JSON.
        tokens: Tokens of the message as rendered into a context, counted once at write by `tokenizer`.
        seq: The position in its session, 1..N without gaps, given by the store; 0 before that.
    """

    id: str
    session_id: str
    role: Role
    content: str
    created_at: datetime
    user_id: str | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    payload: Mapping[str, Any] | None = None
    tokens: int = 0
    tokenizer: str = ""
    seq: int = 0

    @property
    def speaker(self) -> str:
        """The name of who speaks, or the role where no name is known."""
        return self.name or self.role


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStats(Readable):
    """What a store knows of a session without reading its messages. All zero for a session that does not exist.

    Attributes:
        epoch: Identifies this life of the session: another one after it was deleted and begun again. 0: none.
        last_seq: `seq` of the newest message, counting deleted ones.
        tokens: Sum of the stored messages' tokens.
    """

    session_id: str
    user_id: str = ""
    epoch: int = 0
    last_seq: int = 0
    message_count: int = 0
    turn_count: int = 0
    tokens: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The end of a session, as a store returns it: contiguous, in order, at least what its window asked for.

    Attributes:
        stats: Of the whole session.
        messages: The newest messages.
        opening: The user message that opened the turn in which `messages` begin, when it lies before them.
        system: The newest system message when it lies before `messages`.
        error: Why this came from slower or staler places than it should have, for `Context.errors`.
    """

    stats: SessionStats
    messages: tuple[Message, ...] = ()
    opening: Message | None = None
    system: Message | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """What an append did: the messages as stored, in the order given, and each touched session afterwards."""

    messages: tuple[Message, ...]
    stats: tuple[SessionStats, ...]


@dataclass(frozen=True, slots=True)
class SummaryLine(Readable):
    """One statement of a summary and the messages it speaks for.

    Attributes:
        text: One line of plain text, without a date or a bullet.
        seqs: `seq` of the messages it was made from.
        at: When the first of them was said.
        weight: How much it is worth keeping, 0..1, for choosing lines when not all fit.
        tokens: Of the line as rendered; 0 before it is counted.
    """

    text: str
    seqs: tuple[int, ...]
    at: datetime
    weight: float = 0.5
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary(Readable):
    """What is left of the messages `from_seq..to_seq`.

    Attributes:
        level: 0 for a leaf made from messages, n for one rolled up from leaves of level n - 1.
        tokens: Tokens of all lines as rendered, counted by `tokenizer`.
        model: Which summariser wrote it.
        model_tokens: Tokens the model was paid for, in and out.
    """

    from_seq: int
    to_seq: int
    level: int
    lines: tuple[SummaryLine, ...]
    tokens: int
    tokenizer: str
    model: str
    created_at: datetime
    model_tokens: int = 0

    @property
    def text(self) -> str:
        """All lines, one below the other."""
        return "\n".join(line.text for line in self.lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryState:
    """The summaries of a session, as a store returns them.

    Attributes:
        nodes: Ordered by `from_seq`, then by level; any two either nest or do not meet.
        covered: The highest `to_seq` of a leaf: everything up to here is summarised. 0 for nothing.
        pending_tokens: Tokens of the messages after `covered`.
    """

    nodes: tuple[Summary, ...] = ()
    covered: int = 0
    pending_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece(Readable):
    """One part of a context and why it is there.

    Attributes:
        source: The memory it comes from, for example `messages` or `summary`.
        tokens: Tokens it takes in the rendered context.
        score: What it was chosen by, 0..1, higher is better.
        reason: Why it is in, in words.
        ids: Ids of the messages (or `seq` as text) it was made from.
    """

    text: str
    tokens: int
    source: str
    score: float = 1.0
    reason: str = ""
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Readable):
    """What was left out of a context and why. `count` items in all; `ids` names them where they were read."""

    source: str
    reason: str
    count: int = 1
    tokens: int = 0
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextRequest(Readable):
    """One question to the memory.

    Attributes:
        query: What the next model call is about; sources that search use it.
        max_total_tokens: Budget of the rendered context; the engine's own when None.
    """

    session_id: str
    user_id: str | None = None
    query: str = ""
    max_total_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Receipt(Readable):
    """What an erasure removed: rows per table or key space, and the sessions it touched, as they were before."""

    removed: Mapping[str, int]
    sessions: tuple[SessionStats, ...] = ()

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.removed.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendHealth(Readable):
    """How one backend is: its status, the latency of a ping in milliseconds, and what is wrong in words."""

    status: Status
    latency_ms: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health(Readable):
    """How an engine is. `status` is the worst that matters; `timestamp` is ISO 8601 in UTC."""

    status: Status
    timestamp: str
    backends: Mapping[str, BackendHealth] = field(default_factory=dict[str, BackendHealth])
    detail: Mapping[str, Any] = field(default_factory=lambda: EMPTY)


@dataclass(frozen=True, slots=True)
class Usage(Readable):
    """Tokens of model calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens, self.calls + other.calls
        )

    @property
    def total(self) -> int:
        """In and out."""
        return self.input_tokens + self.output_tokens


def message_ids(messages: Sequence[Message]) -> tuple[str, ...]:
    """The ids of `messages`, in their order."""
    return tuple(message.id for message in messages)
