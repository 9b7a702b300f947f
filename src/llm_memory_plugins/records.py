"""The values of vector memory: what is stored, what a store is asked, and what it hands over to be ranked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from llm_memory_plugins.filters import Filter
from llm_memory_plugins.types import EMPTY, Readable, Role

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EVERYWHERE: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class Passage(Readable):
    """The part of a long text that was found.

    Attributes:
        number: Its place in the text, from 0.
        start, stop: Its characters: `text == record.content[start:stop]`.
    """

    number: int
    start: int
    stop: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Readable):
    """A text to be found again, and, where a search found it, how well it fits.

    Attributes:
        id: Unique among the user's records.
        content: The whole text.
        metadata: The caller's; filters ask it.
        session_id: The conversation it is part of.
        source: Where it comes from: a file, a URL, a system.
        role, name: Who said it, for messages.
        importance: 0..1; counts where `importance_weight` is set.
        created_at: When it was said or made, for dates in questions and in the context.
        revision: Counts how often it was written; 0 before it is stored.
        score: How well it answers the question, 0..1. 0 where none was asked.
        similarity: Cosine of the question and the text; None while the text has no vector.
        why: What each signal added to the score.
        passage: What of a long text was found; None for the whole.
    """

    id: str
    content: str
    created_at: datetime
    user_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    session_id: str | None = None
    source: str | None = None
    role: Role | None = None
    name: str | None = None
    importance: float = 0.0
    revision: int = 0
    score: float = 0.0
    similarity: float | None = None
    why: Mapping[str, float] = field(default_factory=lambda: EVERYWHERE)
    passage: Passage | None = None

    _also: ClassVar[tuple[str, ...]] = ("text", "speaker")

    @property
    def text(self) -> str:
        """What was found: the passage, or all of it."""
        return self.passage.text if self.passage else self.content

    @property
    def speaker(self) -> str:
        """Name or role of who said it; empty for a document."""
        return self.name or self.role or ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """What is searched of a record: its text, or a stretch of it where it is longer than can be embedded at once.

    Attributes:
        start, stop: Characters of the record's content.
        terms: Its distinct stems as numbers (`lexicon.term`), ascending.
        counts: How often each of them stands in it.
        length: Content words in it.
        telling: See `queries.Traits`.
        tokens: Of the text as rendered into a context, by the tokenizer of its entry.
        vector: Shape (dimensions,), of length 1; None while there is none.
    """

    start: int
    stop: int
    terms: tuple[int, ...]
    counts: tuple[int, ...]
    length: int
    telling: float = 0.0
    tokens: int = 0
    vector: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A record as it is written: with its parts, which cover it in order.

    Attributes:
        embedder: Identity of what made the vectors.
        tokenizer: What counted the tokens.
    """

    record: Record
    parts: tuple[Part, ...]
    embedder: str
    tokenizer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which records of a user are meant; without any condition, all."""

    ids: tuple[str, ...] | None = None
    session_id: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    filter: Filter | None = None

    @property
    def everything(self) -> bool:
        """Whether there is no condition."""
        return self == Where()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """A question, as a store needs it.

    Attributes:
        vectors: The question by each embedder, identity first, the preferred one first; a text is compared by the
            first one it has a vector of.
        terms: Its stems as numbers.
        where: What to search.
        limit: Candidates by meaning (for each embedder) and by words.
    """

    vectors: tuple[tuple[str, NDArray[np.float32]], ...]
    terms: tuple[int, ...]
    where: Where = field(default_factory=Where)
    limit: int = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A candidate, as a store returns it.

    Attributes:
        id: Of the part; unique in its pool.
        session: The session or document it is part of; empty for none.
        position: Its place there, counted by one.
        speaker: Name or role of who said it; empty for a document.
        tokens: What it costs in a context, as `tokenizer` counts.
        length: Content words in it, as counted at write time.
        cosine: Its similarity to the question; NaN where it has no vector to compare.
        counts: How often each of the query's terms stands in it, in their order.
        telling: See `queries.Traits`.
        importance: As it was stored with, 0..1.
        record: Id of the record it is part of.
    """

    id: str
    text: str
    cosine: float
    counts: tuple[int, ...]
    length: int
    tokens: int
    session: str = ""
    position: int = 0
    speaker: str = ""
    created_at: datetime | None = None
    telling: float = 0.0
    importance: float = 0.0
    record: str = ""
    tokenizer: str = ""


@dataclass(frozen=True, slots=True)
class Corpus:
    """What BM25 knows of all texts of a tenant: how many, their mean length, and how many hold each query term."""

    total: int
    average_length: float
    frequencies: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pool:
    """The candidates for a question.

    Attributes:
        rows: Each once, in no particular order.
        corpus: Of all parts of the user, with one frequency a term of the probe.
        speakers: Who speaks in the user's records, names or roles; the first 100 in alphabetical order.
        embedders: Identities of which the user has vectors.
        record: The record a row is of. Of a record of several parts the content is the part's text alone, and
            `passage` says where that stands.
    """

    rows: tuple[Row, ...]
    corpus: Corpus
    speakers: tuple[str, ...]
    embedders: tuple[str, ...]
    record: Callable[[Row], Record]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStats(Readable):
    """What a store holds of a user, or of all it may see.

    Attributes:
        records: Texts as they were stored.
        parts: Of them, each found on its own.
        pending: Parts that wait for a vector.
        embedders: Parts with a vector, by embedder.
    """

    records: int = 0
    parts: int = 0
    pending: int = 0
    embedders: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True)
class Unembedded:
    """A part without a vector: whose, which, and its text."""

    user_id: str
    part: int
    text: str


class SearchResults(tuple[Record, ...]):
    """What a search found, best first: a tuple of records.

    Attributes:
        errors: What could not be asked, by name: without the embedder, only words were compared.
    """

    errors: Mapping[str, str]

    def __new__(cls, records: Iterable[Record], errors: Mapping[str, str] = EMPTY) -> Self:
        """The records, and what went wrong."""
        made = super().__new__(cls, records)
        made.errors = errors
        return made
