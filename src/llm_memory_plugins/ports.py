"""What the engines need from the outside, one small Protocol each.

Anything that has these methods fits; nothing has to inherit. The suites in `llm_memory_plugins.testing`
say what each method must hold and run unchanged over every implementation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel

from llm_memory_plugins.key_values import Space
from llm_memory_plugins.records import Entry, IndexStats, Pool, Probe, Record, Unembedded, Where
from llm_memory_plugins.types import (
    Appended,
    Message,
    Receipt,
    SessionRef,
    SessionStats,
    Summary,
    SummaryLine,
    SummaryState,
    Tail,
    Usage,
    Window,
)
from llm_memory_plugins.working_items import Draft, Snapshot, Stored, WorkingItem, WorkingStats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AnswerT = TypeVar("AnswerT", bound=BaseModel)
EmbeddingKind = Literal["document", "query"]
"""What a text is embedded for: to be found, or to find. Some models place the two differently."""


class Backend(Protocol):
    """Something that is opened, pinged and closed: a database, a pool, a client. All three are idempotent."""

    async def open(self) -> None:
        """Connect and prepare. Raises `StoreUnavailable`."""
        ...

    async def ping(self) -> None:
        """One cheap round trip that proves it works. Raises `StoreUnavailable` or `ModelError`."""
        ...

    async def close(self) -> None:
        """Let go of everything."""
        ...


class MessageLog(Protocol):
    """The durable, append-only log of messages. Every verb is one atomic operation.

    A `SessionRef` or `Message` without a user means the one session of that name which can be seen:
    all verbs raise `AmbiguousSession` when there are several, and `append` begins one for the empty user
    when there is none.
    """

    async def append(self, messages: Sequence[Message]) -> Appended:
        """Store all messages or none; returns them with `user_id` and `seq` filled, in the given order.

        A message whose id its session already holds is not stored again: it returns as it was stored first.
        """
        ...

    async def recent(self, session: SessionRef, window: Window) -> Tail:
        """The end of a session, at least as much as `window` asks for.

        Costs the window, not the history. A session that does not exist gives an empty tail.
        """
        ...

    async def page(self, session: SessionRef, *, after: int = 0, limit: int = 1000) -> tuple[Message, ...]:
        """Up to `limit` messages with `seq > after`, in order."""
        ...

    async def sessions(
        self,
        *,
        user_id: str | None = None,
        session_id: str | None = None,
        after: SessionRef | None = None,
        limit: int = 100,
    ) -> tuple[SessionStats, ...]:
        """Sessions that match, ordered by (`user_id`, `session_id`), from behind `after` on."""
        ...

    async def delete(self, *, user_id: str | None = None, session_id: str | None = None) -> Receipt:
        """Remove every trace of a user, or of a session: messages, summaries, counters.

        Raises:
            InvalidInput: When neither is named.
            AmbiguousSession: When only a session is named and several users have one of that name.
        """
        ...

    async def prune(self, before: datetime, *, user_id: str | None = None) -> Receipt:
        """Remove messages created before a moment, and what was derived from them alone."""
        ...


class SummaryLog(Protocol):
    """The durable summaries of a session: a tree over ranges of `seq`, written once per range."""

    async def read(self, session: SessionRef, *, finest: int = 64) -> SummaryState:
        """The coarsest nodes that cover everything, and the newest `finest` leaves below them."""
        ...

    async def claim(self, session: SessionRef, *, after: int, holder: str, until: datetime, now: datetime) -> bool:
        """Take the right to summarise what follows `after`; False when it is covered or another holder has it."""
        ...

    async def release(self, session: SessionRef, *, holder: str) -> None:
        """Give the claim back early, after a failure."""
        ...

    async def commit(self, session: SessionRef, node: Summary, *, holder: str) -> None:
        """Store a node: a leaf must begin just behind what is covered, a parent exactly over existing nodes.

        Only for who holds the claim: it went with the session if that was erased meanwhile, even when another one of
        the same name has begun.

        Raises:
            Conflict: When it does not: another process was faster, or the messages are gone.
        """
        ...


class VectorIndex(Protocol):
    """The durable texts of vector memory, found by meaning and by words. Every verb is one atomic operation.

    All but `stats` are about one user; the empty user is one, too.
    """

    async def put(self, user_id: str, entries: Sequence[Entry]) -> tuple[Record, ...]:
        """Store all records or none; returns them with `user_id` and `revision` filled, in the given order.

        The id names the record: a new one is stored, a known one replaced, and when nothing but `created_at` differs
        left as it is, except that vectors it lacks are taken. Where the content stays the same its vectors stay, too.
        A record with a `revision` replaces only that revision, `created_at` included. Parts of a session's records
        get consecutive positions in the order of their first writing.

        Raises:
            Conflict: When a record that brings a revision is not there in it (any more). Nothing was written.
        """
        ...

    async def match(self, user_id: str, probe: Probe) -> Pool:
        """The candidates for a question.

        They are the `limit` parts nearest by cosine and, among those that hold any of the terms, the `limit` best by
        BM25, out of what `where` allows; and the parts up to two places around each of these in its session, or in
        its record if that has no session, as far as `where` allows them.
        """
        ...

    async def page(
        self, user_id: str, where: Where, *, after: str | None = None, limit: int = 100
    ) -> tuple[Record, ...]:
        """Up to `limit` records, whole, ordered by id, from behind the id `after` on."""
        ...

    async def delete(self, user_id: str, where: Where) -> Receipt:
        """Remove records with everything derived from them; counts by table."""
        ...

    async def count(self, user_id: str, where: Where) -> int:
        """How many records there are."""
        ...

    async def stats(self, user_id: str | None = None) -> IndexStats:
        """What there is of a user; of everybody who may be seen when None."""
        ...


class EmbeddingQueue(Protocol):
    """The vectors still to be made: of parts that were stored while the embedder was down, or for another embedder."""

    async def pending(
        self,
        embedder: str | None = None,
        *,
        user_id: str | None = None,
        after: Unembedded | None = None,
        limit: int = 256,
    ) -> tuple[Unembedded, ...]:
        """Up to `limit` parts that have no vector of `embedder`, or none at all when it is None.

        Ordered by user and part, from behind `after` on, of one user or of everybody who may be seen.
        """
        ...

    async def fill(self, embedder: str, vectors: Sequence[tuple[Unembedded, NDArray[np.float32]]]) -> int:
        """Store vectors; returns for how many of the parts, since some may be gone, or have one, meanwhile."""
        ...

    async def retire(self, embedder: str, *, user_id: str | None = None) -> int:
        """Remove the vectors of all other embedders, where `embedder` has one for the same part; returns how many."""
        ...


class WorkingSet(Protocol):
    """Namespaces of items, each of bounded size. Every verb is one atomic operation.

    An item ends when its time is over, but not before the items below it. Where a namespace is full, items without any
    below them go first, by `working.rank`, so that what leads to an item that stays does stay, too.
    """

    async def put(self, space: Space, drafts: Sequence[Draft]) -> Stored:
        """Write items, all or none, and evict others until the namespace is back at its capacity.

        What is written is not evicted for it, nor what is above it. A new item has all fields but, if it likes,
        `parent_id`; of a known one those that are named change, and its life begins anew. A parent is there already,
        or earlier among the drafts. Without an item to change nothing is written, and nothing returned.

        Raises:
            InvalidInput: When a parent is not there, or is below its child; or when so many items cannot stay together.
        """
        ...

    async def use(self, space: Space, ids: Sequence[str], *, quietly: bool = False) -> tuple[WorkingItem, ...]:
        """Those of the items that are there, each of which has been used once more; `quietly` returns none."""
        ...

    async def read(self, space: Space) -> Snapshot:
        """All items. That is no use of them."""
        ...

    async def stats(self, space: Space) -> WorkingStats:
        """How many items there are and have been evicted."""
        ...

    async def delete(self, space: Space, item_id: str | None = None, *, cascade: bool = False) -> int:
        """Remove an item, with `cascade` also all below it; None for the whole namespace. Returns how many went.

        Raises:
            InvalidInput: When there are items below it and `cascade` is not set.
        """
        ...

    async def forget(self, user_id: str) -> Receipt:
        """Remove all namespaces of a user."""
        ...


class HotTier(Protocol):
    """A copy of the end of sessions that may vanish at any time and is never ahead of the durable log.

    Of two states of a session the one with the higher (`epoch`, `last_seq`) is newer. All verbs raise
    `StoreUnavailable` when the tier cannot be reached, and soon.

    Attributes:
        shared: True when every writer of the log pushes to the same copy; otherwise a reader asks the log for
            `last_seq` before it believes the copy.
    """

    shared: bool

    async def read(self, session: SessionRef, window: Window) -> Tail | None:
        """The copy, or as much of its end as `window` asks for; None when there is none."""
        ...

    async def push(self, stats: SessionStats, messages: Sequence[Message]) -> None:
        """Follow a commit: append when there is no gap, else drop the copy."""
        ...

    async def fill(self, tail: Tail) -> None:
        """Put a copy in place unless a newer one is there, or was dropped a moment ago."""
        ...

    async def drop(self, sessions: Sequence[SessionStats]) -> int:
        """Forget the copies of these sessions, and refuse late fills from their states; returns how many there were."""
        ...


class ChatModel(Protocol):
    """A chat model that answers in a given structure."""

    identity: str
    """Provider and model, for example `openai/gpt-5-mini`."""

    async def generate(
        self, *, instructions: str, content: str, answer: type[AnswerT], max_output_tokens: int
    ) -> tuple[AnswerT, Usage]:
        """Ask once and return the parsed answer and what it cost.

        Raises:
            ModelError: On any failure: network, rate limit, refusal, truncated or malformed answer.
        """
        ...


class Embedder(Protocol):
    """Turns texts into vectors of unit length, so that the product of two is the cosine of their angle.

    The first two raise a retryable `ModelError` while a model whose size nobody stated has not answered yet.
    """

    @property
    def identity(self) -> str:
        """Provider, model and dimensions, as in `openai/text-embedding-3-small/1536`: only equal ones compare."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of each vector."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """The window: tokens of one text at most, as the model counts them. None when there is no limit."""
        ...

    async def embed(self, texts: Sequence[str], *, kind: EmbeddingKind) -> tuple[NDArray[np.float32], Usage]:
        """One vector a text, in their order, and what it cost; all of them or an error.

        Args:
            texts: Any number, also none, which calls no model. No text may be blank or longer than the window.
            kind: What the texts are embedded for.

        Returns:
            An array of shape (number of texts, `dimensions`): finite, each row of length 1. It is the caller's own.

        Raises:
            InvalidInput: When a text cannot be embedded; `field` names it, as in `texts[3]`. No model was called.
            ModelError: On any other failure: network, rate limit, too few vectors, wrong dimensions, NaN.
        """
        ...


class Reranker(Protocol):
    """Reads a question and a text together, as a cross-encoder or a chat model can."""

    async def rerank(self, query: str, texts: Sequence[str]) -> Sequence[float]:
        """One number a text, in their order: the higher, the better it answers. Their scale does not matter.

        Raises:
            ModelError: On any failure.
        """
        ...


class Summariser(Protocol):
    """Turns messages, or lines of finer summaries, into fewer lines."""

    identity: str

    async def summarise(self, lines: Sequence[SummaryLine], *, max_tokens: int) -> tuple[list[SummaryLine], Usage]:
        """Lines of about `max_tokens` in all that keep what later questions will need.

        Each returned line names in `seqs` the messages it speaks for, a subset of those given.

        Raises:
            ModelError: When no usable summary could be made.
        """
        ...


@runtime_checkable
class TokenCounter(Protocol):
    """Counts tokens.

    Over lines that end in a newline and begin with anything but white space, counts must add up:
    `count(a + b) <= count(a) + count(b)`. tiktoken's encodings do.
    """

    name: str

    def count(self, text: str) -> int:
        """Tokens of `text`; 0 for the empty text."""
        ...


class Clock(Protocol):
    """Tells the time; tests hand in their own."""

    def __call__(self) -> datetime:
        """Now, in UTC."""
        ...
